package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
)

// TestARestartOfTheMachineFitsIntoOneFrame: all that ends with the machine is one
// decision. The log takes it also for more containers than a machine has.
func TestARestartOfTheMachineFitsIntoOneFrame(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	c := create(1, "a-name-of-usual-length", core.Running)
	c.Spec.Restart.Policy = "always"
	w.say("container.create", c)
	w.settle()
	s := w.e.durable.Clone()
	const many = 12_000
	for n := 2; n <= many; n++ {
		k := *s.Containers[c.ID]
		k.ID = core.ContainerID(hexOf(n))
		s.Containers[k.ID] = &k
	}
	now := time.Now()
	events, err := core.Decide(s, core.Request{
		Command: &core.StartEngine{Name: "test", BootID: "boot-2"}, Actor: core.Actor{Engine: true}, Time: now,
	})
	if err != nil || len(events) < 3*many {
		t.Fatalf("%d events, %v", len(events), err)
	}
	f, err := frameOf(events, now, true)
	if err != nil {
		t.Fatal(err)
	}
	log := eventlog.NewMem()
	f.First = 1
	if _, err := log.Append([]eventlog.Frame{f}); err != nil {
		t.Fatal(err)
	}
}

// TestAnEventThatTheBusCouldNotCarryIsRefused: the stream has each event as one
// message.
func TestAnEventThatTheBusCouldNotCarryIsRefused(t *testing.T) {
	for _, n := range []int{bus.MaxEvent - 1000, bus.MaxEvent} {
		e := &core.ContainerRenamed{Header: core.Header{Seq: 1}, New: strings.Repeat("x", n)}
		_, err := frameOf([]core.Event{e}, time.Now(), false)
		if fits := n < bus.MaxEvent; (err == nil) != fits || !fits && !errdefs.IsInvalidArgument(err) {
			t.Errorf("an event of about %d bytes: %v", n, err)
		}
	}
}

// TestAResultThatCannotBeRecordedIsAFailure: the step would be asked for for ever.
func TestAResultThatCannotBeRecordedIsAFailure(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.host.hold = func(s bus.Step) bool { return s.Verb == "image.load-archive" }
	o := w.say("image.load", core.LoadImage{Archive: "/huge.tar"})
	w.settle()
	s := w.only()
	delete(w.host.running, s.ID)
	r := resultOf(s)
	r.Images[0].Config.Labels = map[string]string{"huge": strings.Repeat("<", bus.MaxEvent)}
	told := w.host.tell(s, r, nil)
	w.settle()
	told.ok(t)
	j := w.e.durable.Jobs[core.JobID(o.ok(t).Job)]
	if j.State != core.JobFailed || !strings.Contains(j.Fault.Message, "can be told") {
		t.Errorf("the load is %s: %+v", j.State, j.Fault)
	}
	w.atRest()
}
