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
	w.takenBack()
	w.say("driver.enable", core.EnableDriver{Driver: "exec/native"}).done = true
	w.turn()
	delete(w.host.running, start.ID)
	w.host.hold = func(bus.Step) bool { return false }
	w.fault(start, errdefs.ErrAborted)
	w.settle()
	w.pass(time.Second)
	if c := w.container(1); !c.Running() || c.Fault != nil {
		t.Errorf("the container is %s: %+v", c.Status(), c.Fault)
	}
}

// TestAStepThatIsOwedAgainByWhatIsDecidedBesideItsFailure: a container was to be
// attached to a network that its driver turned out to have lost. It failed by that
// while the network was being made again, and both are told at once; or the failure
// was told before, and this is a copy.
func TestAStepThatIsOwedAgainByWhatIsDecidedBesideItsFailure(t *testing.T) {
	for name, copied := range map[string]bool{"told once": false, "told twice": true} {
		t.Run(name, func(t *testing.T) {
			w := held(t, "container.attach-network")
			attach := w.only()
			w.host.hold = func(s bus.Step) bool { return s.Verb == "network.create" }
			w.host.report("net", "bridge", "driver.report-inventory", core.ReportInventory{Kind: "net", Driver: "bridge", Instance: "instance-1"})
			w.takenBack()
			w.settle()
			delete(w.host.running, attach.ID)
			if copied {
				w.fault(attach, errdefs.ErrNotFound)
				w.settle()
			}
			w.host.finish(w.only())
			delete(w.host.running, w.only().ID)
			w.fault(attach, errdefs.ErrNotFound)
			w.settle()
			w.pass(time.Second)
			if c := w.container(1); !c.Running() || c.Fault != nil {
				t.Errorf("the container is %s: %+v", c.Status(), c.Fault)
			}
		})
	}
}

// takenBack takes a turn in which a step is cancelled, which the host does not hear.
func (w *world) takenBack() {
	w.t.Helper()
	w.turn()
	if len(w.host.cancelled) != 1 {
		w.t.Fatalf("cancelled: %+v", w.host.cancelled)
	}
	w.host.cancelled = nil
}

// TestAnotherWishIsTriedWithNewPatience: that a signal could not be delivered for long
// keeps no further one waiting; its driver may be there again.
func TestAnotherWishIsTriedWithNewPatience(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	w.say("container.create", create(1, "web", core.Running)).done = true
	w.settle()
	w.host.fail = func(s bus.Step) *bus.Error {
		if s.Verb != "container.signal-process" {
			return nil
		}
		return bus.NewError(errclass.Errorf(errdefs.ErrUnavailable, "it is away"))
	}
	first := w.job()
	w.sayJob(first, "container.kill", core.KillContainer{ID: core.ContainerID(hexOf(1)), Signal: 1}).done = true
	second := w.job()
	w.sayJob(second, "container.kill", core.KillContainer{ID: core.ContainerID(hexOf(1)), Signal: 2}).done = true
	w.settle()
	for range 60 {
		if w.e.durable.Jobs[core.JobID(first)].Open() {
			w.pass(time.Second)
		}
	}
	w.host.fail = nil
	w.pass(time.Second)
	if j := w.e.durable.Jobs[core.JobID(first)]; j.State != core.JobFailed {
		t.Errorf("the first: %+v", j)
	}
	if j := w.e.durable.Jobs[core.JobID(second)]; j.State != core.JobDone {
		t.Errorf("the second, with the driver there again: %s", j.State)
	}
}
