package core

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
)

// world is what drivers and kernel would hold: a set of things by key, changed
// by steps alone. It checks what no driver would forgive.
type world struct {
	t    testing.TB
	held map[string]bool
	// stubborn containers outlive SIGTERM.
	stubborn map[ContainerID]bool
	images   []LoadedImage // what the next archive holds
}

func newWorld(t testing.TB) *world {
	return &world{t: t, held: map[string]bool{}, stubborn: map[ContainerID]bool{}}
}

// heldBy is what the state says is, or may be, held.
func heldBy(s *State) map[string]bool {
	held := map[string]bool{}
	for id, c := range s.Containers {
		if c.Rootfs.State != Absent {
			held["rootfs "+string(id)] = true
		}
		for _, n := range c.Nets {
			if n.State != Absent {
				held[fmt.Sprintf("endpoint %s %s %d", n.Network, id, n.Run)] = true
			}
		}
		if c.Process.State != Absent {
			held[fmt.Sprintf("process %s %d", id, c.Process.Run)] = true
		}
		if c.Log.State != Absent {
			held["log "+string(id)] = true
		}
	}
	for id, l := range s.Layers {
		if l.Slot.State != Absent {
			held["layer "+string(id)] = true
		}
	}
	for id, i := range s.Images {
		if i.Store.State != Absent {
			held["image "+string(id)] = true
		}
	}
	for id, n := range s.Networks {
		if n.Slot.State != Absent {
			held["network "+string(id)] = true
		}
	}
	return held
}

// acquires and releases say what a step does to the world.
func acquires(st Step) []string {
	switch st := st.(type) {
	case PrepareRootfs:
		return []string{"rootfs " + string(st.Container)}
	case AttachNetwork:
		return []string{fmt.Sprintf("endpoint %s %s %d", st.Network, st.Container, st.Run)}
	case StartProcess:
		return []string{fmt.Sprintf("process %s %d", st.Container, st.Run), "log " + string(st.Container)}
	case ApplyLayer:
		return []string{"layer " + string(st.Layer)}
	case CreateNetwork:
		return []string{"network " + string(st.Network)}
	}
	return nil
}

func releases(st Step) []string {
	switch st := st.(type) {
	case ReleaseRootfs:
		return []string{"rootfs " + string(st.Container)}
	case DetachNetwork:
		return []string{fmt.Sprintf("endpoint %s %s %d", st.Network, st.Container, st.Run)}
	case ReleaseProcess:
		r := []string{fmt.Sprintf("process %s %d", st.Container, st.Run)}
		if st.RemoveLog {
			r = append(r, "log "+string(st.Container))
		}
		return r
	case RemoveLog:
		return []string{"log " + string(st.Container)}
	case RemoveLayer:
		return []string{"layer " + string(st.Layer)}
	case RemoveNetwork:
		return []string{"network " + string(st.Network)}
	case RemoveImage:
		return []string{"image " + string(st.Image)}
	case GiveBack:
		switch i := st.Item; i.Kind {
		case "endpoint":
			return []string{fmt.Sprintf("endpoint %s %s %d", i.Network, i.Key, i.Run)}
		case "process":
			return []string{fmt.Sprintf("process %s %d", i.Key, i.Run)}
		default:
			return []string{i.Kind + " " + i.Key}
		}
	}
	return nil
}

// do runs a step in the world and says what it brought back.
func (w *world) do(st Step) Result {
	w.check(st)
	for _, k := range acquires(st) {
		w.held[k] = true
	}
	for _, k := range releases(st) {
		delete(w.held, k)
	}
	switch st.(type) {
	case PrepareRootfs:
		return Result{Mounts: []Mount{{Type: "overlay", Source: "overlay", Target: "/"}}}
	case AttachNetwork:
		return Result{Endpoint: &Endpoint{Namespace: Namespace{Mode: "path", Path: "/proc/1/fd/3", Inode: 7}, Interface: "eth0"}}
	case StartProcess:
		return Result{Started: &Started{PID: 100, Log: "/log"}}
	case LoadArchive:
		for _, i := range w.images {
			w.held["image "+string(i.ID)] = true
		}
		return Result{Images: w.images}
	}
	return Result{}
}

// check stops the test when a step is asked for that its neighbours forbid.
func (w *world) check(st Step) {
	need := func(k string) {
		if !w.held[k] {
			w.t.Fatalf("step %s is asked for without %s", st.ID(), k)
		}
	}
	switch st := st.(type) {
	case StartProcess:
		need("rootfs " + string(st.Container))
		if len(st.Rootfs) == 0 || st.Endpoint.Namespace.Mode == "" {
			w.t.Fatalf("step %s lacks its root filesystem or network: %+v", st.ID(), st)
		}
	case AttachNetwork:
		need("network " + string(st.Network))
	case ApplyLayer:
		if st.Parent != "" {
			need("layer " + string(st.Parent))
		}
	case ReleaseRootfs:
		for k := range w.held {
			if strings.HasPrefix(k, "process "+string(st.Container)) {
				w.t.Fatalf("step %s takes the root filesystem from under %s", st.ID(), k)
			}
		}
	}
}

