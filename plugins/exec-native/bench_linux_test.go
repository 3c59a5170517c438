package execnative

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkStart measures a whole run of true: start to running program, then
// to the exit, then the release. Compare with bench/floor's "none/v1" of the
// same minute, which is all of it with the kernel's calls alone.
func BenchmarkStart(b *testing.B) {
	e := newBench(b)
	var start, exit, release, whole []float64
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
