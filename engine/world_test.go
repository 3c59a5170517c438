package engine

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// world is a log, keys and a fake host that outlive the engine, and a clock that
// stands still unless it is moved.
type world struct {
	t     *testing.T
	log   eventlog.Log
	keys  Keys
	host  *fakeHost
	asks  *fakeAsker
	e     *Engine
	now   time.Time
	jobs  int
	pool  netip.Prefix
	bits  int
	boot  string
	limit Limits
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, log: eventlog.NewMem(), keys: MemKeys(), now: time.Now(),
		pool: netip.MustParsePrefix("10.9.0.0/16"), bits: 24, boot: "boot-1",
	}
	w.asks = &fakeAsker{answers: make(map[string]func(bus.Ask) (any, error))}
	w.host = &fakeHost{w: w, instances: make(map[string]string), hold: func(bus.Step) bool { return false }}
	return w
}

// open starts an engine over what there is, as after a crash.
func (w *world) open() *Engine {
	w.t.Helper()
	e, err := Open(w.options())
	if err != nil {
		w.t.Fatalf("open the engine: %v", err)
	}
	w.e = e
	w.host.restarted()
	return e
}

// options are those of the world's engines.
func (w *world) options() Options {
	return Options{
		Log: w.log, Hosts: w.host, Asker: w.asks, Keys: w.keys, Version: "test", BootID: w.boot,
		Begin:  Begin{Name: "test", Drivers: core.Choice{Graph: "overlay", Exec: "native", Image: "oci"}, Pool: w.pool, PoolBits: w.bits},
		Now:    func() time.Time { return w.now },
		Limits: w.limit,
	}
}

// outcome is what came back for a request.
type outcome struct {
	receipt bus.Receipt
	err     error
	done    bool
}

func (o *outcome) reply(r bus.Receipt, err error) { o.receipt, o.err, o.done = r, err, true }

func (w *world) job() string {
	w.jobs++
	return fmt.Sprintf("018f0000-0000-7000-8000-%012x", w.jobs)
}

// say queues a command under a new job.
func (w *world) say(name string, c any) *outcome { return w.sayJob(w.job(), name, c) }

func (w *world) sayJob(job, name string, c any) *outcome {
	w.t.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		w.t.Fatal(err)
	}
	o := &outcome{}
	w.e.Command(bus.Actor{UID: 7}, bus.Command{Job: job, Name: name, Body: body}, o.reply)
	return o
}

func (w *world) turn() {
	w.t.Helper()
	if err := w.e.Turn(); err != nil {
		w.t.Fatalf("turn: %v", err)
	}
}

// settle takes turns and lets the host answer until nothing moves.
func (w *world) settle() {
	w.t.Helper()
	quiet := 0
	for range 1000 {
		w.turn()
		if w.e.Queued() > 0 {
			w.now = w.now.Add(time.Millisecond) // results may wait for one another
		}
		if quiet++; w.host.work() || w.e.Queued() > 0 {
			quiet = 0
		}
		if quiet == 2 {
			return
		}
	}
	w.t.Fatal("it does not settle")
}

// pass lets time go by.
func (w *world) pass(d time.Duration) { w.now = w.now.Add(d); w.settle() }

func (o *outcome) ok(t *testing.T) bus.Receipt {
	t.Helper()
	if !o.done || o.err != nil {
		t.Fatalf("answered %v, error %v; want a receipt", o.done, o.err)
	}
	return o.receipt
}

func hexOf(n int) string { return fmt.Sprintf("%064x", n) }

// image loads an image of one layer.
func (w *world) image() {
	w.t.Helper()
	o := w.say("image.load", core.LoadImage{Archive: "/busybox.tar"})
	w.settle()
	o.ok(w.t)
}

func create(n int, name string, want core.Want, env ...core.Env) *core.CreateContainer {
	return &core.CreateContainer{
		ID: core.ContainerID(hexOf(n)), Name: name, Image: "docker.io/library/busybox:latest", Want: want,
		Spec: core.Spec{Process: core.Process{Cmd: []string{"true"}, Env: env}},
	}
}

// fakeHost runs steps in memory, when it is asked to work.
type fakeHost struct {
	w         *world
	mu        sync.Mutex
	steps     []bus.Step
	cancelled []bus.Cancel
	running   map[string]bus.Step // those that hold keeps back
	sent      []bus.Step          // all that were ever sent
	instances map[string]string
	hold      func(bus.Step) bool       // keeps a step running
	fail      func(bus.Step) *bus.Error // makes a step fail
}

func (h *fakeHost) Send(s bus.Step) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.steps, h.sent = append(h.steps, s), append(h.sent, s)
	return nil
}

func (h *fakeHost) Cancel(c bus.Cancel) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cancelled = append(h.cancelled, c)
	return nil
}

// restarted: the host's process is the engine's.
func (h *fakeHost) restarted() {
	h.steps, h.cancelled, h.running = nil, nil, make(map[string]bus.Step)
	h.instances = make(map[string]string)
}

