package engine

import (
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// held is a world with a container whose step of that verb is held back.
func held(t *testing.T, verb string) *world {
	w := newWorld(t)
	w.open()
	w.image()
	w.host.hold = func(s bus.Step) bool { return s.Verb == verb }
	w.say("container.create", create(1, "web", core.Running)).done = true
	w.settle()
	if len(w.host.running) != 1 {
		t.Fatalf("%d steps are held back", len(w.host.running))
	}
	return w
}

func (w *world) only() bus.Step {
	for _, s := range w.host.running {
		return s
	}
	w.t.Fatal("no step is held back")
	return bus.Step{}
}

func (w *world) container(n int) *core.Container {
	return w.e.durable.Containers[core.ContainerID(hexOf(n))]
}

func TestAStepIsSentAgainWithoutASign(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.say("image.load", core.LoadImage{Archive: "/x"})
	w.turn()
	w.host.steps = nil // it was lost
	w.now = w.now.Add(askAgain - time.Millisecond)
	w.settle()
	if n := len(w.host.sentOf("image.load-archive")); n != 1 {
		t.Fatalf("sent %d times before its time", n)
	}
	w.pass(time.Millisecond)
	sent := w.host.sentOf("image.load-archive")
	if len(sent) != 2 || sent[0].ID != sent[1].ID || sent[0].Try != sent[1].Try {
		t.Fatalf("sent %+v", sent)
	}
	w.atRest()
}

func TestHeartbeatsKeepALongStepAlive(t *testing.T) {
	w := held(t, "container.prepare-rootfs")
	w.host.hold = func(s bus.Step) bool { return true }
	w.say("image.load", core.LoadImage{Archive: "/y"})
	w.settle()
	for range 200 {
		w.pass(time.Second)
		for id := range w.host.running {
			w.e.Finish(bus.Finish{Epoch: w.e.Epoch(), Step: id, Heartbeat: true}, func(bus.Receipt, error) {})
		}
	}
	var long, short int
	for _, s := range w.host.running {
		if s.Verb == "image.load-archive" {
			long++
		}
		if s.Verb == "container.prepare-rootfs" {
			short++
		}
	}
	if long != 1 || short != 0 {
		t.Errorf("after 200 s: the long step runs %d times, the short one %d", long, short)
	}
	if f := w.container(1).Fault; f == nil || f.Class != "deadline-exceeded" {
		t.Errorf("the short step that took too long: %+v", f)
	}
}

func TestASlotWaitsForTheEndOfWhatWasCancelled(t *testing.T) {
	w := held(t, "container.start-process")
	start := w.only()
	cancels := 0
	w.host.mu.Lock()
	w.host.cancelled = nil
	w.host.mu.Unlock()
	w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(1))})
	w.turn()
	cancels = len(w.host.cancelled)
	w.host.cancelled = nil // the driver does not react
	if cancels != 1 || len(w.host.sentOf("container.release-process")) != 0 {
		t.Fatalf("%d cancellations; %d releases before the end of the start", cancels, len(w.host.sentOf("container.release-process")))
	}
	delete(w.host.running, start.ID)
	late := w.host.finish(start) // it comes to an end, late and well
	w.settle()
	if r := late.ok(t); !r.Stale {
		t.Errorf("a late finish was taken: %+v", r)
	}
	if c := w.container(1); c.Running() || c.Process.State != core.Absent {
		t.Errorf("after the late finish: %+v", c.Process)
	}
	if n := len(w.host.sentOf("container.release-process")); n != 1 {
		t.Errorf("%d releases after it", n)
	}
	w.atRest()
}

func TestALostStepThatIsCancelledDoesNotBlockItsSlot(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	w.say("container.create", create(1, "web", core.Running))
	w.turn()
	w.host.steps = nil // all lost
	w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(1))})
	w.settle()
	if c := w.container(1); c.Rootfs.State != core.Absent {
		t.Errorf("the slot is stuck: %+v", c.Rootfs)
	}
	w.pass(2 * time.Second) // the network's step was lost too, and is sent again
	w.atRest()
}

func TestUnavailableIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	down := true
	w.host.fail = func(s bus.Step) *bus.Error {
		if s.Verb == "container.start-process" && down {
			return bus.NewError(errclass.Errorf(errdefs.ErrUnavailable, "driver is being started"))
		}
		return nil
	}
	w.say("container.create", create(1, "web", core.Running))
	w.settle()
	before := w.log.Head().Seq
	w.pass(10 * time.Second)
	w.pass(10 * time.Second)
	if w.log.Head().Seq != before {
		t.Error("failures that are tried again were recorded")
	}
	out, err := inquire[query.Steps](w, query.StepList, nil)
	if err != nil || len(out.Steps) != 1 || out.Steps[0].Last != "driver is being started" {
		t.Errorf("the step that is tried again: %+v, %v", out, err)
	}
	down = false
	w.pass(time.Minute)
	if !w.container(1).Running() {
		t.Error("it was not tried again")
	}
	down = true
	w.say("container.create", create(2, "other", core.Running))
	for range 60 {
		w.pass(time.Second)
	}
	if f := w.container(2).Fault; f == nil || f.Class != "unavailable" {
		t.Errorf("a driver that stays away: %+v", f)
	}
}

func TestReleasesAreTriedAgainForEver(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	stuck := true
	w.host.fail = func(s bus.Step) *bus.Error {
		if s.Verb == "container.release-rootfs" && stuck {
			return bus.NewError(errclass.Errorf(errdefs.ErrInternal, "device is busy"))
		}
		return nil
	}
	w.say("container.create", create(1, "web", core.Running))
	w.settle()
	w.exit(1, 1, 0)
	rm := w.say("container.remove", core.RemoveContainer{ID: core.ContainerID(hexOf(1))})
	before := w.log.Head().Seq
	for range 600 {
		w.pass(time.Second)
	}
	rm.ok(t)
	tries := len(w.host.sentOf("container.release-rootfs"))
	if tries < 15 || tries > 40 {
		t.Errorf("%d tries in ten minutes", tries)
	}
	if n := w.log.Head().Seq - before; n > 20 {
		t.Errorf("%d events of a release that fails", n)
	}
	stuck = false
	w.pass(2 * time.Minute)
	if w.container(1) != nil {
		t.Error("the container is still there")
	}
	w.atRest()
}

func TestNobodyTakesTheStep(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	w.say("container.create", create(1, "web", core.Running))
	for range 8 {
		w.turn()
		for _, s := range w.host.steps {
			w.e.Refused(s.ID, s.Try, false, errclass.Errorf(errdefs.ErrUnavailable, "nobody listens"))
		}
		w.host.steps = nil
		w.now = w.now.Add(time.Second)
	}
	if f := w.container(1).Fault; f == nil || f.Class != "unavailable" {
		t.Errorf("without a driver: %+v", f)
	}
}

// TestANetworkThatNobodyMakes leaves nothing to be given back, unless a host may have
// begun to make it: the driver of a network is named by its user.
func TestANetworkThatNobodyMakes(t *testing.T) {
	for name, again := range map[string]bool{"at all": false, "any more": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.open()
			id := core.NetworkID(hexOf(7))
			o := w.say("network.create", core.NewNetwork{ID: id, Name: "web", Driver: "bogus"})
			o.done = true // it is refused after a while
			for i := range 10 {
				w.turn()
				if i == 1 && again {
					w.open()
				}
				for _, s := range w.host.steps {
					w.e.Refused(s.ID, s.Try, false, errclass.Errorf(errdefs.ErrUnavailable, "nobody listens"))
				}
				w.host.steps = nil
				w.now = w.now.Add(time.Second)
			}
			if n := w.e.durable.Networks[id]; (n != nil) != again {
				t.Errorf("the network: %+v", n)
			}
		})
	}
}

