package engine

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

// carried sends a command as a client's stream does, takes turns until it is over,
// and gives back what was said.
func carried(t *testing.T, w *world, in query.CommandIn, c core.Command, until func(query.Said) bool) (bus.Receipt, []query.Said, error) {
	t.Helper()
	in.Body, in.Name = body(t, c), core.CommandName(c)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var receipt bus.Receipt
	var all []query.Said
	done := make(chan error, 1)
	go func() {
		done <- w.e.Carry(ctx, Carry{
			Paths: pathsIn(t.TempDir()), Actor: bus.Actor{UID: 7}, Body: body(t, in),
			Open: func(r bus.Receipt) (context.Context, error) {
				receipt = r
				return ctx, nil
			},
			Say: func(said query.Said, _ *os.File) error {
				if all = append(all, said); until(said) {
					cancel()
				}
				return nil
			},
		})
	}()
	for {
		select {
		case err := <-done:
			if ctx.Err() == context.DeadlineExceeded {
				t.Error("it does not end by itself")
			}
			return receipt, all, err
		case <-time.After(time.Millisecond):
			w.settle()
		}
	}
}

func untilOver(query.Said) bool { return false }

func TestCarryTellsHowTheJobEnds(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	const job = "018f0000-0000-7000-8000-00000000aaaa"
	r, said, err := carried(t, w, query.CommandIn{Job: job, Wait: true}, create(1, "web", core.Running), untilOver)
	if err != nil || r.Job != job || r.Seq == 0 || len(said) != 1 {
		t.Fatalf("%+v, %d lines, %v", r, len(said), err)
	}
	var end core.JobEnded
	if err := json.Unmarshal(said[0].Event, &end); err != nil || end.Outcome != core.JobDone {
		t.Errorf("told %s, %v", said[0].Event, err)
	}
	if len(w.e.onlookers) != 0 {
		t.Errorf("%d nouns are still watched", len(w.e.onlookers))
	}
	// By its name, and by the beginning of its id.
	for i, ref := range []core.ContainerID{"web", core.ContainerID(hexOf(1)[:12])} {
		in := query.CommandIn{Job: job[:35] + string(rune('b'+i)), Wait: true}
		if _, said, err = carried(t, w, in, &core.KillContainer{ID: ref, Signal: 15}, untilOver); err != nil || len(said) != 1 {
			t.Fatalf("kill %s: %d lines, %v", ref, len(said), err)
		}
	}
	if _, _, err = carried(t, w, query.CommandIn{Job: job[:35] + "d"}, &core.KillContainer{ID: "wbe", Signal: 15}, untilOver); !errdefs.IsNotFound(err) {
		t.Errorf("a container that is not there: %v", err)
	}
	// The same command again gets the first one's receipt, also when its name is free by now.
	w.say("container.rename", core.RenameContainer{ID: core.ContainerID(hexOf(1)), Name: "other"})
	w.settle()
	if again, _, err := carried(t, w, query.CommandIn{Job: job[:35] + "b"}, &core.KillContainer{ID: "web", Signal: 15}, untilOver); err != nil || again.Seq == 0 {
		t.Errorf("sent again: %+v, %v", again, err)
	}
	// Its end was told before: it is in the log.
	if _, said, err := carried(t, w, query.CommandIn{Job: job[:35] + "b", Wait: true}, &core.KillContainer{ID: "web", Signal: 15}, untilOver); err != nil || len(said) != 0 {
		t.Errorf("sent again, and waited for: %+v, %v", said, err)
	}
}

func TestCarryTellsTheContainersEvents(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	w.host.fail = func(s bus.Step) *bus.Error {
		if s.Verb == "container.start-process" {
			return bus.NewError(errdefs.ErrNotFound)
		}
		return nil
	}
	in := query.CommandIn{
		Job: "018f0000-0000-7000-8000-00000000aaaa", Attach: true, Events: []string{"container.start-failed"},
	}
	_, said, err := carried(t, w, in, create(1, "web", core.Running), func(s query.Said) bool { return s.Event != nil })
	if err != nil || len(said) != 2 || said[0].Refused == nil || said[0].Refused.Class != "not-found" ||
		!strings.Contains(string(said[1].Event), `"container.start-failed"`) {
		t.Errorf("told %+v, %v", said, err)
	}
}

// Whoever is too slow is told nothing more, and holds nobody up.
func TestASlowOnlookerIsLetGo(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	id := core.ContainerID(hexOf(1))
	o := w.e.watch(query.CommandIn{Events: []string{"container.renamed"}}, id)
	w.say("container.create", create(1, "web", core.Stopped))
	w.settle()
	for i := range onlookerBuffer + 1 {
		w.say("container.rename", core.RenameContainer{ID: id, Name: "web" + strings.Repeat("x", i+1)})
		w.settle()
	}
	got := 0
	for range o.events {
		got++
	}
	if got != onlookerBuffer || !o.over {
		t.Errorf("%d events, over %v", got, o.over)
	}
	w.e.unwatch(o)
	if len(w.e.onlookers) != 0 {
		t.Error("it is still told")
	}
}

func TestAContainerThatLeavesIsFoundByItsName(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	w.say("container.create", create(1, "web", core.Running))
	w.settle()
	w.host.hold = func(s bus.Step) bool { return s.Verb == "container.release-rootfs" }
	w.say("container.remove", core.RemoveContainer{ID: core.ContainerID(hexOf(1)), Force: true}).done = true
	w.settle()
	if c, err := findContainer(w.e.durable, "web"); err != nil || string(c.ID) != hexOf(1) {
		t.Errorf("it is found as %v, %v", c, err)
	}
	w.say("container.create", create(2, "web", core.Stopped))
	w.settle()
	if c, err := findContainer(w.e.durable, "web"); err != nil || string(c.ID) != hexOf(2) {
		t.Errorf("the new one of that name is found as %v, %v", c, err)
	}
}
