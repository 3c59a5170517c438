package driverhost

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/linux"
)

func TestFirstUse(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	time.Sleep(50 * time.Millisecond)
	if r.noted("net/fake", "starts") != 0 {
		t.Error("a driver was started before it was needed")
	}
	f := r.good(r.network("ok"))
	r.good(r.network("ok"))
	r.bus.mu.Lock()
	order := strings.Join(r.bus.order, " ")
	inventory := r.bus.reports[1]
	r.bus.mu.Unlock()
	if !strings.HasPrefix(order, "driver.report driver.report-inventory network/") {
		t.Errorf("told in this order: %s", order)
	}
	if f.Instance == "" || inventory.Instance != f.Instance || inventory.Epoch != 1 || !strings.Contains(string(inventory.Body), `"key":"kept"`) {
		t.Errorf("%+v, %s", inventory, inventory.Body)
	}
	if n := r.noted("net/fake", "starts"); n != 1 {
		t.Errorf("it was started %d times", n)
	}
	r.bad(r.network("refused"), "already-exists", "the subnet is taken")
}

func TestFoundLater(t *testing.T) {
	r := newRig(t)
	if err := os.MkdirAll(r.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	r.begin()
	path := r.program("bin", "gantry-net-fake")
	r.until("the new driver", func() bool { return r.bus.handlers["net/fake"].Step != nil })
	r.good(r.network("ok"))
	if err := os.Remove(path); err != nil { // before its end: it is started again at once
		t.Fatal(err)
	}
	if err := unix.Kill(r.pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.until("its end", func() bool { return len(r.bus.drivers(true)) == 1 })
	r.bad(r.network("ok"), "unavailable", path, "no such file")
}

// A repeated step joins the running one; its result answers the newer try.
// A driver that must watch what it holds is started as soon as its program is there.
func TestNeededAndFoundLater(t *testing.T) {
	r := newRig(t).begin()
	r.host.Need("exec", "fake", "")
	r.program("bin", "gantry-exec-fake")
	r.until("its start", func() bool { return len(r.bus.drivers(false)) == 1 })
}

func TestJoin(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	s, letGo := r.held()
	s.Try = 7
	r.send(s)
	r.until("heartbeats", func() bool { return len(r.bus.beats) >= 2 && r.bus.beats[0].Step == s.ID })
	letGo()
	if f := r.finish(s); f.Try != 7 || f.Error != nil {
		t.Errorf("%+v", f)
	}
	if n := r.noted("net/fake", "did-held"); n != 1 {
		t.Errorf("it ran %d times", n)
	}
}

// Steps of one slot run one after the other, those of others side by side.
func TestSlots(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	a, b := r.network("meets"), r.network("meets")
	r.send(a)
	r.send(b)
	for _, s := range []bus.Step{a, b} {
		if f := r.finish(s); f.Error != nil {
			t.Errorf("of two slots one waited for the other: %+v", f.Error)
		}
	}
	a, b = r.network("slow"), r.network("slow")
	b.ID = strings.Split(a.ID, "@")[0] + "@9999"
	began := time.Now()
	r.send(a)
	r.send(b)
	r.finish(b)
	if took := time.Since(began); took < 600*time.Millisecond {
		t.Errorf("two steps of one slot took %v: they ran side by side", took)
	}
}

func TestEpoch(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	r.o.Epoch = 5
	s := r.network("ok")
	s.Epoch = 5
	if f := r.good(s); f.Epoch != 5 {
		t.Errorf("%+v", f)
	}
	if err := r.bus.handlers["net/fake"].Step(r.network("ok")); err == nil || !strings.Contains(err.Error(), "earlier engine") {
		t.Errorf("a step of epoch 1 after one of epoch 5: %v", err)
	}
}

// A step that is taken back has ended when the driver says so, not before.
func TestCancel(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	s := r.network("patient")
	r.send(s)
	for r.noted("net/fake", "did-patient") == 0 {
		time.Sleep(time.Millisecond)
	}
	r.cancel(s)
	f := r.finish(s)
	if r.noted("net/fake", "patient-ended") != 1 {
		t.Error("the step was said to have ended while the driver ran it")
	}
	r.fails(f, "canceled")
	if r.noted("net/fake", "starts") != 1 {
		t.Error("the driver was ended for it")
	}
	if err := r.bus.handlers["net/fake"].Cancel(bus.Cancel{Epoch: 1, ID: s.ID}); !errdefs.IsNotFound(err) {
		t.Errorf("to cancel what has ended: %v", err)
	}
}

// One that waits for its slot never begins.
func TestCancelBeforeBegin(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	a, letGo := r.held()
	b := r.network("ok")
	b.ID = strings.Split(a.ID, "@")[0] + "@9999"
	r.send(b)
	r.cancel(b)
	letGo()
	r.fails(r.finish(b), "canceled", "before it began")
	if r.noted("net/fake", "did-ok") != 0 {
		t.Error("it ran")
	}
}

func TestDeadline(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	s := r.network("patient")
	s.Deadline = bus.Seconds(100 * time.Millisecond)
	r.bad(s, "aborted", "no end within 100ms")
	if r.noted("net/fake", "patient-ended") != 1 || r.noted("net/fake", "starts") != 1 {
		t.Error("the deadline did not let the driver end the step")
	}
}

// A driver that does not end a step is ended as a whole; its other steps end as
// unavailable, and it is started again.
func TestHung(t *testing.T) {
	r := newRig(t, "gantry-net-fake")
	r.p.grace = 400 * time.Millisecond
	r.begin()
	deaf, other := r.network("deaf"), r.network("deaf")
	deaf.Deadline = bus.Seconds(100 * time.Millisecond)
	r.send(other)
	r.until("its begin", func() bool { return r.noted("net/fake", "did-deaf") == 1 })
	pid := r.pid()
	r.send(deaf)
	r.fails(r.finish(deaf), "aborted", "no end within 100ms", "the driver was ended")
	if alive(pid) {
		t.Error("the step was said to have ended while the driver's process was there")
	}
	f := r.finish(other)
	r.fails(f, "unavailable", "died")
	if f.Instance != "" {
		t.Error("the result names an instance that has ended: the engine would refuse it")
	}
	r.good(r.network("ok"))
	if r.pid() == pid {
		t.Error("the same process")
	}
}

// A stopped process answers nothing at all.
func TestStoppedDriver(t *testing.T) {
	r := newRig(t, "gantry-net-fake")
	r.p.grace = 400 * time.Millisecond
	r.begin()
	r.good(r.network("ok"))
	pid := r.pid()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.until("the stop of all its threads", func() bool { return stopped(t, pid) })
	s := r.network("ok")
	s.Deadline = bus.Seconds(100 * time.Millisecond)
	r.bad(s, "aborted")
	r.good(r.network("ok"))
}

// stopped reports whether all threads of a process are stopped.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range threads {
		if tid, err := strconv.Atoi(x.Name()); err != nil || !strings.HasPrefix(status(t, tid, "State"), "T") {
			return false
		}
	}
	return len(threads) > 0
}