// engine is a core with its log, without disk and bus.
type engine struct {
	t     testing.TB
	s     *State
	log   []Event
	clock time.Time
	jobs  int
	*world
	onEvent func(e Event)
}

func newEngine(t testing.TB) *engine {
	e := &engine{t: t, s: NewState(), clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), world: newWorld(t)}
	if _, err := e.send(startEngine("boot-1")); err != nil {
		t.Fatal(err)
	}
	return e
}

func startEngine(boot string) *StartEngine {
	return &StartEngine{
		ID: "11111111-1111-4111-8111-111111111111", Name: "test", Version: "0.1", BootID: boot,
		Drivers: Choice{Graph: "overlay", Exec: "native", Image: "oci"},
		Pool:    netip.MustParsePrefix("10.9.0.0/16"), PoolBits: 24,
		Networks: [3]NetworkID{netID("bridge"), netID("host"), netID("none")},
	}
}

func hexOf(kind byte, name string) string {
	return fmt.Sprintf("%c%063x", kind, []byte(name))[:1] + strings.Repeat("0", 63-2*len(name)) + fmt.Sprintf("%x", name)
}

func ctrID(name string) ContainerID { return ContainerID(hexOf('c', name)) }
func netID(name string) NetworkID {
	return NetworkID(fmt.Sprintf("%x%s", name, strings.Repeat("0", 64-2*len(name))))
}

func (e *engine) jobID() JobID {
	e.jobs++
	return JobID(fmt.Sprintf("01900000-0000-7000-8000-%012x", e.jobs))
}

// job sends a command as a new job.
func (e *engine) job(c Command) (JobID, error) {
	id := e.jobID()
	_, err := e.request(Request{Command: c, Job: id, Digest: fmt.Sprint(e.jobs), Actor: Actor{UID: 1000}, Time: e.clock})
	return id, err
}

// send sends what is no job: results, reports.
func (e *engine) send(c Command) ([]Event, error) {
	return e.request(Request{Command: c, Actor: Actor{Engine: true}, Time: e.clock})
}

func (e *engine) request(r Request) ([]Event, error) {
	e.clock = e.clock.Add(time.Millisecond)
	events, err := Decide(e.s, r)
	if err != nil {
		return nil, err
	}
	for _, ev := range events {
		e.fold(ev)
	}
	return events, nil
}

// fold goes the way of the real log: encoded, decoded, applied; afterwards the
// touched nouns' steps and the whole Next must agree.
func (e *engine) fold(ev Event) {
	before := owedByID(e.s)
	line, err := EncodeEvent(ev)
	if err != nil {
		e.t.Fatal(err)
	}
	decoded, err := DecodeEvent(line)
	if err != nil {
		e.t.Fatal(err)
	}
	e.log = append(e.log, decoded)
	touched := e.s.Apply(decoded)
	for _, n := range touched {
		for id, st := range before {
			if st.ID().Noun() == n {
				delete(before, id)
			}
		}
	}
	for _, n := range touched {
		for _, st := range Next(e.s, n) {
			before[st.ID()] = st
		}
	}
	compareOwed(e.t, ev, before, owedByID(e.s))
	if e.onEvent != nil {
		e.onEvent(decoded)
	}
}

func owedByID(s *State) map[StepID]Step {
	m := map[StepID]Step{}
	for _, st := range s.Owed() {
		m[st.ID()] = st
	}
	return m
}

func compareOwed(t testing.TB, ev Event, inc, all map[StepID]Step) {
	t.Helper()
	for id := range all {
		if inc[id] == nil {
			t.Fatalf("after %d %s: step %s is owed, but the touched nouns do not tell", ev.Head().Seq, ev.Head().Name, id)
		}
	}
	for id := range inc {
		if all[id] == nil {
			t.Fatalf("after %d %s: step %s is no longer owed, but the touched nouns do not tell", ev.Head().Seq, ev.Head().Name, id)
		}
	}
}

// finish runs one owed step and reports its result.
func (e *engine) finish(st Step) {
	result := e.do(st)
	e.deliver(&FinishStep{Step: st.ID(), Result: result})
	e.after(st)
}