// TestANetworkThatSomebodyBeginsAtLast: its driver is found at the moment when it was
// given up. What it makes is to be given back.
func TestANetworkThatSomebodyBeginsAtLast(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.say("network.create", core.NewNetwork{ID: core.NetworkID(hexOf(7)), Name: "web", Driver: "bogus"}).done = true
	w.turn()
	create := w.host.steps[0]
	w.now = w.now.Add(nobodyFor)
	w.e.Refused(create.ID, create.Try, false, errclass.Errorf(errdefs.ErrUnavailable, "nobody listens"))
	w.e.Heard(create.ID)
	w.settle()
	if n := len(w.host.sentOf("network.remove")); n != 1 || w.e.durable.Networks[core.NetworkID(hexOf(7))] != nil {
		t.Errorf("%d removals; networks: %+v", n, w.e.durable.Networks)
	}
}

func TestWaitTakesNoLongerThanItsLength(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	w.say("container.create", create(1, "web", core.Running))
	w.settle()
	w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(1))})
	w.settle()
	if n := len(w.host.sentOf("container.signal-process")); n != 1 {
		t.Fatalf("%d signals", n)
	}
	w.pass(9 * time.Second)
	w.now = w.now.Add(-time.Hour) // the wall clock goes back; the engine starts anew
	w.open()
	w.settle()
	w.pass(10*time.Second - time.Millisecond)
	if n := len(w.host.sentOf("container.signal-process")); n != 1 {
		t.Fatalf("%d signals before the grace has ended", n)
	}
	w.pass(2 * time.Millisecond)
	sent := w.host.sentOf("container.signal-process")
	if len(sent) != 2 {
		t.Fatalf("%d signals after the grace", len(sent))
	}
	w.exit(1, 1, 137)
	w.settle()
	w.atRest()
}

func TestFences(t *testing.T) {
	w := held(t, "container.start-process")
	s := w.only()
	old := s
	old.Epoch--
	if o := w.host.finish(old); settled(w, o) == nil || !errdefs.IsFailedPrecondition(o.err) {
		t.Errorf("a result of an older epoch got %v", o.err)
	}
	w.host.instances["exec/native"] = "stranger"
	if o := w.host.finish(s); settled(w, o) == nil || !errdefs.IsFailedPrecondition(o.err) {
		t.Errorf("a result of a strange instance got %v", o.err)
	}
	inventory := w.host.report("exec", "native", "driver.report-inventory",
		core.ReportInventory{Kind: "exec", Driver: "native", Instance: "stranger"})
	if settled(w, inventory) == nil {
		t.Error("the inventory of a strange instance was taken")
	}
	w.host.instances["exec/native"] = "instance-1"
	if o := w.host.finish(s); settled(w, o) != nil || o.receipt.Stale {
		t.Errorf("the right one got %+v, %v", o.receipt, o.err)
	}
	if !w.container(1).Running() {
		t.Error("the container does not run")
	}
}

func settled(w *world, o *outcome) error {
	w.settle()
	if !o.done {
		w.t.Fatal("no answer")
	}
	return o.err
}

func TestWhatIsOwedStaysOwedWhenTheEngineEnds(t *testing.T) {
	w := held(t, "container.start-process")
	s := w.only()
	w.e.Refuse()
	w.settle()
	if w.e.Idle() {
		t.Error("it is idle with a step in flight")
	}
	w.e.Halt()
	before := w.log.Head().Seq
	delete(w.host.running, s.ID)
	o := w.host.tell(s, core.Result{}, bus.NewError(errclass.Errorf(errdefs.ErrAborted, "the driver was ended")))
	w.settle()
	w.pass(time.Minute)
	if !o.done || w.log.Head().Seq != before || len(w.host.steps) != 0 {
		t.Errorf("answered %v, %d events, %d steps sent", o.done, w.log.Head().Seq-before, len(w.host.steps))
	}
	w.host.hold = func(bus.Step) bool { return false }
	w.open()
	w.settle()
	if !w.container(1).Running() {
		t.Error("the next engine did not go on")
	}
	w.atRest()
}
