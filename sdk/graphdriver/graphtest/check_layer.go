package graphtest

import (
	"context"
	"slices"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

// base is a layer with one of everything that layers on top may change.
func base(t conform.T) graphdriver.ApplyLayer {
	return archive(t, "",
		dir("etc"), file("etc/name", "base\n"), file("etc/removed", "here\n"), symlink("etc/link", "name"),
		dir("bin"), file("bin/tool", "tool").mode(0o4755), hardlink("bin/same", "bin/tool"),
		dir("data"), file("data/old", "old"), dir("data/deep"), file("data/deep/older", "older"),
		dir("turned"), file("turned/inner", "inner"),
		dir("home").owner(1000, 1001), file("home/mine", "mine").owner(1000, 1001).mode(0o600),
		dir("tmp").mode(0o1777), symlink("escape", "/etc/passwd"),
	)
}

// baseSize is the number of bytes in base's regular files; the hard link adds
// none.
const baseSize = int64(len("base\nhere\ntoololdolderinnermine"))

// top changes what base holds: a whiteout, an opaque directory, a directory
// that becomes a file, a file replaced and one added.
func top(t conform.T) graphdriver.ApplyLayer {
	return archive(t, base(t).ID,
		dir("etc"), file("etc/.wh.removed", ""), file("etc/name", "top\n"), file("etc/added", "added\n"),
		dir("data"), file("data/.wh..wh..opq", ""), file("data/new", "new"),
		file("turned", "a file now"),
	)
}

func baseTree() []string {
	return append(commonTree(),
		`etc/name -rw-r--r-- 0:0 "base\n"`, `etc/removed -rw-r--r-- 0:0 "here\n"`,
		`data/old -rw-r--r-- 0:0 "old"`, `data/deep drwxr-xr-x 0:0`, `data/deep/older -rw-r--r-- 0:0 "older"`,
		`turned drwxr-xr-x 0:0`, `turned/inner -rw-r--r-- 0:0 "inner"`)
}

func topTree() []string {
	return append(commonTree(),
		`etc/name -rw-r--r-- 0:0 "top\n"`, `etc/added -rw-r--r-- 0:0 "added\n"`,
		`data/new -rw-r--r-- 0:0 "new"`, `turned -rw-r--r-- 0:0 "a file now"`)
}

func commonTree() []string {
	return []string{
		`etc drwxr-xr-x 0:0`, `etc/link Lrwxrwxrwx 0:0 -> name`,
		`bin drwxr-xr-x 0:0`, `bin/tool urwxr-xr-x 0:0 "tool"`, `bin/same urwxr-xr-x 0:0 "tool"`,
		`data drwxr-xr-x 0:0`,
		`home drwxr-xr-x 1000:1001`, `home/mine -rw------- 1000:1001 "mine"`,
		`tmp dtrwxrwxrwx 0:0`, `escape Lrwxrwxrwx 0:0 -> /etc/passwd`,
	}
}

// apply applies a layer and ends the check if that fails.
func apply(ctx context.Context, b *bench, r graphdriver.ApplyLayer) graphdriver.Layer {
	b.Helper()
	l, err := b.Driver().ApplyLayer(ctx, r, nothing)
	if err != nil {
		b.Fatalf("ApplyLayer %s: %v", r.ID, err)
	}
	return l
}

func nothing(int64, int64, string) {}

// prepare prepares a root filesystem and ends the check if that fails.
func prepare(ctx context.Context, b *bench, r graphdriver.PrepareRootfs) []driver.Mount {
	b.Helper()
	mounts, err := b.Driver().PrepareRootfs(ctx, r)
	if err != nil {
		b.Fatalf("PrepareRootfs on %q: %v", r.Layer, err)
	}
	return mounts
}

// wantLayer compares what a container on a layer sees with what it should see.
func wantLayer(ctx context.Context, b *bench, layer string, want []string) {
	b.Helper()
	c := conform.ID()
	mounts := prepare(ctx, b, graphdriver.PrepareRootfs{Container: c, Layer: layer})
	Inside(b, mounts, func(root string) { wantTree(b, "root filesystem on "+layer, tree(b, root), want) })
	if err := b.Driver().ReleaseRootfs(ctx, c); err != nil {
		b.Errorf("ReleaseRootfs: %v", err)
	}
}

// wantItems compares what List tells with what it should; order is free.
func wantItems(ctx context.Context, b *bench, want ...driver.Item) {
	b.Helper()
	got, err := b.Driver().List(ctx)
	if err != nil {
		b.Fatalf("List: %v", err)
	}
	for _, i := range want {
		if !slices.Contains(got, i) {
			b.Errorf("List lacks %+v", i)
		}
	}
	for _, i := range got {
		if !slices.Contains(want, i) {
			b.Errorf("List tells what is not held: %+v", i)
		}
	}
	if len(got) > len(want) {
		b.Errorf("List has %d items, want %d: is one told twice?", len(got), len(want))
	}
}

func heldLayer(id string) driver.Item { return driver.Item{Kind: "layer", Key: id, State: "held"} }
func heldRootfs(container string) driver.Item {
	return driver.Item{Kind: "rootfs", Key: container, State: "held"}
}

func layerChecks() []check {
	return []check{
		{Name: "info", Promise: "Info names the driver and never fails because of what is held.", Run: checkInfo},
		{Name: "apply", Promise: "ApplyLayer unpacks a layer with its modes, owners and links; it answers with id and size; List tells it.", Run: checkApply},
		{Name: "apply-plain", Promise: "An uncompressed layer is as good as a compressed one.", Run: checkApplyPlain},
		{Name: "apply-on-parent", Promise: "A layer on top of another one changes it: whiteouts, opaque directories, replaced kinds.", Run: checkApplyOnParent},
		{Name: "apply-repeated", Promise: "A layer that is already there is answered with what it was when it was made.", Run: checkApplyRepeated},
		{Name: "apply-again-without-archive", Promise: "A layer that is there needs its archive no more.", Run: checkApplyWithoutArchive},
		{Name: "remove-layer", Promise: "RemoveLayer may be repeated, and succeeds for what is not held.", Run: checkRemoveLayer},
		{Name: "remove-layer-in-use", Promise: "A layer that something stands on is not removed: FailedPrecondition.", Run: checkRemoveLayerInUse},
	}
}

func checkInfo(ctx context.Context, b *bench) {
	for range 2 {
		info, err := b.Driver().Info(ctx)
		if err != nil {
			b.Fatalf("Info: %v", err)
		}
		if info.Name == "" || info.Version == "" {
			b.Errorf("Info has no name or no version: %+v", info)
		}
		apply(ctx, b, base(b))
	}
}

func checkApply(ctx context.Context, b *bench) {
	r := base(b)
	if l := apply(ctx, b, r); l.ID != r.ID || l.Size != baseSize {
		b.Errorf("ApplyLayer answered %+v, want id %s and size %d", l, r.ID, baseSize)
	}
	wantItems(ctx, b, heldLayer(r.ID))
	wantLayer(ctx, b, r.ID, baseTree())
}

func checkApplyPlain(ctx context.Context, b *bench) {
	r := plainArchive(b, "", dir("d"), file("d/f", "plain"))
	apply(ctx, b, r)
	wantLayer(ctx, b, r.ID, []string{`d drwxr-xr-x 0:0`, `d/f -rw-r--r-- 0:0 "plain"`})
}

func checkApplyOnParent(ctx context.Context, b *bench) {
	below, above := base(b), top(b)
	apply(ctx, b, below)
	apply(ctx, b, above)
	wantItems(ctx, b, heldLayer(below.ID), heldLayer(above.ID))
	wantLayer(ctx, b, above.ID, topTree())
	wantLayer(ctx, b, below.ID, baseTree())
}

func checkApplyRepeated(ctx context.Context, b *bench) {
	r := base(b)
	first := apply(ctx, b, r)
	if again := apply(ctx, b, r); again != first {
		b.Errorf("ApplyLayer answered %+v, and repeated %+v", first, again)
	}
	if again, err := b.Reopen().ApplyLayer(ctx, r, nothing); err != nil || again != first {
		b.Errorf("ApplyLayer answered %+v, and after a restart %+v, %v", first, again, err)
	}
	wantItems(ctx, b, heldLayer(r.ID))
}

func checkApplyWithoutArchive(ctx context.Context, b *bench) {
	r := base(b)
	first := apply(ctx, b, r)
	r.Archive += ".gone"
	if again := apply(ctx, b, r); again != first {
		b.Errorf("ApplyLayer answered %+v, and repeated %+v", first, again)
	}
}

func checkRemoveLayer(ctx context.Context, b *bench) {
	r := base(b)
	d := b.Driver()
	if err := d.RemoveLayer(ctx, r.ID); err != nil {
		b.Errorf("RemoveLayer of a layer that is not held: %v", err)
	}
	apply(ctx, b, r)
	for range 2 {
		if err := d.RemoveLayer(ctx, r.ID); err != nil {
			b.Errorf("RemoveLayer: %v", err)
		}
		wantItems(ctx, b)
	}
	apply(ctx, b, r)
	wantLayer(ctx, b, r.ID, baseTree())
}

func checkRemoveLayerInUse(ctx context.Context, b *bench) {
	below, above, c := base(b), top(b), conform.ID()
	apply(ctx, b, below)
	apply(ctx, b, above)
	d := b.Driver()
	conform.WantClass(b, "RemoveLayer under another layer", d.RemoveLayer(ctx, below.ID), "failed-precondition")
	prepare(ctx, b, graphdriver.PrepareRootfs{Container: c, Layer: above.ID})
	conform.WantClass(b, "RemoveLayer under a root filesystem", d.RemoveLayer(ctx, above.ID), "failed-precondition")
	wantItems(ctx, b, heldLayer(below.ID), heldLayer(above.ID), heldRootfs(c))
	wantLayer(ctx, b, above.ID, topTree())
	for _, step := range []func() error{
		func() error { return d.ReleaseRootfs(ctx, c) },
		func() error { return d.RemoveLayer(ctx, above.ID) },
		func() error { return d.RemoveLayer(ctx, below.ID) },
	} {
		if err := step(); err != nil {
			b.Errorf("give back from the top: %v", err)
		}
	}
	wantItems(ctx, b)
}
