package engine

import (
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

// fault answers a step, which is held back, with a failure of that class.
func (w *world) fault(s bus.Step, class error) *outcome {
	o := &outcome{}
	w.e.Finish(bus.Finish{
		Epoch: w.e.Epoch(), Kind: s.Kind, Driver: s.Driver, Step: s.ID, Try: s.Try,
		Error: bus.NewError(errclass.Errorf(class, "it broke")),
	}, o.reply)
	return o
}

// TestAFailureThatComesTwiceIsTriedAgainOnce: a host repeats a result until it has the
// receipt. The second copy of a failure that was not recorded is not another failure.
func TestAFailureThatComesTwiceIsTriedAgainOnce(t *testing.T) {
	for name, pause := range map[string]time.Duration{"while the step waits": 0, "while it is tried again": time.Second} {
		t.Run(name, func(t *testing.T) {
			w := held(t, "container.start-process")
			start := w.only()
			w.fault(start, errdefs.ErrUnavailable)
			w.settle()
			w.pass(pause)
			if n := len(w.host.sentOf("container.start-process")); (n == 2) != (pause > 0) {
				t.Fatalf("sent %d times", n)
			}
			w.fault(start, errdefs.ErrUnavailable).done = true
			w.settle()
			w.host.hold = func(bus.Step) bool { return false }
			for id, s := range w.host.running {
				delete(w.host.running, id)
				if s.Try != start.Try {
					w.host.finish(s)
				}
			}
			w.pass(time.Second)
			if c := w.container(1); !c.Running() || c.Fault != nil {
				t.Errorf("the container is %s: %+v", c.Status(), c.Fault)
			}
		})
	}
}

// TestAStepThatIsOwedAgainWhileItIsTakenBack: its failure is that of the taking back,
// and nobody's who wants it now.
func TestAStepThatIsOwedAgainWhileItIsTakenBack(t *testing.T) {
	w := held(t, "container.start-process")
	start := w.only()
	w.say("driver.disable", core.DisableDriver{Driver: "exec/native"}).done = true
	if err := w.e.Turn(); err != nil {
		t.Fatal(err)
	}
	if len(w.host.cancelled) != 1 {
		t.Fatalf("cancelled: %+v", w.host.cancelled)
	}
	w.host.cancelled = nil
	w.say("driver.enable", core.EnableDriver{Driver: "exec/native"}).done = true
	if err := w.e.Turn(); err != nil {
		t.Fatal(err)
	}
	delete(w.host.running, start.ID)
	w.host.hold = func(bus.Step) bool { return false }
	w.fault(start, errdefs.ErrAborted)
	w.settle()
	w.pass(time.Second)
	if c := w.container(1); !c.Running() || c.Fault != nil {
		t.Errorf("the container is %s: %+v", c.Status(), c.Fault)
	}
}
