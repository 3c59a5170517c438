package overlay

import (
	"fmt"
	"testing"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

// BenchmarkPrepareRelease is what each container pays for its root filesystem.
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
	i := 0
	for b.Loop() {
		c := fmt.Sprintf("c%d", i)
		i++
		if _, err := d.PrepareRootfs(ctx, graphdriver.PrepareRootfs{Container: c, Layer: "l1", Targets: targets}); err != nil {
			b.Fatal(err)
		}
		if err := d.ReleaseRootfs(ctx, c); err != nil {
			b.Fatal(err)
		}
	}
}
