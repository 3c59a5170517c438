package overlay

import (
	"fmt"
	"testing"
	"time"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

// BenchmarkPrepareRelease is what each container pays for its root filesystem,
// one every five milliseconds.
func BenchmarkPrepareRelease(b *testing.B) {
	v, err := New(driver.Config{EngineID: "e1", Root: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	d := v.(*Driver)
	defer d.Close()
	if _, err := d.ApplyLayer(ctx, layer(b, "l1", "", "a=1"), nil); err != nil {
		b.Fatal(err)
	}
	targets := []driver.Target{{Path: "/proc"}, {Path: "/sys"}, {Path: "/dev"}, {Path: "/etc/hosts", File: true}}
	var prepare, release time.Duration
	i := 0
	for b.Loop() {
		time.Sleep(5 * time.Millisecond)
		c := fmt.Sprintf("c%d", i)
		i++
		start := time.Now()
		if _, err := d.PrepareRootfs(ctx, graphdriver.PrepareRootfs{Container: c, Layer: "l1", Targets: targets}); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		if err := d.ReleaseRootfs(ctx, c); err != nil {
			b.Fatal(err)
		}
		prepare += middle.Sub(start)
		release += time.Since(middle)
	}
	b.ReportMetric(float64(prepare.Microseconds())/float64(i), "µs/prepare")
	b.ReportMetric(float64(release.Microseconds())/float64(i), "µs/release")
	b.ReportMetric(0, "ns/op")
}
