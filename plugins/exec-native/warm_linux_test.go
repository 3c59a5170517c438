package execnative

import (
	"fmt"
	"testing"

	"github.com/gantryd/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// shims lists the shims of an engine, those that wait among them.
func (b *bench) shims() []int {
	b.t.Helper()
	p, err := b.d.tree.OpenParent(b.cfg.Cgroup, false)
	if err != nil {
		b.t.Fatal(err)
	}
	defer p.Close()
	pids, err := p.Group("shims").Pids()
	if err != nil {
		b.t.Fatal(err)
	}
	return pids
}

// TestWarmShims: some wait, the killed ones among them are replaced without
// anybody noticing, and none outlives its driver.
func TestWarmShims(t *testing.T) {
	b := newBench(t)
	until := func(n int) []int {
		t.Helper()
		var got []int
		b.eventually(fmt.Sprintf("%d shims wait", n), func() bool {
			got = b.shims()
			return len(got) == n
		})
		return got
	}
	b.eventually("all made ahead", b.full)
	for _, pid := range until(warmShims) {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	until(0)
	expect(t, b, b.request("echo up"), "up")
	until(warmShims)
	if items, err := b.d.List(t.Context()); err != nil || len(items) != 1 {
		t.Errorf("%v, %v: want the one run", items, err)
	}
	b.d.coolDown()
	until(0)
	expect(t, b, b.request("echo cold"), "cold")
	until(0)
}

// TestUsualTimers: that the driver's own timers may be late is nothing to its
// containers, whether their shim has waited or not.
func TestUsualTimers(t *testing.T) {
	if err := linux.CalmTimers(); err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	b.eventually("all made ahead", b.full)
	expect(t, b, b.request("cat /proc/self/timerslack_ns"), "50000")
	b.d.coolDown()
	expect(t, b, b.request("cat /proc/self/timerslack_ns"), "50000")
}
