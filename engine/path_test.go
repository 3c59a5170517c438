package engine

import (
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
)

// TestAStepThatIsTriedAgainNamesTheDriverThatServesNow: the old program would be
// started for it if the new one had just died.
func TestAStepThatIsTriedAgainNamesTheDriverThatServesNow(t *testing.T) {
	w := held(t, "container.start-process")
	start := w.only()
	w.say("driver.replace", core.SwapDriver{Driver: "exec/native", Path: "/opt/new"}).done = true
	w.settle()
	w.host.hold = func(bus.Step) bool { return true }
	delete(w.host.running, start.ID)
	w.fault(start, errdefs.ErrUnavailable)
	w.settle()
	w.pass(time.Second)
	if again := w.only(); again.Verb != start.Verb || again.Path != "/opt/new" {
		t.Errorf("%s is sent for program %q", again.ID, again.Path)
	}
	sent := len(w.host.sent)
	w.pass(askAgainTaken)
	if again := w.host.sent[len(w.host.sent)-1]; len(w.host.sent) == sent || again.Path != "/opt/new" {
		t.Errorf("%s is sent again for program %q", again.ID, again.Path)
	}
}

// TestADisabledDriverIsNotNeeded: whatever it holds, it is not to run.
func TestADisabledDriverIsNotNeeded(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	w.say("container.create", create(1, "web", core.Running)).done = true
	w.settle()
	if got := w.e.Holders(); len(got) != 1 {
		t.Fatalf("beside a container that runs: %v", got)
	}
	w.say("driver.disable", core.DisableDriver{Driver: "exec/native"}).done = true
	w.settle()
	if got := w.open().Holders(); len(got) != 0 {
		t.Errorf("needed: %v", got)
	}
}
