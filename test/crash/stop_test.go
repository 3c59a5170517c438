package crash

import (
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/test/rig"
)

// TestStop hurts at every point of a stop: of a program that does not heed the
// signal, so that its grace ends and it is killed. It ends as 137, once.
func TestStop(t *testing.T) {
	points := []string{"container.stop-wanted", "container.signaled", "container.grace-ended", "container.exited", "container.network-detached"}
	for _, s := range strikes() {
		if !s.engine && !s.shim && !strings.HasPrefix(s.name, "exec") && !strings.HasPrefix(s.name, "net") {
			continue // have no part in it
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, rig.Options{})
			w.load()
			w.takeStock()
			for i, point := range points {
				hit := w.hurtStop(s, point)
				if !hit && !(s.shim && i >= 2) { // it ends with its container
					t.Errorf("point %s was never hit", point)
				}
				if i == 2 && !s.engine {
					w.must(w.Stop())
					w.restart()
				}
			}
		})
	}
}

// hurtStop starts a container, stops it and strikes once.
func (w *world) hurtStop(s strike, point string) bool {
	w.t.Helper()
	c := w.container(`trap "" TERM; echo up; while true; do sleep 0.02; done`)
	w.must(w.client.Do(w.within(), c))
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if out, err := w.client.Logs(w.within(), string(c.ID)); err == nil && string(out) == "up\n" {
			break
		}
	}
	k := w.strikeAt(s, bus.Filter{Noun: core.KindContainer, ID: string(c.ID)}, point, 0)
	grace := 150 * time.Millisecond
	if s.shim && (point == "container.stop-wanted" || point == "container.signaled") { // the strike ends it, however late
		grace = limit / 2
	}
	w.insist(k, &core.StopContainer{ID: c.ID, Timeout: &grace})
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
	if d.Exit == nil || d.Exit.Code != 137 || d.Exit.Run != 1 || d.Exit.Lost && !s.shim {
		w.t.Errorf("%s at %s: the stop ended as %+v, fault %+v: want 137", s.name, point, d.Exit, d.Fault)
	}
	w.must(w.client.Settle(w.within()))
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
