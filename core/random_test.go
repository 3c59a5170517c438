package core

import (
	"flag"
	"fmt"
	"math/rand"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

var (
	seeds = flag.Int("seeds", 300, "how many random histories")
	seed1 = flag.Int64("seed", 0, "run this seed alone")
)

// TestRandomHistories throws commands, results, failures, lost results and
// restarts at the core, in any order, and checks that the world comes to rest
// as the log says, and that everything can be removed afterwards.
func TestRandomHistories(t *testing.T) {
	first, last := int64(1), int64(*seeds)
	if *seed1 != 0 {
		first, last = *seed1, *seed1
	}
	seen := map[string]bool{}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			e := history(t, rand.New(rand.NewSource(seed)))
			for _, ev := range e.log {
				seen["event "+ev.name()] = true
			}
			for name := range e.ran {
				seen["step "+name] = true
			}
		})
		if t.Failed() {
			t.Fatalf("reproduce: go test ./core -run TestRandomHistories -seed %d", seed)
		}
	}
	if last-first < 200 {
		return
	}
	for name := range events {
		if !seen["event "+name] && !slices.Contains(foundElsewhere, name) {
			t.Errorf("in no history occurred event %s", name)
		}
	}
	for name := range steps {
		if !seen["step "+name] && name != (GiveBack{}).name() {
			t.Errorf("in no history ran step %s", name)
		}
	}
}

// foundElsewhere are events of what no history has: things on the machine that the
// log never knew (inventory_test.go, scripts).
var foundElsewhere = []string{
	"driver.stray-quarantined", "driver.stray-found", "driver.stray-given-back", "driver.started", "driver.ended",
	"image.stray", "layer.stray", "image.lost", "layer.lost", "container.rootfs-lost", "network.joined", "job.forgotten",
}

var containerNames = []string{"c1", "c2", "c3", "c4", "c5"}

func history(t testing.TB, r *rand.Rand) *engine {
	e := newEngine(t)
	e.tell(r)
	return e
}

// tell makes up one history.
func (e *engine) tell(r *rand.Rand) {
	generation := 0
	ids := map[string]ContainerID{}
	for range 400 {
		name := containerNames[r.Intn(len(containerNames))]
		id := ids[name]
		switch k := r.Intn(56); {
		case k < 4:
			generation++
			ids[name] = ctrID(fmt.Sprint(name, generation))
			e.try(&CreateContainer{
				ID: ids[name], Name: name, Image: "docker.io/library/" + pick(r, "a", "b") + ":latest",
				Want: pick(r, Running, Running, Stopped), AutoRemove: r.Intn(3) == 0,
				Spec: e.specOf(r, ids),
			})
			e.stubborn[ids[name]] = r.Intn(3) == 0
		case k < 6:
			e.try(&StartContainer{ID: id})
		case k < 8:
			grace := pick(r, 0, time.Second, -1)
			e.try(&StopContainer{ID: id, Timeout: &grace})
			if r.Intn(3) == 0 { // somebody loses patience
				grace = 0
				e.try(&StopContainer{ID: id, Timeout: &grace})
			}
		case k == 8:
			e.try(&KillContainer{ID: id, Signal: pick(r, 1, 9, 15)})
		case k == 9:
			e.try(&RemoveContainer{ID: id, Force: r.Intn(2) == 0})
		case k == 10:
			e.try(&LoadImage{Archive: "/archive"})
			e.images = []LoadedImage{loaded("a"), loaded("b")}[:1+r.Intn(2)]
		case k == 11:
			e.try(&DropImage{Image: "docker.io/library/" + pick(r, "a", "b") + ":latest"})
		case k == 12:
			generation++
			e.try(&NewNetwork{ID: netID(fmt.Sprint("web", generation)), Name: "web"})
		case k == 13:
			if n, err := e.s.FindNetwork("web"); err == nil {
				e.try(&DropNetwork{ID: n.ID})
			}
		case k == 14:
			e.try(&CancelJob{Target: JobID(fmt.Sprintf("01900000-0000-7000-8000-%012x", 1+r.Intn(e.jobs+1)))})
		case k == 15:
			e.exitSomebody(r)
		case k == 16:
			e.restart(r)
		case k == 17:
			e.try(&TagImage{Image: "docker.io/library/a:latest", Name: "docker.io/library/" + pick(r, "b", "x") + ":latest"})
		case k == 18:
			e.try(&RenameContainer{ID: id, Name: pick(r, containerNames...)})
		case k == 19:
			driver := pick(r, "net/bridge", "exec/native")
			e.try(pick[Command](r, &DisableDriver{driver}, &EnableDriver{driver}, &SwapDriver{driver, "/p"}))
		case k == 20:
			e.clock = e.clock.Add(time.Hour)
			e.try(&ForgetJobs{})
		case k < 31:
			e.live(r, e.someRunning(r, id), &generation)
		default:
			e.someStep(r)
		}
	}
	for _, d := range []string{"net/bridge", "exec/native"} {
		e.try(&EnableDriver{d})
	}
	e.settle()
	e.atRest()
	e.removeAll()
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.Intn(len(from))] }

