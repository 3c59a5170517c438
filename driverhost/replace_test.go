package driverhost

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
)

func (r *rig) replacement(path string) bus.Step {
	return r.step("net/fake", &core.ReplaceDriver{Path: path})
}

// Steps that run end first, those that come wait; then the new one serves, also
// after it has died.
func TestReplace(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	path := r.program("new", "gantry-net-fake")
	r.good(r.network("ok"))
	old := r.pid()
	swap, after := r.replacement(path), r.network("ok")
	after.Path = path
	runs, letGo := r.held()
	r.send(swap)
	r.until("the replacement's begin", func() bool { return len(r.hosted("net/fake").held) == 1 })
	r.send(after)
	letGo()
	first, second, third := r.finish(runs), r.finish(swap), r.finish(after)
	if first.Error != nil || second.Error != nil || third.Error != nil {
		t.Fatalf("%+v, %+v, %+v", first.Error, second.Error, third.Error)
	}
	if first.Instance == second.Instance || second.Instance != third.Instance || !strings.Contains(string(second.Result), `"version":"fake-new"`) {
		t.Errorf("%+v %s, %+v", first, second.Result, third)
	}
	if alive(old) {
		t.Error("the old driver lives")
	}
	r.bus.mu.Lock()
	if ends := r.bus.drivers(true); len(ends) != 0 {
		t.Errorf("the old one's end was told as if it were the driver's: %+v", ends)
	}
	r.bus.mu.Unlock()
	if err := unix.Kill(r.pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.until("the new program's return", func() bool {
		all := r.bus.drivers(false)
		return len(all) == 3 && all[2].Version == "fake-new"
	})
	back := r.program("third", "gantry-net-fake") // the generations take turns
	r.good(r.replacement(back))
	r.good(r.replacement(path))
}

func TestReplaceRefused(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	r.good(r.network("ok"))
	pid := r.pid()
	for mode, word := range map[string]string{
		"failing": "the moon is full", "garbage": "does not speak", "misnamed": `driver "other"`,
		"failing-list": "the book is burnt", "hung-list": "ask for what it holds", "none": "no such file",
	} {
		path := "/nowhere/gantry-net-fake"
		if mode != "none" {
			path = r.program("be-"+mode, "gantry-net-fake")
		}
		f := patiently(mode, []string{word}, func(start time.Duration) bus.Finish {
			r.host.patience.start = start
			swap, meanwhile := r.replacement(path), r.network("ok")
			r.send(swap)
			r.send(meanwhile)
			if f := r.finish(meanwhile); f.Error != nil {
				t.Errorf("%s: a step meanwhile: %+v", mode, f.Error)
			}
			return r.finish(swap)
		})
		r.fails(f, "failed-precondition", word, path, "the one before serves on")
		if left := r.host.cage.pids("net-fake.1"); len(left) != 0 {
			t.Errorf("%s: processes are left: %v", mode, left)
		}
	}
	if !alive(pid) || r.pid() != pid {
		t.Error("the one before does not serve on")
	}
}

// Neither goroutines nor descriptors are left of instances that have ended,
// whichever way.
func TestNoLeaks(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	round := func() {
		r.good(r.network("ok"))
		r.bad(r.network("dies"), "unavailable")
		r.good(r.network("ok"))
		r.good(r.step("net/fake", &core.StopDriver{}))
		r.be("net/fake", "failing")
		r.bad(r.network("ok"), "unavailable")
		r.be("net/fake", "")
		r.good(r.network("ok"))
		r.good(r.step("net/fake", &core.StopDriver{}))
	}
	count := func() (goroutines, files int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return runtime.NumGoroutine(), len(entries)
	}
	round()
	time.Sleep(3 * drip)
	goroutines, files := count()
	for range 4 {
		round()
	}
	var g, f int
	r.until("the end of what the instances had", func() bool {
		g, f = count()
		return g <= goroutines+1 && f <= files+1
	})
}

// A driver that keeps ending is started again for as long as nobody stops it.
func TestStopEndsTheStarting(t *testing.T) {
	r := newRig(t, "gantry-exec-fake").begin()
	r.be("exec/fake", "failing")
	r.host.Need("exec", "fake", "")
	r.until("a second start", func() bool { return r.noted("exec/fake", "starts") > 1 })
	d := r.hosted("exec/fake")
	r.good(r.step("exec/fake", &core.StopDriver{}))
	r.until("the end of the starting", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.starting == 0
	})
	r.host.Need("exec", "fake", "") // it is enabled again
	r.be("exec/fake", "")
	r.until("its start", func() bool { return len(r.bus.drivers(false)) == 1 })
}

// Whoever starts a driver until it lives keeps nobody waiting while it backs off: steps
// are told why, and a driver that works can take its place.
func TestNobodyWaitsForABackoff(t *testing.T) {
	r := newRig(t, "gantry-exec-fake")
	r.p.backoff, r.p.longest = time.Hour, time.Hour
	r.begin()
	r.be("exec/fake", "failing")
	r.host.Need("exec", "fake", "")
	d := r.hosted("exec/fake")
	r.until("a second failure", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.failures == 2
	})
	r.bad(r.step("exec/fake", &core.SignalProcess{Container: "c", Run: 1, Signal: 15}), "unavailable", "it is tried again in")
	swap := r.replacement(r.program("be-well", "gantry-exec-fake"))
	swap.Kind = "exec"
	r.good(swap)
	r.good(r.step("exec/fake", &core.StopDriver{}))
	r.until("the end of the starting", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.starting == 0
	})
}

// A disabled driver has no process left, and may come back.
func TestStopDriver(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	r.good(r.network("ok"))
	pid := r.pid()
	r.good(r.step("net/fake", &core.StopDriver{}))
	if alive(pid) || len(r.host.cage.names()) != 0 {
		t.Errorf("alive %v, cgroups %v", alive(pid), r.host.cage.names())
	}
	time.Sleep(100 * time.Millisecond)
	if n := r.noted("net/fake", "starts"); n != 1 {
		t.Errorf("it was started %d times", n)
	}
	r.good(r.step("net/fake", &core.StopDriver{})) // nothing to stop
	r.good(r.network("ok"))
}
