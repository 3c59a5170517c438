package layertar

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
)

// BenchmarkUnpack unpacks a layer of 30,000 files in 1,000 directories. What
// tar xf takes for the same on the same disk is the measure (FILES=… tar).
func BenchmarkUnpack(b *testing.B) {
	var entries []ent
	body := strings.Repeat("some content of a file\n", 100)
	for d := range 1000 {
		dir := fmt.Sprintf("usr/share/d%02d/e%d/", d%50, d)
		entries = append(entries, dirEnt(dir, 0o755))
		for f := range 30 {
			entries = append(entries, fileEnt(fmt.Sprintf("%sf%d", dir, f), body))
		}
	}
	blob := makeTar(b, entries...)
	for b.Loop() {
		dir := b.TempDir()
		if _, err := Unpack(context.Background(), openDir(b, dir), bytes.NewReader(blob), Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/30, "ns/file")
}