// after is what the process itself does when a signal has reached it.
func (e *engine) after(st Step) {
	sig, ok := st.(SignalProcess)
	if !ok || sig.Signal != sigkill && e.stubborn[sig.Container] {
		return
	}
	e.deliver(&ReportExit{Container: sig.Container, Run: sig.Run, Code: 128 + sig.Signal, Signal: sig.Signal, Time: e.clock})
}

// deliver sends a report twice: the second time it must be stale.
func (e *engine) deliver(c Command) {
	e.t.Helper()
	if _, err := e.send(c); err != nil {
		e.t.Fatalf("report %s refused: %v", c.name(), err)
	}
	again, err := e.send(c)
	if err != nil || len(again) > 0 {
		e.t.Fatalf("report %s delivered twice: %v %v", c.name(), again, err)
	}
}

// settle runs owed steps until nothing is owed.
func (e *engine) settle() {
	e.t.Helper()
	for range 10_000 {
		owed := e.s.Owed()
		if len(owed) == 0 {
			return
		}
		e.finish(owed[0])
	}
	e.t.Fatalf("the world does not come to rest; owed: %v", e.s.Owed()[0].ID())
}

// atRest checks what must hold whenever nothing is owed.
func (e *engine) atRest() {
	e.t.Helper()
	for id, j := range e.s.Jobs {
		if j.Open() {
			e.t.Fatalf("job %s (%s) is open although nothing is owed:\n%s", id, j.Command, e.story(j.Noun))
		}
	}
	want, have := heldBy(e.s), keys(e.held)
	for k := range want { // a start that was tried may have made its log, or not
		if strings.HasPrefix(k, "log ") && !e.held[k] {
			delete(want, k)
		}
	}
	e.compareHeld(keys(want), have)
}

func (e *engine) compareHeld(want, have []string) {
	e.t.Helper()
	if fmt.Sprint(want) != fmt.Sprint(have) {
		for id := range e.s.Containers {
			e.t.Log(e.story(id.noun()))
		}
		e.t.Fatalf("held by the log alone: %q; by the world alone: %q", lacking(want, have), lacking(have, want))
	}
}

// lacking is what a has and b has not.
func lacking(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(k string) bool { return slices.Contains(b, k) })
}

// story is what the log says of a noun.
func (e *engine) story(n Noun) string {
	var b strings.Builder
	for _, ev := range e.log {
		if ev.Head().Of() == n {
			line, _ := EncodeEvent(ev)
			fmt.Fprintf(&b, "%s\n", line)
		}
	}
	return b.String()
}

func keys(m map[string]bool) []string {
	var k []string
	for s := range m {
		k = append(k, s)
	}
	sort.Strings(k)
	return k
}

// removeAll asks for everything to be removed and checks that nothing is left.
func (e *engine) removeAll() {
	e.t.Helper()
	for id := range e.s.Containers {
		if _, err := e.job(&RemoveContainer{ID: id, Force: true}); err != nil {
			e.t.Fatalf("remove %s: %v", id, err)
		}
	}
	e.settle()
	for id := range e.s.Containers {
		e.t.Fatalf("container %s is still there, and owes nothing:\n%s", id, e.story(id.noun()))
	}
	for id, i := range e.s.Images {
		if i.Want == Removed {
			continue
		}
		if _, err := e.job(&DropImage{Image: string(id), Force: true}); err != nil {
			e.t.Fatalf("remove %s: %v", id, err)
		}
	}
	for id, n := range e.s.Networks {
		if !n.Builtin {
			if _, err := e.job(&DropNetwork{ID: id}); err != nil {
				e.t.Fatalf("remove %s: %v", id, err)
			}
		}
	}
	e.settle()
	e.atRest()
	for k := range e.held {
		if !strings.HasPrefix(k, "network ") {
			e.t.Fatalf("%s is left after everything was removed", k)
		}
	}
}

// loaded is a small image with two layers, the lower shared by all.
func loaded(name string) LoadedImage {
	sum := func(s string) string { return fmt.Sprintf("sha256:%064x", []byte(s)) }
	return LoadedImage{
		ID: ImageID(sum("cfg" + name)), Manifest: sum("man" + name), Names: []string{"docker.io/library/" + name + ":latest"},
		Layers: []ImageLayer{
			{ID: LayerID(sum("base")), DiffID: sum("d0"), Digest: sum("b0"), MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Size: 5, Path: "/blobs/base"},
			{ID: LayerID(sum("top" + name)), DiffID: sum("d1" + name), Digest: sum("b1" + name), MediaType: "application/vnd.oci.image.layer.v1.tar", Size: 7, Path: "/blobs/" + name},
		},
		Size: 12, OS: "linux", Architecture: "amd64",
		Config: ImageConfig{Cmd: []string{"sh"}, Env: []Env{{Name: "PATH", Value: "/bin"}}},
	}
}
