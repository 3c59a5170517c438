package graphtest

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

func refusalChecks() []check {
	return []check{
		{Name: "apply-wrong-digest", Promise: "A blob that is not the one its digest names is DataLoss, and a right one can be applied afterwards.", Run: checkWrongDigest},
		{Name: "apply-wrong-diff-id", Promise: "A tar that is not the one its DiffID names is DataLoss.", Run: checkWrongDiffID},
		{Name: "apply-truncated", Promise: "A truncated archive is DataLoss.", Run: checkTruncated},
		{Name: "apply-no-parent", Promise: "A layer whose parent is not held is NotFound.", Run: checkNoParent},
		{Name: "apply-hostile-names", Promise: "A name or link that would leave the layer is InvalidArgument, and nothing outside is touched.", Run: checkHostile},
		{Name: "apply-through-links", Promise: "A name below a link of the layer never reaches what the link points at.", Run: checkThroughLinks},
	}
}

// refuse wants ApplyLayer to fail with a class, to leave nothing that
// RemoveLayer does not remove, and to be no hindrance to the right archive.
func refuse(ctx context.Context, b *bench, bad, good graphdriver.ApplyLayer, class string) {
	b.Helper()
	d := b.Driver()
	_, err := d.ApplyLayer(ctx, bad, nothing)
	conform.WantClass(b, "ApplyLayer", err, class)
	if err := d.RemoveLayer(ctx, bad.ID); err != nil {
		b.Errorf("RemoveLayer after a refused ApplyLayer: %v", err)
	}
	wantItems(ctx, b)
	d.ApplyLayer(ctx, bad, nothing)
	apply(ctx, b, good) // the half-made one is made anew
}

func checkWrongDigest(ctx context.Context, b *bench) {
	good := base(b)
	bad := good
	bad.Digest = digestOf([]byte("another"))
	refuse(ctx, b, bad, good, "data-loss")
	wantLayer(ctx, b, good.ID, baseTree())
}

func checkWrongDiffID(ctx context.Context, b *bench) {
	good := base(b)
	bad := archive(b, "", file("other", "other"))
	bad.ID, bad.DiffID = good.ID, good.DiffID
	refuse(ctx, b, bad, good, "data-loss")
	wantLayer(ctx, b, good.ID, baseTree())
}

func checkTruncated(ctx context.Context, b *bench) {
	good := base(b)
	blob, err := os.ReadFile(good.Archive)
	if err != nil {
		b.Fatalf("read the blob: %v", err)
	}
	for _, n := range []int{0, 5, len(blob) / 2, len(blob) - 1} {
		bad := good
		bad.Archive = store(b, blob[:n])
		refuse(ctx, b, bad, good, "data-loss")
		if err := b.Driver().RemoveLayer(ctx, good.ID); err != nil {
			b.Errorf("RemoveLayer: %v", err)
		}
	}
	// Digests that fit do not help: the compressed stream itself ends early.
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write(layerTar(b, []entry{file("big", string(make([]byte, 1<<20)))}))
	w.Flush()
	bad := good
	bad.Archive, bad.Digest = store(b, packed.Bytes()), digestOf(packed.Bytes())
	refuse(ctx, b, bad, good, "data-loss")
}

func checkNoParent(ctx context.Context, b *bench) {
	_, err := b.Driver().ApplyLayer(ctx, top(b), nothing)
	conform.WantClass(b, "ApplyLayer on a parent that is not held", err, "not-found")
	_, err = b.Driver().PrepareRootfs(ctx, graphdriver.PrepareRootfs{Container: conform.ID(), Layer: top(b).ID})
	conform.WantClass(b, "PrepareRootfs on a layer that is not held", err, "not-found")
	for _, i := range items(ctx, b) {
		if i.Kind == "rootfs" {
			b.Errorf("a refused PrepareRootfs has left %+v", i)
		}
	}
}

func checkHostile(ctx context.Context, b *bench) {
	outside := b.TempDir()
	write(b, filepath.Join(outside, "victim"), "untouched")
	good := base(b)
	up := "../../../../../../../../../../.." + outside
	for _, hostile := range []graphdriver.ApplyLayer{
		archive(b, "", dir("d"), file("../evil", "evil")),
		archive(b, "", dir("d"), file("d/../../evil", "evil")),
		archive(b, "", file(up+"/evil", "evil")),
		archive(b, "", file(up+"/victim", "evil")),
		archive(b, "", file(up+"/.wh.victim", "")),
		archive(b, "", hardlink("stolen", up+"/victim")),
		archive(b, "", dir("d"), hardlink("d/stolen", "../"+up+"/victim")),
	} {
		refuse(ctx, b, hostile, good, "invalid-argument")
		if err := b.Driver().RemoveLayer(ctx, good.ID); err != nil {
			b.Errorf("RemoveLayer: %v", err)
		}
		wantUntouched(b, outside)
	}
}

// checkThroughLinks leaves it to the driver to refuse the layer, or to take
// the link's place; only the outside counts.
func checkThroughLinks(ctx context.Context, b *bench) {
	outside := b.TempDir()
	write(b, filepath.Join(outside, "victim"), "untouched")
	for _, hostile := range []graphdriver.ApplyLayer{
		archive(b, "", symlink("l", outside), file("l/evil", "evil")),
		archive(b, "", symlink("l", outside), file("l/victim", "evil")),
		archive(b, "", symlink("l", outside), file("l/.wh.victim", "")),
		archive(b, "", symlink("l", outside+"/victim"), file("l", "evil")),
		archive(b, "", symlink("l", outside), hardlink("stolen", "l/victim")),
		archive(b, "", symlink("l", outside), dir("l/made")),
		archive(b, "", dir("d"), symlink("d/l", "../../../../../../../.."+outside), file("d/l/evil", "evil")),
	} {
		_, err := b.Driver().ApplyLayer(ctx, hostile, nothing)
		if err != nil {
			conform.WantClass(b, "ApplyLayer", err, "invalid-argument")
		}
		wantUntouched(b, outside)
	}
	below := archive(b, "", symlink("l", outside))
	apply(ctx, b, below)
	above := archive(b, below.ID, file("l/evil", "evil"), file("l/.wh.victim", ""))
	b.Driver().ApplyLayer(ctx, above, nothing)
	wantUntouched(b, outside)
}

// wantUntouched wants a directory to hold the file victim as it was.
func wantUntouched(t conform.T, dir string) {
	t.Helper()
	if got := read(filepath.Join(dir, "victim")); got != "untouched" {
		t.Errorf("a file outside of the layer was changed: %q", got)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("something was made outside of the layer: %v, %v", names, err)
	}
	info, err := os.Stat(filepath.Join(dir, "victim"))
	if err == nil && linkCount(info) != 1 {
		t.Errorf("a file outside of the layer was linked into it")
	}
}

// items is what List tells.
func items(ctx context.Context, b *bench) []driver.Item {
	b.Helper()
	got, err := b.Driver().List(ctx)
	if err != nil {
		b.Fatalf("List: %v", err)
	}
	return got
}
