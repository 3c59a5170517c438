package crash

import (
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/test/rig"
)

// TestRestartPolicy hurts at every point of a restart by policy, in every way. No
// restart is counted twice or left out, however often engines die.
func TestRestartPolicy(t *testing.T) {
	points := []string{"container.exited", "container.restart-planned", "container.process-released", "container.restart-due", "container.started"}
	for _, s := range strikes() {
		if strings.HasPrefix(s.name, "image") {
			continue // has no part in it
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, rig.Options{})
			w.load()
			w.takeStock()
			hits := 0
			for i, point := range points {
				if w.hurtRestarts(s, point) {
					hits++
				}
				if i%2 == 1 && !s.engine { // a driver that dies too often is waited for longer and longer
					w.must(w.Stop())
					w.restart()
				}
			}
			if hits < len(points) && !s.shim || hits == 0 { // between two runs there is no shim
				t.Errorf("%d of %d points were hit", hits, len(points))
			}
		})
	}
}

// hurtRestarts lets a container fail until its policy gives up, and strikes once.
func (w *world) hurtRestarts(s strike, point string) bool {
	w.t.Helper()
	last := "0.03"
	if s.shim && point == "container.started" {
		last = "1.5" // see slowScript
	}
	c := w.container("echo run; sleep " + last + "; exit 3")
	c.Spec.Restart = core.Restart{Policy: "on-failure", Max: 2}
	k := w.strikeAt(s, bus.Filter{Noun: core.KindContainer, ID: string(c.ID)}, point, 0)
	w.insist(k, c)
	d := w.ended(c.ID, k)
	select {
	case <-k.done:
	case <-time.After(limit):
		w.t.Fatalf("%s: the point did not come", point)
	}
	w.must(k.err)
	if s.engine {
		w.connect()
	}
	if d.Exit == nil || d.Exit.Run != 3 || d.Restarts != 2 || d.Exit.Code != 3 && !s.shim {
		w.t.Errorf("%s at %s: after %d restarts it ended as %+v, fault %+v", s.name, point, d.Restarts, d.Exit, d.Fault)
	}
	out, err := w.client.Logs(w.within(), string(c.ID))
	w.must(err)
	if string(out) != "run\nrun\nrun\n" && !s.shim {
		w.t.Errorf("%s at %s: the program has run as %q tells", s.name, point, out)
	}
	w.holds()
	w.gone(c.ID)
	w.must(w.client.Settle(w.within()))
	w.is(w.empty)
	w.verified()
	if w.t.Failed() {
		w.t.Fatalf("%s at %s", s.name, point)
	}
	return k.hit
}

// TestHealth hurts while a container's health is watched. That nobody could look
// is no failure: the health that is told is the container's own, before and after.
func TestHealth(t *testing.T) {
	points := []string{"container.health-watched", "container.health-changed"}
	for _, s := range strikes() {
		if !s.engine && !strings.HasPrefix(s.name, "exec") {
			continue // have no part in it
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, rig.Options{})
			w.load()
			w.takeStock()
			for _, point := range points {
				if !w.hurtHealth(s, point) {
					t.Errorf("point %s was never hit", point)
				}
			}
		})
	}
}

// hurtHealth strikes once while a container is healthy, then makes it ill.
func (w *world) hurtHealth(s strike, point string) bool {
	w.t.Helper()
	c := w.container("")
	c.Spec.Process.Cmd = []string{"sleep", "1000"}
	c.Spec.Health = &core.Health{
		Test: []string{"CMD-SHELL", "echo looked; test ! -e /ill"}, Interval: 40 * time.Millisecond, Timeout: 10 * time.Second, Retries: 2,
	}
	k := w.strikeAt(s, bus.Filter{Noun: core.KindContainer, ID: string(c.ID)}, point, 0)
	w.insist(k, c)
	select {
	case <-k.done:
	case <-time.After(limit):
		w.t.Fatalf("%s: the point did not come", point)
	}
	w.must(k.err)
	if s.engine {
		w.connect()
	}
	w.healthIs(c.ID, core.Healthy)
	time.Sleep(300 * time.Millisecond) // several probes
	w.healthIs(c.ID, core.Healthy)
	w.must(w.client.Do(w.within(), &core.ExecContainer{
		ID: c.ID, Exec: core.ExecID(rig.NewID()), Spec: core.ExecSpec{Args: []string{"touch", "/ill"}},
	}))
	h := w.healthIs(c.ID, core.Unhealthy)
	if h.Streak < 2 || len(h.Probes) == 0 || h.Probes[len(h.Probes)-1].Output != "looked\n" {
		w.t.Errorf("%s at %s: told as %+v", s.name, point, h)
	}
	if got := w.healths(c.ID); got != "healthy unhealthy" {
		w.t.Errorf("%s at %s: its health was told as %s", s.name, point, got)
	}
	w.gone(c.ID)
	w.must(w.client.Settle(w.within()))
	w.is(w.empty)
	w.verified()
	if w.t.Failed() {
		w.t.Fatalf("%s at %s", s.name, point)
	}
	return k.hit
}

// healthIs waits for a container's health.
func (w *world) healthIs(id core.ContainerID, want string) core.HealthState {
	w.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		d, err := w.client.Container(w.within(), string(id))
		w.must(err)
		if d.State.Health != nil && d.State.Health.Status == want {
			return *d.State.Health
		}
		if time.Now().After(end) {
			w.t.Fatalf("container %.12s does not become %s: %+v", id, want, d.State.Health)
		}
	}
}

// healths are the changes of a container's health, as the log has them.
func (w *world) healths(id core.ContainerID) string {
	w.t.Helper()
	var all []string
	for from := uint64(1); ; {
		var p query.LogPage
		w.must(w.client.Query(w.within(), query.LogRead, query.LogIn{From: from, Noun: core.KindContainer, ID: string(id)}, &p))
		for _, line := range p.Events {
			if e, err := core.DecodeEvent(line); err == nil {
				if h, ok := e.(*core.HealthChanged); ok {
					all = append(all, h.Status)
				}
			}
		}
		if from = p.Next; p.Done {
			return strings.Join(all, " ")
		}
	}
}
