package core

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
)

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
	e.knowExits()
	if _, err := e.send(startEngine("boot-1")); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *engine) knowExits() {
	e.exited = func(id ContainerID) bool {
		c := e.s.Containers[id]
		return c != nil && c.Process.State == Held && c.Process.Exited
	}
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

func execID(name string) ExecID {
	return ExecID(fmt.Sprintf("%x%s", name, strings.Repeat("0", 64-2*len(name))))
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
	for id, c := range e.s.Containers {
		if c.Want == Removed && c.empty() {
			e.t.Fatalf("%s leaves container %s, of which nothing is left", r.Command.name(), id)
		}
	}
	return events, nil
}

// fold goes the way of the real log: encoded, decoded, applied; afterwards the
// touched nouns' steps and the whole Next must agree.
func (e *engine) fold(ev Event) {
	before := owedByID(e.s)
	if f, ok := ev.(*ReleaseFailed); ok && f.Fault.Step.slotName() == freezerSlot {
		e.stuck[ContainerID(f.ID)] = true
	}
	line, err := EncodeEvent(ev)
	if err != nil {
		e.t.Fatal(err)
	}
	decoded, err := DecodeEvent(line)
	if err != nil {
		e.t.Fatal(err)
	}
	e.log = append(e.log, decoded)
	e.nearEnough(decoded)
	touched := e.s.Apply(decoded)
	e.oneOwnerOfIDs(decoded)
	e.addressesInUse(decoded)
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

// nearEnough stops the test when near says that a release cannot be the last one, and
// settle knows better.
func (e *engine) nearEnough(ev Event) {
	switch ev.(type) {
	case *ExecReleased, *ProcessReleased, *NetworkDetached, *RootfsReleased, *LogRemoved, *UserNSReleased, *HealthUnwatched, *RootfsPrepared:
	default:
		return
	}
	c := e.s.Containers[ContainerID(ev.Head().ID)]
	if c.Want == Removed {
		return // see request
	}
	after := c.clone()
	after.fold(0, ev.(interface{ on(*Container) }).on)
	if more := after.settle(); len(more) > 0 && !c.near() {
		e.t.Fatalf("%s is followed by %s, which near does not foresee: %+v", ev.Head().Name, more[0].name(), c)
	}
}

// oneOwnerOfIDs stops the test when two containers have the same ids, or one has
// ids that are not its own.
func (e *engine) oneOwnerOfIDs(ev Event) {
	owner := map[uint32]ContainerID{}
	for id, c := range e.s.Containers {
		if c.IDMap == nil {
			continue
		}
		host := c.IDMap.UIDs[0].Host
		if by, taken := owner[host]; taken || host < e.s.Engine.IDs.orDefault().First || host%IDRange != 0 || !c.private() {
			e.t.Fatalf("after %d %s: ids %d of %s and %s", ev.Head().Seq, ev.Head().Name, host, id, by)
		}
		owner[host] = id
	}
}

// addressesInUse stops the test when an address is taken by nobody who needs it, or
// when the index of the taken ones is another than a start of the engine would make.
func (e *engine) addressesInUse(ev Event) {
	taken := map[NetworkID]map[netip.Addr]ContainerID{}
	for id, c := range e.s.Containers {
		for _, slot := range c.Nets {
			if !slot.Address.IP.IsValid() {
				continue
			}
			if slot.State == Absent && c.Want != Running {
				e.t.Fatalf("after %d %s: %s keeps address %v although it holds no endpoint", ev.Head().Seq, ev.Head().Name, id, slot.Address.IP)
			}
			if taken[slot.Network] == nil {
				taken[slot.Network] = map[netip.Addr]ContainerID{}
			}
			taken[slot.Network][slot.Address.IP.Addr()] = id
		}
	}
	for id, n := range e.s.Networks {
		if !maps.Equal(n.used, taken[id]) {
			e.t.Fatalf("after %d %s: network %s has %v in use, the containers have %v", ev.Head().Seq, ev.Head().Name, n.Name, n.used, taken[id])
		}
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
	if why := e.refusal(st); why != "" {
		e.deliver(&FinishStep{Step: st.ID(), Fault: &Fault{Class: "failed-precondition", Message: why}})
		return
	}
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
	e.deliver(&ReportExit{Container: sig.Container, Run: sig.Run, Exec: sig.Exec, Code: 128 + sig.Signal, Signal: sig.Signal, Time: e.clock})
}

// execsEnd: execs do not outlive their container's run, and the driver tells that.
// It reports whether there was one.
func (e *engine) execsEnd() bool {
	e.t.Helper()
	for id, c := range e.s.Containers {
		for _, x := range c.Execs {
			if x.State == Held && !x.Exited && !(c.Running() && c.Process.Run == x.Run) {
				e.deliver(&ReportExit{Container: id, Run: x.Run, Exec: x.ID, Code: 137, Signal: 9, Time: e.clock})
				return true
			}
		}
	}
	return false
}

// restless leaves out the waits of those who are tried again for ever.
func restless(owed []Step) []Step {
	return slices.DeleteFunc(owed, func(st Step) bool {
		w, ok := st.(Wait)
		return ok && st.ID().slotName() == backoffSlot && w.Length == backoffMost
	})
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
		owed := restless(e.s.Owed())
		if len(owed) == 0 {
			if e.execsEnd() {
				continue
			}
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