// work takes what was sent, and answers it. It reports whether there was any.
func (h *fakeHost) work() bool {
	h.mu.Lock()
	steps, cancelled := h.steps, h.cancelled
	h.steps, h.cancelled = nil, nil
	h.mu.Unlock()
	for _, s := range steps {
		h.introduce(s.Kind, s.Driver)
		h.w.e.Heard(s.ID)
		if h.hold(s) {
			h.running[s.ID] = s
			continue
		}
		h.finish(s)
	}
	for _, c := range cancelled {
		s, ok := h.running[c.ID]
		if !ok {
			h.w.e.Refused(c.ID, 0, true, errdefs.ErrNotFound)
			continue
		}
		delete(h.running, c.ID)
		h.tell(s, core.Result{}, bus.NewError(errclass.Errorf(errdefs.ErrAborted, "cancelled")))
	}
	return len(steps)+len(cancelled) > 0
}

func (h *fakeHost) introduce(kind, name string) {
	id := kind + "/" + name
	if h.instances[id] != "" {
		return
	}
	h.instances[id] = "instance-1"
	h.report(kind, name, "driver.report", core.ReportDriver{Driver: id, Instance: "instance-1", PID: 1})
}

func (h *fakeHost) report(kind, name, what string, c any) *outcome {
	body, err := json.Marshal(c)
	if err != nil {
		h.w.t.Fatal(err)
	}
	o := &outcome{}
	h.w.e.Report(bus.Report{
		Epoch: h.w.e.Epoch(), Kind: kind, Driver: name, Instance: h.instances[kind+"/"+name], Name: what, Body: body,
	}, o.reply)
	return o
}

// finish ends a step well, or as fail says.
func (h *fakeHost) finish(s bus.Step) *outcome {
	if h.fail != nil {
		if e := h.fail(s); e != nil {
			return h.tell(s, core.Result{}, e)
		}
	}
	return h.tell(s, resultOf(s), nil)
}

func (h *fakeHost) tell(s bus.Step, r core.Result, e *bus.Error) *outcome {
	f := bus.Finish{
		Epoch: s.Epoch, Kind: s.Kind, Driver: s.Driver, Instance: h.instances[s.Kind+"/"+s.Driver], Step: s.ID, Try: s.Try, Error: e,
	}
	if e == nil {
		data, err := json.Marshal(r)
		if err != nil {
			h.w.t.Fatal(err)
		}
		f.Result = data
	}
	o := &outcome{}
	h.w.e.Finish(f, o.reply)
	return o
}

func resultOf(s bus.Step) core.Result {
	digest := "sha256:" + strings.Repeat("a", 64)
	switch s.Verb {
	case "container.prepare-rootfs":
		return core.Result{Mounts: []core.Mount{{Type: "overlay", Source: "overlay"}}}
	case "container.attach-network":
		return core.Result{Endpoint: &core.Endpoint{Namespace: core.Namespace{Mode: "path", Path: "/x"}}}
	case "container.start-process":
		return core.Result{Started: &core.Started{PID: 42}}
	case "layer.apply":
		return core.Result{Size: 1}
	case "image.load-archive":
		return core.Result{Images: []core.LoadedImage{{
			ID: core.ImageID(digest), Manifest: digest, Names: []string{"docker.io/library/busybox:latest"},
			Layers: []core.ImageLayer{{ID: core.LayerID(digest), DiffID: digest, Digest: digest, Path: "/blob"}},
		}}}
	}
	return core.Result{}
}

// sentOf lists what was sent of a verb.
func (h *fakeHost) sentOf(verb string) []bus.Step {
	var found []bus.Step
	for _, s := range h.sent {
		if s.Verb == verb {
			found = append(found, s)
		}
	}
	return found
}

// exit reports the end of a container's run.
func (w *world) exit(n int, run uint64, code int) *outcome {
	return w.host.report("exec", "native", "container.report-exit",
		core.ReportExit{Container: core.ContainerID(hexOf(n)), Run: run, Code: code})
}

// atRest fails unless both folds and the log agree and nothing is in flight.
func (w *world) atRest() {
	w.t.Helper()
	folded, err := Fold(w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	head, durable, log := w.e.head.Hash(), w.e.durable.Hash(), folded.Hash()
	if head != durable || durable != log {
		w.t.Fatalf("at %d the folds differ: head %.12s, durable %.12s, log %.12s", w.e.head.Seq, head, durable, log)
	}
	if n := w.e.Busy(); n != 0 {
		steps, err := inquire[query.Steps](w, query.StepList, nil)
		w.t.Fatalf("%d steps are in flight at rest: %+v %v", n, steps, err)
	}
}

// inquire answers a query of the world's engine.
func inquire[Out any](w *world, name string, in any) (Out, error) {
	var out Out
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	data, err := w.e.Query(w.t.Context(), bus.Query{Name: name, Body: body})
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(data, &out)
}
