package engine

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/query"
)

// stuckLog is a log whose fsync hangs, or that is full, while it is told so.
type stuckLog struct {
	eventlog.Log
	hang  chan struct{} // not nil: Append waits for it
	begun chan struct{} // Append has begun to wait
	full  bool          // no room but for what is essential
	fatal bool          // fsync fails
}

func (l *stuckLog) Append(frames []eventlog.Frame) ([]eventlog.Record, error) {
	if l.hang != nil {
		l.begun <- struct{}{}
		<-l.hang
	}
	if l.fatal {
		return nil, &eventlog.FatalError{Act: "fdatasync", Err: context.DeadlineExceeded}
	}
	for _, f := range frames {
		if l.full && !f.Essential {
			return nil, errdefs.ErrResourceExhausted
		}
	}
	return l.Log.Append(frames)
}

// ps lists all containers and says how long that took.
func ps(t *testing.T, e *Engine) (query.Containers, time.Duration) {
	t.Helper()
	begun := time.Now()
	data, err := e.Query(t.Context(), bus.Query{Name: query.ContainerList, Body: json.RawMessage(`{"all":true}`)})
	took := time.Since(begun)
	if err != nil {
		t.Fatal(err)
	}
	var out query.Containers
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out, took
}

// psFast lists several times and fails unless the best one takes less than 5 ms:
// the machine is shared, and what waits for a lock is always slow.
func psFast(t *testing.T, e *Engine) query.Containers {
	t.Helper()
	var out query.Containers
	best := time.Hour
	for n := 0; n < 100 && best > 5*time.Millisecond; n++ { // the machine may be busy otherwise
		var took time.Duration
		out, took = ps(t, e)
		best = min(best, took)
	}
	if best > 5*time.Millisecond {
		t.Errorf("ps takes %v", best)
	}
	return out
}

func TestQueriesDoNotWaitForAnFsync(t *testing.T) {
	w := newWorld(t)
	log := &stuckLog{Log: w.log}
	w.log = log
	w.open()
	w.image()
	w.say("container.create", create(1, "web", core.Stopped))
	w.settle()
	log.hang, log.begun = make(chan struct{}), make(chan struct{}, 1)
	o := w.say("container.create", create(2, "hung", core.Stopped))
	turned := make(chan error)
	go func() { turned <- w.e.Turn() }()
	<-log.begun
	out := psFast(t, w.e)
	if len(out.Containers) != 1 || o.done {
		t.Errorf("while the fsync hangs: %d containers, answered %v; want 1 and no answer", len(out.Containers), o.done)
	}
	close(log.hang)
	if err := <-turned; err != nil {
		t.Fatal(err)
	}
	log.hang = nil
	if out := psFast(t, w.e); len(out.Containers) != 2 {
		t.Errorf("after it: %d containers", len(out.Containers))
	}
	o.ok(t)
}

func TestQueriesAndOthersDoNotWaitForHungDrivers(t *testing.T) {
	w := newWorld(t)
	w.limit = Limits{PerDriver: 2}
	w.open()
	w.image()
	w.host.hold = func(s bus.Step) bool { return s.Kind == "graphdriver" }
	for n := range 5 {
		w.say("container.create", create(n+1, "c"+string(rune('a'+n)), core.Running))
	}
	w.settle()
	if out := psFast(t, w.e); len(out.Containers) != 5 {
		t.Fatalf("%d containers", len(out.Containers))
	}
	if n := len(w.host.sentOf("container.prepare-rootfs")); n != 2 {
		t.Errorf("%d steps were sent to a driver that takes 2", n)
	}
	if n := len(w.host.sentOf("container.attach-network")); n != 5 {
		t.Errorf("%d of 5 networks were attached beside a hung driver", n)
	}
	w.host.hold = func(bus.Step) bool { return false }
	for id, s := range w.host.running {
		delete(w.host.running, id)
		w.host.finish(s)
	}
	w.settle()
	for _, c := range w.e.durable.Containers {
		if !c.Running() {
			t.Errorf("%s is %s after the driver went on", c.Name, c.Status())
		}
	}
	w.atRest()
}