// try sends a command; a refusal is as good an answer as any.
func (e *engine) try(c Command) {
	if _, ok := c.(*ForgetJobs); ok {
		e.deliver(c)
		return
	}
	_, _ = e.job(c)
}

// someStep runs an owed step: well, failing before or behind its effect, or
// with its result lost.
func (e *engine) someStep(r *rand.Rand) {
	owed := e.s.Owed()
	if len(owed) == 0 {
		return
	}
	st := owed[r.Intn(len(owed))]
	fault := &Fault{Class: "internal", Message: "it broke"}
	switch r.Intn(8) {
	case 0: // failed before anything was done
		e.deliver(&FinishStep{Step: st.ID(), Fault: fault})
	case 1: // done, or half done, and failed
		if len(releases(st)) == 0 {
			e.do(st)
		}
		if _, load := st.(LoadArchive); load { // the driver's promise: all or nothing
			for _, i := range e.images {
				if e.s.Images[i.ID] == nil {
					delete(e.held, "image "+string(i.ID))
				}
			}
		}
		e.deliver(&FinishStep{Step: st.ID(), Fault: fault})
	case 2: // the result is lost; the step stays owed
		if _, load := st.(LoadArchive); !load {
			e.do(st)
		}
	default:
		e.finish(st)
	}
}

// exitSomebody ends a process, perhaps before its start was reported.
func (e *engine) exitSomebody(r *rand.Rand) {
	for id, c := range e.s.Containers {
		if c.Running() {
			e.deliver(&ReportExit{Container: id, Run: c.Process.Run, Code: r.Intn(3), Time: e.clock})
			return
		}
	}
	for _, st := range e.s.Owed() {
		if start, ok := st.(StartProcess); ok {
			e.do(st)
			e.deliver(&ReportExit{Container: start.Container, Run: start.Run, Code: 3, Time: e.clock})
			return
		}
	}
}

// forgetWatches: whoever watches healths is gone with the engine.
func (e *engine) forgetWatches() {
	for k := range e.held {
		if strings.HasPrefix(k, "watch ") {
			delete(e.held, k)
		}
	}
}

// someRunning is a container that runs, most of the time, or another one.
func (e *engine) someRunning(r *rand.Rand, other ContainerID) ContainerID {
	var running []ContainerID
	for id, c := range e.s.Containers {
		if c.Running() {
			running = append(running, id)
		}
	}
	if len(running) == 0 || r.Intn(8) == 0 {
		return other
	}
	slices.Sort(running)
	return pick(r, running...)
}

// live is what people do with containers that run, and what drivers tell of them.
func (e *engine) live(r *rand.Rand, id ContainerID, generation *int) {
	c := e.s.Containers[id]
	if c == nil {
		return
	}
	var x Exec
	if len(c.Execs) > 0 {
		x = c.Execs[r.Intn(len(c.Execs))]
	}
	switch r.Intn(12) {
	case 0, 1:
		*generation++
		e.try(&ExecContainer{ID: id, Exec: execID(fmt.Sprint("x", *generation)), Spec: ExecSpec{Args: []string{"true"}}})
	case 2:
		e.deliver(&ReportExit{Container: id, Run: x.Run, Exec: x.ID, Code: r.Intn(3), Time: e.clock})
	case 3:
		e.try(&KillContainer{ID: id, Exec: x.ID, Signal: pick(r, 9, 15)})
	case 4:
		e.try(&PauseContainer{ID: id})
	case 5:
		e.try(&UnpauseContainer{ID: id})
	case 6:
		memory, policy := int64(32<<20), &Restart{Policy: pick(r, "no", "always", "on-failure")}
		e.try(pick(r, &UpdateContainer{ID: id, Change: ResourcesChange{MemoryBytes: &memory}}, &UpdateContainer{ID: id, Restart: policy}))
	case 7:
		grace := pick(r, 0, time.Second)
		e.try(&RestartContainer{ID: id, Timeout: &grace})
	case 8:
		e.try(&PrepareContainer{ID: id})
	case 9, 10:
		e.deliver(&ReportHealth{Container: id, Run: c.Process.Run, Status: pick(r, Healthy, Unhealthy), Probes: []HealthProbe{{Code: 1, Output: "x"}}})
	default:
		report := &ReportOOM{Container: id, Run: c.Process.Run, Count: uint64(1 + r.Intn(3))}
		if c.processVerb() != "start" {
			e.deliver(report)
		} else if _, err := e.send(report); !errdefs.IsUnavailable(err) {
			e.t.Fatalf("%s before the start was told: %v", report.name(), err)
		}
	}
}