// For a long step the deadline is silence, not duration.
func TestSilence(t *testing.T) {
	r := newRig(t, "gantry-graphdriver-fake").begin()
	apply := func(archive string) bus.Step {
		s := r.step("graphdriver/fake", &core.ApplyLayer{Layer: "l", Archive: archive})
		s.Deadline = bus.Seconds(2 * time.Second) // less than it takes
		return s
	}
	f := r.good(apply("talks"))
	var result core.Result
	if err := json.Unmarshal(f.Result, &result); err != nil || result.Size != 77 {
		t.Errorf("%s, %v", f.Result, err)
	}
	r.until("progress", func() bool { return r.bus.progress > 5 })
	r.bad(apply("silent"), "aborted", "no end within 2s")
}

func TestDeath(t *testing.T) {
	for name, kill := range map[string]func(*rig, int){
		"pid": func(_ *rig, pid int) { _ = unix.Kill(pid, unix.SIGKILL) },
		"cgroup": func(r *rig, _ int) {
			r.host.cage.kill("net-fake.0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "gantry-net-fake").begin()
			s := r.network("deaf")
			r.send(s)
			for r.noted("net/fake", "did-deaf") == 0 {
				time.Sleep(time.Millisecond)
			}
			pid := r.pid()
			kill(r, pid)
			r.fails(r.finish(s), "unavailable", "died", "killed")
			r.until("the report of its end", func() bool {
				all := r.bus.drivers(true)
				return len(all) == 1 && strings.Contains(all[0].Reason, "killed")
			})
			r.until("its return, by itself", func() bool { return len(r.bus.drivers(false)) == 2 })
			r.good(r.network("ok"))
		})
	}
}

