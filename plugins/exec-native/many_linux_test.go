package execnative

import (
	"context"
	"os"
	"testing"

	"github.com/gantryd/gantry/sdk/execdriver"
)

// ownFDs counts this process's descriptors.
func ownFDs(t testing.TB) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestManyExecsInARow leave no descriptor, directory or entry behind.
func TestManyExecsInARow(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(nil)
	one := func() {
		x := execRequest(r.Key, "")
		x.Process.Args, x.Stdio.WaitAttach = []string{"/bin/true"}, false
		if _, err := b.d.Exec(context.Background(), x); err != nil {
			t.Fatal(err)
		}
		b.wait(x.Key)
		if err := b.d.Release(context.Background(), x.Key); err != nil {
			t.Fatal(err)
		}
	}
	count := 200
	if testing.Short() {
		count = 60
	}
	for range 20 {
		one()
	}
	quiet := func() int { // spare shims come and go, a message's descriptor is closed a moment later
		b.eventually("all made ahead", b.full)
		return ownFDs(t)
	}
	before := quiet()
	for range count {
		one()
	}
	if after := quiet(); after > before+8 {
		t.Errorf("%d descriptors after %d execs, %d before", after, count, before)
	}
	if dirs := b.runDirs(); len(dirs) != 1 {
		t.Errorf("run directories: %v", dirs)
	}
	if n := len(b.d.runs); n != 1 {
		t.Errorf("%d runs are known", n)
	}
}

// BenchmarkExec is an exec of true until its end is told.
func BenchmarkExec(b *testing.B) {
	n := newBench(b)
	r, _ := n.idle(nil)
	for b.Loop() {
		x := execRequest(r.Key, "")
		x.Process.Args, x.Stdio = []string{"/bin/true"}, execdriver.Stdio{Log: execdriver.LogConfig{Driver: "none"}}
		if _, err := n.d.Exec(context.Background(), x); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		n.wait(x.Key)
		if err := n.d.Release(context.Background(), x.Key); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
