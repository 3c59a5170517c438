package engine

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
)

func TestLife(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	o := w.say("container.create", create(1, "web", core.Running))
	w.settle()
	o.ok(t)
	c := w.e.durable.Containers[core.ContainerID(hexOf(1))]
	if !c.Running() {
		t.Fatalf("the container is %s", c.Status())
	}
	w.exit(1, 1, 3)
	w.settle()
	if c.Exit == nil || c.Exit.Code != 3 || c.Process.State != core.Absent {
		t.Fatalf("after the exit: %+v", c.Process)
	}
	w.say("container.remove", core.RemoveContainer{ID: c.ID})
	w.settle()
	if len(w.e.durable.Containers) != 0 {
		t.Fatal("the container is still there")
	}
	w.atRest()
}

func TestTwoCommandsOfOneBatchSeeEachOther(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	a := w.say("container.create", create(1, "web", core.Stopped))
	b := w.say("container.create", create(2, "web", core.Stopped))
	w.settle()
	a.ok(t)
	if !errdefs.IsAlreadyExists(b.err) {
		t.Fatalf("the second of two with one name: %v", b.err)
	}
	w.atRest()
}

func TestTwoAllocationsFromAPoolOfOne(t *testing.T) {
	w := newWorld(t)
	w.bits = 30 // network, gateway, one address, broadcast
	w.open()
	w.image()
	a := w.say("container.create", create(1, "one", core.Running))
	b := w.say("container.create", create(2, "two", core.Running))
	w.settle()
	a.ok(t)
	if !errdefs.IsResourceExhausted(b.err) {
		t.Fatalf("the second of two on one address: %v", b.err)
	}
	w.atRest()
}

func TestExactlyOnce(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	job, c := w.job(), create(1, "web", core.Stopped, core.Env{Name: "SECRET", Value: "s3cret"})
	first := w.sayJob(job, "container.create", c)
	twin := w.sayJob(job, "container.create", c) // in the same batch
	w.settle()
	later := w.sayJob(job, "container.create", c)
	w.settle()
	head := w.log.Head()
	w.open()
	again := w.sayJob(job, "container.create", c) // after a restart
	w.settle()
	for _, o := range []*outcome{twin, later, again} {
		if r := o.ok(t); r.Seq != first.ok(t).Seq || r.Job != first.receipt.Job {
			t.Errorf("a repeat got %+v, the first %+v", r, first.receipt)
		}
	}
	if now := w.log.Head().Seq; now != head.Seq+1 { // engine.started alone
		t.Errorf("repeats left events: the log is at %d, was at %d", now, head.Seq)
	}
	if _, err := w.keys.Load(c.ID); err != nil {
		t.Errorf("the key is gone after repeats: %v", err)
	}
	other := w.sayJob(job, "container.create", create(2, "web2", core.Stopped))
	w.settle()
	if !errdefs.IsConflict(other.err) {
		t.Errorf("another command under the same job: %v", other.err)
	}
	w.atRest()
}
