package crash

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/test/rig"
)

// points are the named points of a run: right after each of a container's
// events, in their order.
func points() []string {
	return []string{
		"container.created", "container.rootfs-prepared", "container.network-attached", "container.started",
		"container.exited", "container.process-released", "container.network-detached",
		"container.remove-wanted", "container.rootfs-released", "container.log-removed", "container.removed",
	}
}

// rounds is how often each point is hit: the first time at once, then after a
// random while.
const rounds = 2

// longestDelay bounds that while.
const longestDelay = 5 * time.Millisecond

// TestRun hurts at every point of a run, in every way. A run that was hurt ends
// as one that was not: with its code, its output, and nothing left.
func TestRun(t *testing.T) {
	for n, s := range strikes() {
		if strings.HasPrefix(s.name, "image") {
			continue // has no part in a run: TestLoad
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, rig.Options{})
			w.load()
			w.takeStock()
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			hits := map[string]int{}
			for round := range rounds {
				for i, point := range points() {
					var delay time.Duration
					if round > 0 {
						delay = time.Duration(rnd.Int64N(int64(longestDelay)))
					}
					if w.hurtRun(s, point, delay) {
						hits[point]++
					}
					if i%3 == 2 && !s.engine { // a driver that dies too often is waited for longer and longer
						w.must(w.Stop())
						w.restart()
					}
				}
			}
			for _, point := range points() {
				if hits[point] == 0 && !(s.shim && point != "container.started") {
					t.Errorf("point %s was never hit", point)
				}
			}
			if s.shim && w.lost == 0 {
				t.Error("no run has lost its shim")
			}
			t.Log("hits:", hits)
		})
	}
}

// script is a program that writes before and after a while, and ends with 7.
const script = "echo begun; sleep 0.05; echo done; exit 7"

// slowScript is one that has not ended before a strike at its start, which comes
// later than the event by as long as the machine is busy.
const slowScript = "echo begun; sleep 1.5; echo done; exit 7"

// hurtRun runs a container from its creation to its removal and strikes once,
// at a point. It says whether there was something to hit.
func (w *world) hurtRun(s strike, point string, delay time.Duration) bool {
	w.t.Helper()
	program := script
	if s.shim && point == "container.started" {
		program = slowScript
	}
	c := w.container(program)
	struck := w.strikeAt(s, bus.Filter{Noun: core.KindContainer, ID: string(c.ID)}, point, delay)
	w.insist(struck, c)
	d := w.ended(c.ID, struck)
	select {
	case <-struck.done: // the points up to the run's end
		if s.engine {
			w.connect()
		}
		w.judge(s, point, c, struck.hit, d)
		w.holds()
	default:
	}
	w.insist(struck, &core.RemoveContainer{ID: c.ID, Force: true})
	select {
	case <-struck.done:
	case <-time.After(limit):
		w.t.Fatalf("%s: the point did not come", point)
	}
	w.must(struck.err)
	if s.engine {
		w.connect()
	}
	w.must(w.client.Settle(w.within()))
	list, err := w.client.Containers(w.within())
	w.must(err)
	if len(list) > 0 {
		w.t.Errorf("%s at %s: containers are left: %+v", s.name, point, list)
	}
	w.holds()
	w.verified()
	if w.t.Failed() {
		w.t.Fatalf("%s at %s after %v", s.name, point, delay)
	}
	return struck.hit
}

// judge says whether a run that was hurt has ended as it should.
func (w *world) judge(s strike, point string, c *core.CreateContainer, hit bool, d query.ContainerDetail) {
	w.t.Helper()
	exit, fault := d.Exit, d.Fault
	switch {
	case s.shim && point == "container.started":
		if exit != nil && exit.Lost {
			w.lost++
			return
		}
		// On a slow machine the program may have ended before the strike.
	case s.shim && hit && (fault != nil || exit != nil && exit.Lost):
		return // there was a shim before the program ran, or after it had ended
	}
	if exit == nil || exit.Code != 7 || exit.Lost || fault != nil {
		w.t.Errorf("%s at %s: the run ended as %+v, fault %+v: want 7", s.name, point, exit, fault)
	}
	out, err := w.client.Logs(w.within(), string(c.ID))
	if err != nil || string(out) != "begun\ndone\n" {
		w.t.Errorf("%s at %s: the log has %q %v", s.name, point, out, err)
	}
}

// struck is a strike that was made, or not yet.
type struck struct {
	done chan struct{} // closed when it is over and an engine runs again
	hit  bool
	err  error
}

// strikeAt strikes when the event comes.
func (w *world) strikeAt(s strike, f bus.Filter, point string, delay time.Duration) *struck {
	w.t.Helper()
	events, err := w.client.Events(w.within(), 0, f)
	w.must(err)
	k := &struck{done: make(chan struct{})}
	ctx := w.within()
	go func() {
		defer close(k.done)
		defer events.Close()
		for {
			e, err := events.Next(ctx)
			if err != nil {
				k.err = err
				return
			}
			if e.Name == point {
				break
			}
		}
		time.Sleep(delay)
		k.hit, k.err = s.hit(w)
		if k.err == nil && s.engine {
			k.err = w.Start()
		}
	}()
	return k
}

// insist sends a command until its job has ended, over engines that die: always
// the same job, which is run once.
func (w *world) insist(k *struck, cmd core.Command) {
	w.t.Helper()
	job := rig.NewJob()
	for {
		_, err := w.client.Send(w.within(), job, cmd)
		if err == nil {
			_, err = w.client.Ended(w.within(), job)
		}
		if err == nil {
			return
		}
		w.regain(k, err)
	}
}

// regain connects again after a strike has taken the engine away.
func (w *world) regain(k *struck, why error) {
	w.t.Helper()
	if !lost(why) {
		w.t.Fatal(why)
	}
	select {
	case <-k.done:
	case <-time.After(limit):
		w.t.Fatalf("nobody has struck, but: %v", why)
	}
	w.must(k.err)
	w.connect()
}

// lost says that an error is of a connection, not the engine's word.
func lost(err error) bool {
	return errdefs.IsUnavailable(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
