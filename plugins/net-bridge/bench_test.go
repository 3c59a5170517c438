package bridge

import (
	"testing"

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
