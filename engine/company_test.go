package engine

import (
	"testing"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
)

// starting is a world with a container whose root filesystem and network are being
// made.
func starting(t *testing.T) (w *world, rootfs, network bus.Step) {
	t.Helper()
	w = held(t, "container.prepare-rootfs")
	rootfs = w.only()
	w.host.hold = func(bus.Step) bool { return true }
	w.say("container.create", create(2, "db", core.Running)).done = true
	w.settle()
	for _, s := range w.host.running {
		if core.StepID(s.ID).Noun().ID != hexOf(2) {
			continue
		}
		if s.Verb == "container.prepare-rootfs" {
			rootfs = s
		} else {
			network = s
		}
	}
	if rootfs.ID == "" || network.Verb != "container.attach-network" {
		t.Fatalf("under way: %+v", w.host.running)
	}
	return w, rootfs, network
}

// batchOf is the batch that has recorded the container's event of that name, or 0.
func (w *world) batchOf(n int, name string) (batch uint64) {
	w.t.Helper()
	err := w.log.Read(1, func(r eventlog.Record) error {
		return r.Lines(func(_ uint64, line []byte) error {
			e, err := core.DecodeEvent(line)
			if err == nil && e.Head().ID == hexOf(n) && e.Head().Name == name {
				batch = r.Batch
			}
			return err
		})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return batch
}

func TestResultsThatMeetAreRecordedTogether(t *testing.T) {
	w, rootfs, network := starting(t)
	first := w.host.finish(rootfs)
	w.turn()
	if first.done || w.batchOf(2, "container.rootfs-prepared") != 0 {
		t.Fatal("a result that leads to nothing did not wait for its company")
	}
	if at := w.e.Wake(); !at.Equal(w.now.Add(companyFor)) {
		t.Fatalf("the next turn is due after %v", at.Sub(w.now))
	}
	second := w.host.finish(network)
	w.turn()
	first.ok(t)
	second.ok(t)
	if a, b := w.batchOf(2, "container.rootfs-prepared"), w.batchOf(2, "container.network-attached"); a != b || a == 0 {
		t.Errorf("recorded in batches %d and %d", a, b)
	}
	if n := len(w.host.sentOf("container.start-process")); n != 1 {
		t.Errorf("%d starts", n)
	}
}

func TestAResultDoesNotWaitForLong(t *testing.T) {
	w, rootfs, _ := starting(t)
	first := w.host.finish(rootfs)
	w.now = w.now.Add(companyFor - 1)
	w.turn()
	if first.done {
		t.Fatal("recorded early")
	}
	w.now = w.now.Add(1)
	w.turn()
	first.ok(t)
}

func TestWhatWaitsGoesWithACommand(t *testing.T) {
	w, rootfs, _ := starting(t)
	first := w.host.finish(rootfs)
	w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(2))})
	w.turn()
	first.ok(t)
}

func TestAFaultDoesNotWait(t *testing.T) {
	w, rootfs, _ := starting(t)
	first := w.host.tell(rootfs, core.Result{}, &bus.Error{Class: "internal", Message: "broken"})
	w.turn()
	first.ok(t)
	if f := w.container(2).Fault; f == nil {
		t.Error("the fault is not recorded")
	}
}

func TestTheLastOneDoesNotWait(t *testing.T) {
	w := held(t, "container.start-process")
	start := w.only()
	delete(w.host.running, start.ID)
	first := w.host.finish(start)
	w.turn()
	first.ok(t)
	if at := w.e.Wake(); at.Before(w.now.Add(time.Millisecond)) {
		t.Errorf("another turn is due after %v", at.Sub(w.now))
	}
}