// specOf is some specification or other.
func (e *engine) specOf(r *rand.Rand, ids map[string]ContainerID) Spec {
	sp := Spec{Network: NetworkSpec{Network: pick(r, "", "none", "host", "web")}}
	switch other := "container:" + string(ids[pick(r, containerNames...)]); r.Intn(10) {
	case 0:
		sp.Network.Network = other
	case 1:
		sp.Security.PID = other
	case 2:
		sp.Security.IPC = other
	case 3, 4:
		sp.Security.UserNS, sp.Security.IPC = "private", "shareable"
	default:
		sp.Security.IPC = pick(r, "", "shareable")
	}
	if r.Intn(3) == 0 {
		sp.Health = &Health{Test: []string{"CMD", "true"}}
	}
	sp.Restart = Restart{Policy: pick(r, "", "", "no", "always", "unless-stopped", "on-failure"), Unhealthy: r.Intn(4) == 0}
	if sp.Restart.Policy == "on-failure" {
		sp.Restart.Max = r.Intn(3)
	}
	return sp
}

// TestClonesAreApart takes a clone now and then in random histories: what is applied
// to the state does not change the clone, and the other way round; folding the
// same events, the clone becomes the same state.
func TestClonesAreApart(t *testing.T) {
	for seed := range int64(15) {
		r := rand.New(rand.NewSource(1000 + seed))
		apart := rand.New(rand.NewSource(seed))
		var clone, still *State
		var whole string
		e := newEngine(t)
		e.onEvent = func(ev Event) {
			if clone != nil {
				before := e.s.whole()
				clone.Apply(ev)
				if e.s.whole() != before {
					t.Fatalf("seed %d: applying %d %s to a clone changes what it is a clone of", seed, ev.Head().Seq, ev.Head().Name)
				}
				if clone.whole() != before {
					t.Fatalf("seed %d: after %d %s a clone is another state", seed, ev.Head().Seq, ev.Head().Name)
				}
				if still.whole() != whole {
					t.Fatalf("seed %d: applying %d %s changes a clone", seed, ev.Head().Seq, ev.Head().Name)
				}
			}
			if clone == nil || apart.Intn(40) == 0 {
				clone, still, whole = e.s.Clone(), e.s.Clone(), e.s.whole()
			}
		}
		e.tell(r)
	}
}

// whole is the state with its indexes.
func (s *State) whole() string {
	used := map[NetworkID]map[netip.Addr]ContainerID{}
	for id, n := range s.Networks {
		used[id] = n.used
	}
	return s.Hash() + fmt.Sprint(s.names, s.refs, s.nets, s.sharers, s.disabled, used)
}

// restart folds the log anew, sometimes on a machine that was restarted, and
// has every driver tell what it holds.
func (e *engine) restart(r *rand.Rand) {
	fresh := NewState()
	for _, ev := range e.log {
		fresh.Apply(ev)
	}
	if fresh.Hash() != e.s.Hash() {
		e.t.Fatal("the log folds to another state")
	}
	e.s = fresh.Clone()
	if e.s.Hash() != fresh.Hash() {
		e.t.Fatal("a cloned state differs")
	}
	if r.Intn(2) == 0 {
		if _, err := e.send(&StopEngine{}); err != nil {
			e.t.Fatal(err)
		}
	}
	boot := e.s.Engine.BootID
	if r.Intn(3) == 0 {
		boot += "x"
		for k := range e.held {
			switch k[:3] {
			case "end", "pro", "net", "exe", "fro", "use":
				delete(e.held, k)
			}
		}
	}
	e.forgetWatches()
	if _, err := e.send(startEngine(boot)); err != nil {
		e.t.Fatal(err)
	}
	for _, d := range []string{"graphdriver/overlay", "net/bridge", "net/host", "net/null", "exec/native", "image/oci"} {
		if r.Intn(2) == 0 {
			e.inventory(d)
		}
	}
}
