package bridge

import (
	"testing"
	"time"

	"github.com/gantryd/gantry/sdk/netdriver"
)

// BenchmarkLife is a container's attach and detach, one after the other, with
// fifty others attached.
func BenchmarkLife(b *testing.B) {
	e := newEngine(b, "bench")
	n := e.network("aa11", "10.90.0.0/20", nil)
	for i := range 50 {
		e.attach(n, "stays", 200, func(r *netdriver.Attach) { r.Run = uint64(i + 1) })
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		r := request4(n, "c1", 2)
		r.Run = uint64(i + 1)
		if _, err := e.Attach(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		e.detach(n, "c1", r.Run)
	}
}

// BenchmarkQuietLife is the same with pauses, in which what is made ahead is
// made and what was given back goes; it tells attach and detach apart.
func BenchmarkQuietLife(b *testing.B) {
	e := newEngine(b, "quiet")
	n := e.network("aa11", "10.91.0.0/20", nil)
	e.attach(n, "stays", 9, nil)
	var attach, detach time.Duration
	for i := range b.N {
		e.waitForPool()
		time.Sleep(50 * time.Millisecond)
		r := request4(n, "c1", 2)
		r.Run = uint64(i + 1)
		begin := time.Now()
		if _, err := e.Attach(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		attach += time.Since(begin)
		time.Sleep(10 * time.Millisecond)
		begin = time.Now()
		e.detach(n, "c1", r.Run)
		detach += time.Since(begin)
	}
	b.ReportMetric(float64(attach.Microseconds())/float64(b.N), "µs/attach")
	b.ReportMetric(float64(detach.Microseconds())/float64(b.N), "µs/detach")
}
