package execnative

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkStart measures a whole run of true: start to running program, then
// to the exit, then the release.
func BenchmarkStart(b *testing.B) {
	e := newBench(b)
	var start, exit, release time.Duration
	driver, inside := cpuOfDriver(b), cpuOfContainers(e)
	for b.Loop() {
		b.StopTimer()
		r := e.request("")
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
		start, exit, release = start+t1.Sub(t0), exit+t2.Sub(t1), release+time.Since(t2)
	}
	n := float64(b.N)
	b.ReportMetric(float64((cpuOfDriver(b)-driver).Microseconds())/n, "µs-cpu-driver")
	b.ReportMetric(float64((cpuOfContainers(e)-inside).Microseconds())/n, "µs-cpu-inside")
	b.ReportMetric(float64(start.Microseconds())/n, "µs-start")
	b.ReportMetric(float64(exit.Microseconds())/n, "µs-exit")
	b.ReportMetric(float64(release.Microseconds())/n, "µs-release")
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
