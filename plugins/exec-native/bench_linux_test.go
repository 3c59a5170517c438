package execnative

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/sdk/netdriver"
	"golang.org/x/sys/unix"
)

// BenchmarkStart measures a whole run of true: start to running program, then
// to the exit, then the release. Compare with bench/floor's "none/v1" of the
// same minute, which is all of it with the kernel's calls alone.
func BenchmarkStart(b *testing.B) {
	benchmarkStart(b, netdriver.Namespace{Mode: netdriver.NamespaceNew})
}

// BenchmarkStartPrepared is the same in a network namespace that was made
// before. Compare with the floor's "prepared/v1".
func BenchmarkStartPrepared(b *testing.B) {
	network := newNetwork(b)
	var st unix.Stat_t
	if err := unix.Fstat(int(network.Fd()), &st); err != nil {
		b.Fatal(err)
	}
	benchmarkStart(b, netdriver.Namespace{Mode: netdriver.NamespacePath, Path: fmt.Sprintf("/proc/self/fd/%d", network.Fd()), Inode: st.Ino})
}

// newNetwork makes a network namespace.
func newNetwork(b *testing.B) *os.File {
	made := make(chan *os.File)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			b.Error(err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			b.Error(err)
		}
		made <- f
	}()
	f := <-made
	b.Cleanup(func() { f.Close() })
	return f
}

func benchmarkStart(b *testing.B, network netdriver.Namespace) {
	e := newBench(b)
	for _, dir := range []string{"proc", "sys", "dev"} { // the graph driver's skeleton
		if err := os.Mkdir(e.lower+"/"+dir, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.WriteFile(e.lower+"/etc/hostname", nil, 0o644); err != nil {
		b.Fatal(err)
	}
	var start, exit, release, whole []float64
	driver, inside := cpuOfDriver(b), cpuOfContainers(e)
	for b.Loop() {
		b.StopTimer()
		time.Sleep(2 * warmDelay) // what is made ahead is there again
		r := e.request("")
		r.Network = network
		r.Process.Args = []string{"/bin/true"}
		b.StartTimer()
		t0 := time.Now()
		if _, err := e.d.Start(context.Background(), r); err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		e.d.mu.Lock()
		one := e.d.runs[r.Key]
		e.d.mu.Unlock()
		<-one.gone
		t2 := time.Now()
		if err := e.d.Release(context.Background(), r.Key); err != nil {
			b.Fatal(err)
		}
		t3 := time.Now()
		for to, d := range map[*[]float64]time.Duration{&start: t1.Sub(t0), &exit: t2.Sub(t1), &release: t3.Sub(t2), &whole: t3.Sub(t0)} {
			*to = append(*to, float64(d.Microseconds()))
		}
	}
	n := float64(b.N)
	b.ReportMetric(float64((cpuOfDriver(b)-driver).Microseconds())/n, "µs-cpu-driver")
	b.ReportMetric(float64((cpuOfContainers(e)-inside).Microseconds())/n, "µs-cpu-inside")
	for name, all := range map[string][]float64{"start": start, "exit": exit, "release": release, "whole": whole} {
		slices.Sort(all)
		b.ReportMetric(all[0], "µs-min-"+name)
		b.ReportMetric(all[len(all)/2], "µs-median-"+name)
	}
}

// cpuOfDriver is the processor time of this process, which stays meaningful on
// a busy machine.
func cpuOfDriver(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOfContainers is that of all shims and containers of the engine.
func cpuOfContainers(e *bench) time.Duration {
	for _, h := range e.d.tree.Hierarchies {
		for _, c := range h.Controllers {
			if c == "cpuacct" {
				text, err := os.ReadFile(h.Mount + e.cfg.Cgroup + "/cpuacct.usage")
				if err != nil {
					e.t.Fatal(err)
				}
				ns, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
				return time.Duration(ns)
			}
		}
	}
	return 0
}