func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	log := &stuckLog{Log: w.log}
	w.log = log
	w.open()
	w.image()
	w.say("container.create", create(1, "web", core.Running))
	w.settle()
	log.full = true
	secret := core.Env{Name: "A", Value: "b"}
	a := w.say("container.create", create(2, "other", core.Stopped, secret))
	b := w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(1))})
	c := w.say("container.create", create(3, "third", core.Stopped))
	w.settle()
	b.ok(t)
	if !errdefs.IsResourceExhausted(a.err) || !errdefs.IsResourceExhausted(c.err) {
		t.Errorf("on a full disk: %v, %v", a.err, c.err)
	}
	if _, err := w.keys.Load(core.ContainerID(hexOf(2))); !errdefs.IsNotFound(err) {
		t.Errorf("the key of a refused container is still there: %v", err)
	}
	w.exit(1, 1, 143)
	w.settle()
	if k := w.e.durable.Containers[core.ContainerID(hexOf(1))]; k.Running() || k.Process.State != core.Absent {
		t.Errorf("an exit was not recorded on a full disk: %+v", k.Process)
	}
	log.full = false
	d := w.say("container.create", create(2, "other", core.Stopped, secret))
	w.settle()
	d.ok(t)
	w.atRest()
}

func TestFailedFsyncEndsTheEngine(t *testing.T) {
	w := newWorld(t)
	log := &stuckLog{Log: w.log}
	w.log = log
	w.open()
	w.image()
	log.fatal = true
	job := w.job()
	o := w.sayJob(job, "container.create", create(1, "web", core.Running))
	twin := w.sayJob(job, "container.create", create(1, "web", core.Running))
	err := w.e.Turn()
	if err == nil || !eventlog.IsFatal(err) {
		t.Fatalf("a failed fsync gave %v", err)
	}
	if !errdefs.IsUnavailable(o.err) || !errdefs.IsUnavailable(twin.err) || len(w.e.durable.Containers) != 0 {
		t.Errorf("the client got %v, for a repeat %v", o.err, twin.err)
	}
	if len(w.host.sentOf("container.prepare-rootfs")) != 0 {
		t.Error("a step went out for what is not durable")
	}
}

func TestBoundsOfTheQueues(t *testing.T) {
	w := newWorld(t)
	w.limit = Limits{Commands: 3}
	w.open()
	var last *outcome
	for range 4 {
		last = w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(1))})
	}
	if !errdefs.IsResourceExhausted(last.err) {
		t.Errorf("the command beyond the bound got %v", last.err)
	}
	w.host.introduce("exec", "native")
	exit := w.exit(1, 1, 0)
	if exit.done {
		t.Errorf("a report was refused because of clients: %v", exit.err)
	}
	w.settle()
	exit.ok(t)
	w.e.Refuse()
	if o := w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(1))}); !errdefs.IsUnavailable(o.err) {
		t.Errorf("a command after the end got %v", o.err)
	}
}

func TestABatchIsNoLongerThanAWrite(t *testing.T) {
	q := newQueue(100, 100)
	for _, size := range []int{maxBatchBytes - 10, 5, 20, 30} {
		if err := q.putCommand(request{size: size}); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.putReport(request{size: 2 * maxBatchBytes}); err != nil {
		t.Fatal(err)
	}
	var batches []int
	for q.length() > 0 {
		batches = append(batches, len(q.take(10, time.Now())))
	}
	if len(batches) != 3 || batches[0] != 1 || batches[1] != 2 || batches[2] != 2 {
		t.Errorf("taken in batches of %v", batches)
	}
}

func TestNeitherQueueStarvesTheOther(t *testing.T) {
	q := newQueue(1000, 1000)
	for range 500 {
		if q.putCommand(request{job: "c"}) != nil || q.putReport(request{}) != nil {
			t.Fatal("refused")
		}
	}
	commands := 0
	for _, r := range q.take(100, time.Now()) {
		if r.job != "" {
			commands++
		}
	}
	if commands != 25 {
		t.Errorf("%d of 100 are commands", commands)
	}
}