// What a dead driver has started is gone before its step is said to have ended.
func TestChildren(t *testing.T) {
	mounts, err := linux.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	var v1 []linux.Hierarchy
	for _, m := range mounts {
		if !m.Unified {
			v1 = append(v1, m)
		}
	}
	for name, on := range map[string][]linux.Hierarchy{"as mounted": mounts, "v1 alone": v1} {
		t.Run(name, func(t *testing.T) {
			if len(on) == 0 {
				t.Skip("no hierarchy of cgroup version 1 is mounted here")
			}
			r := newRig(t, "gantry-net-fake").beginOn(on)
			r.good(r.network("ok"))
			if pids := r.host.cage.pids("net-fake.0"); len(pids) != 1 || pids[0] != r.pid() {
				t.Fatalf("in the cgroup: %v, want the driver %d", pids, r.pid())
			}
			s := r.network("leaves-child")
			r.send(s)
			f := r.finish(s)
			for _, pid := range r.host.cage.pids("net-fake.0") {
				comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
				if string(comm) == "sleep\n" {
					t.Error("the child lives")
				}
			}
			r.fails(f, "unavailable", "exit status 9")
			r.good(r.network("ok"))
		})
	}
}

// No exit is lost with an instance: the next stream begins with all that were not
// released.
func TestExits(t *testing.T) {
	r := newRig(t, "gantry-exec-fake").begin()
	r.host.Need("exec", "fake", "")
	exit := func(container string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(r.dir("exec/fake"), "exits", container), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	told := func(container string) int {
		n := 0
		for _, x := range r.bus.reports {
			var e core.ReportExit
			if x.Name == "container.report-exit" && json.Unmarshal(x.Body, &e) == nil && string(e.Container) == container && e.Code == 3 {
				n++
			}
		}
		return n
	}
	r.until("the driver that must watch", func() bool { return len(r.bus.drivers(false)) == 1 })
	exit("one")
	r.until("the first exit", func() bool { return told("one") == 1 })
	if err := unix.Kill(r.pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exit("two")
	r.until("both, from the next instance", func() bool { return told("one") >= 2 && told("two") >= 1 })
	r.good(r.step("exec/fake", &core.ReleaseProcess{Container: "one", Run: 1}))
}

// The host ends in time, whatever its drivers do.
func TestCloseWhileHung(t *testing.T) {
	r := newRig(t, "gantry-net-fake")
	r.p.drain = 500 * time.Millisecond
	r.begin()
	r.send(r.network("deaf"))
	for r.noted("net/fake", "did-deaf") == 0 {
		time.Sleep(time.Millisecond)
	}
	pid := r.pid()
	_ = unix.Kill(pid, unix.SIGSTOP)
	began := time.Now()
	r.end()
	if took := time.Since(began); took > 20*time.Second || alive(pid) {
		t.Errorf("it took %v; the driver lives: %v", took, alive(pid))
	}
}

func TestCgroupParent(t *testing.T) {
	for _, parent := range []string{"", "/", "gantry", "/x/.."} {
		if _, err := newCage(parent, nil); err == nil || !strings.Contains(err.Error(), "below the root") {
			t.Errorf("%q: %v", parent, err)
		}
	}
}

// What a driver holds may be asked for while other steps run: it is told since when.
func TestReconcile(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	s := r.step("net/fake", &core.Reconcile{})
	s.Body = []byte(`{"id":"job/j/load/reconcile@7"}`)
	r.good(s)
	var since []uint64
	r.bus.mu.Lock()
	defer r.bus.mu.Unlock()
	for _, b := range r.bus.reports {
		var told core.ReportInventory
		if b.Name != "driver.report-inventory" {
			continue
		}
		if err := json.Unmarshal(b.Body, &told); err != nil || len(told.Items) != 1 {
			t.Fatalf("%s: %v", b.Body, err)
		}
		since = append(since, told.Since)
	}
	if !slices.Equal(since, []uint64{0, 7}) {
		t.Errorf("inventories since %v: want the first of the instance, and that of the step", since)
	}
}
