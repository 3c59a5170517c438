package execnative

import (
	"context"
	"testing"
	"time"
)

// BenchmarkStart measures a whole run of true: start to running program, then
// to the exit, then the release.
func BenchmarkStart(b *testing.B) {
	e := newBench(b)
	var start, exit, release time.Duration
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
	b.ReportMetric(float64(start.Microseconds())/n, "µs-start")
	b.ReportMetric(float64(exit.Microseconds())/n, "µs-exit")
	b.ReportMetric(float64(release.Microseconds())/n, "µs-release")
}
