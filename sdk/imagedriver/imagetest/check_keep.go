package imagetest

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/gantryd/gantry/sdk/conform"
)

func keepChecks() []check {
	return []check{
		{Name: "name", Promise: "Name sets the names of an image, may be repeated, and is NotFound for an image that is not held.", Run: checkName},
		{Name: "remove", Promise: "Remove gives an image back, may be repeated, and succeeds for what is not held.", Run: checkRemove},
		{Name: "remove-shared", Promise: "Remove lets the blobs stay that other images use, and no others.", Run: checkRemoveShared},
		{Name: "restart", Promise: "A restarted driver finds everything it held.", Run: checkRestart},
		{Name: "cancelled", Promise: "A cancelled Load leaves nothing that hinders the next one.", Run: checkCancelled},
		{Name: "side-by-side", Promise: "Several loads at once, of one image and of several, all succeed.", Run: checkSideBySide},
	}
}

func checkName(ctx context.Context, b *bench) {
	m := one().build(b)
	load(ctx, b, saveOCI(b, m))
	d := b.Driver()
	for _, names := range [][]string{{nameTwo}, {nameOne, nameTwo}, {nameOne, nameTwo}, nil} {
		if err := d.Name(ctx, m.id(), names); err != nil {
			b.Errorf("Name %q: %v", names, err)
		}
		wantItems(ctx, b, m.id()) // a name more or less is no reason to lose it
	}
	err := d.Name(ctx, digestOf([]byte("no image")), []string{nameOne})
	conform.WantClass(b, "Name of an image that is not held", err, "not-found")
	b.Reopen()
	wantItems(ctx, b, m.id())
}

func checkRemove(ctx context.Context, b *bench) {
	if err := b.Driver().Remove(ctx, digestOf([]byte("no image"))); err != nil {
		b.Errorf("Remove of an image that is not held: %v", err)
	}
	m := one().build(b)
	r := saveOCI(b, m)
	image := load(ctx, b, r)[0]
	for range 2 {
		if err := b.Driver().Remove(ctx, m.id()); err != nil {
			b.Errorf("Remove: %v", err)
		}
		wantItems(ctx, b)
		b.Reopen()
	}
	for _, l := range image.Layers {
		if _, err := os.Stat(l.Path); !os.IsNotExist(err) {
			b.Errorf("the blob %s is still there after Remove (%v)", l.Digest, err)
		}
	}
	wantOne(ctx, b, r, m)
}

func checkRemoveShared(ctx context.Context, b *bench) {
	first, second := one().build(b), two().build(b)
	images := load(ctx, b, saveOCI(b, first, second))
	if len(images) != 2 {
		b.Fatalf("Load found %d images, want 2", len(images))
	}
	if err := b.Driver().Remove(ctx, first.id()); err != nil {
		b.Errorf("Remove: %v", err)
	}
	wantItems(ctx, b, second.id())
	wantImage(b, images[1], second)
	if own := images[0].Layers[1]; exists(own.Path) {
		b.Errorf("the blob %s, which no image uses now, is still there", own.Digest)
	}
	if err := b.Driver().Remove(ctx, second.id()); err != nil {
		b.Errorf("Remove: %v", err)
	}
	if shared := images[0].Layers[0]; exists(shared.Path) {
		b.Errorf("the blob %s, which no image uses now, is still there", shared.Digest)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func checkRestart(ctx context.Context, b *bench) {
	m := one().build(b)
	image := load(ctx, b, saveOCI(b, m))[0]
	if b.CanKill() {
		b.Kill()
	} else {
		b.Reopen()
	}
	wantItems(ctx, b, m.id())
	wantImage(b, image, m)
	if err := b.Driver().Remove(ctx, m.id()); err != nil {
		b.Errorf("Remove after a restart: %v", err)
	}
	b.Reopen()
	wantItems(ctx, b)
}

func checkCancelled(ctx context.Context, b *bench) {
	m := one().build(b)
	r := saveOCI(b, m)
	for _, after := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond} {
		short, cancel := context.WithTimeout(ctx, after)
		_, err := b.Driver().Load(short, r, nothing)
		cancel()
		b.Logf("cancelled after %v: %v", after, err)
	}
	wantOne(ctx, b, r, m)
}

func checkSideBySide(ctx context.Context, b *bench) {
	first, second := one().build(b), two().build(b)
	d := b.Driver()
	var wg sync.WaitGroup
	for i := range 6 {
		m := first
		if i%2 == 1 {
			m = second
		}
		r := saveOCI(b, m)
		wg.Go(func() {
			images, err := d.Load(ctx, r, nothing)
			if err != nil || len(images) != 1 || images[0].ID != m.id() {
				b.Errorf("Load side by side: %+v, %v", images, err)
			}
		})
	}
	wg.Wait()
	wantItems(ctx, b, first.id(), second.id())
}
