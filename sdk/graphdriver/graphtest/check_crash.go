package graphtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

func crashChecks() []check {
	return []check{
		{Name: "restart", Promise: "A restarted driver finds everything it held.", Run: checkRestart},
		{Name: "cancelled", Promise: "A cancelled ApplyLayer leaves nothing that hinders the next one.", Run: checkCancelled},
		{Name: "killed", Promise: "A driver killed in the middle of ApplyLayer makes the layer anew, or gives back the half of it.", Run: checkKilled},
		{Name: "side-by-side", Promise: "Different layers and containers are served side by side.", Run: checkSideBySide},
		{Name: "same-layer-at-once", Promise: "One layer asked for several times at once is one layer.", Run: checkSameLayerAtOnce},
	}
}

func checkRestart(ctx context.Context, b *bench) {
	below, above, c := base(b), top(b), conform.ID()
	apply(ctx, b, below)
	apply(ctx, b, above)
	ask := graphdriver.PrepareRootfs{Container: c, Layer: above.ID}
	Inside(b, prepare(ctx, b, ask), func(root string) { write(b, filepath.Join(root, "written"), "kept") })
	b.Reopen()
	wantItems(ctx, b, heldLayer(below.ID), heldLayer(above.ID), heldRootfs(c))
	wantLayer(ctx, b, above.ID, topTree())
	Inside(b, prepare(ctx, b, ask), func(root string) {
		if got := read(filepath.Join(root, "written")); got != "kept" {
			b.Errorf("after a restart what the container had written is %q", got)
		}
	})
	conform.WantClass(b, "RemoveLayer in use after a restart", b.Driver().RemoveLayer(ctx, above.ID), "failed-precondition")
	b.Reopen()
	for _, step := range []func() error{
		func() error { return b.Driver().ReleaseRootfs(ctx, c) },
		func() error { return b.Driver().RemoveLayer(ctx, above.ID) },
		func() error { return b.Driver().RemoveLayer(ctx, below.ID) },
	} {
		if err := step(); err != nil {
			b.Errorf("give back after a restart: %v", err)
		}
		b.Reopen()
	}
	wantItems(ctx, b)
}

// large is a layer that takes a while: many files that do not compress.
func large(t conform.T) (graphdriver.ApplyLayer, []string) {
	t.Helper()
	source := rand.New(rand.NewPCG(1, 2))
	entries, want := []entry{dir("many")}, []string{"many drwxr-xr-x 0:0"}
	content := make([]byte, 16<<10)
	for i := range 600 {
		for j := range content {
			content[j] = byte(source.Uint32())
		}
		name := fmt.Sprintf("many/%03d", i)
		entries = append(entries, file(name, string(content)))
		want = append(want, fmt.Sprintf("%s -rw-r--r-- 0:0 %s", name, digestOf(content)))
	}
	return archive(t, "", entries...), want
}

func checkCancelled(ctx context.Context, b *bench) {
	r, want := large(b)
	for _, after := range []time.Duration{0, 2 * time.Millisecond, 20 * time.Millisecond} {
		short, cancel := context.WithTimeout(ctx, after)
		_, err := b.Driver().ApplyLayer(short, r, nothing)
		cancel()
		b.Logf("cancelled after %v: %v", after, err)
	}
	apply(ctx, b, r)
	wantLayer(ctx, b, r.ID, want)
}

func checkKilled(ctx context.Context, b *bench) {
	r, want := large(b)
	if !b.CanKill() {
		b.Logf("not a process: cancelled and reopened instead of killed")
	}
	for _, after := range []time.Duration{0, 5 * time.Millisecond, 30 * time.Millisecond, 80 * time.Millisecond} {
		half, cancel := context.WithCancel(ctx)
		d, ended := b.Driver(), make(chan error, 1)
		go func() {
			_, err := d.ApplyLayer(half, r, nothing)
			ended <- err
		}()
		time.Sleep(after)
		if b.CanKill() {
			b.Kill()
			b.Logf("killed after %v: %v", after, <-ended)
			cancel()
		} else {
			cancel()
			b.Logf("cancelled after %v: %v", after, <-ended)
			b.Reopen()
		}
		for _, i := range items(ctx, b) {
			if i != heldLayer(r.ID) {
				b.Errorf("after the kill List tells %+v", i)
			}
		}
	}
	apply(ctx, b, r)
	wantLayer(ctx, b, r.ID, want)
	if err := b.Driver().RemoveLayer(ctx, r.ID); err != nil {
		b.Errorf("RemoveLayer: %v", err)
	}
	wantItems(ctx, b)
}

func checkSideBySide(ctx context.Context, b *bench) {
	d := b.Driver()
	var wg sync.WaitGroup
	for i := range 8 {
		r := archive(b, "", file(fmt.Sprintf("f%d", i), "x"))
		wg.Go(func() {
			for range 3 {
				c := conform.ID()
				if _, err := d.ApplyLayer(ctx, r, nothing); err != nil {
					b.Errorf("ApplyLayer side by side: %v", err)
				}
				if _, err := d.PrepareRootfs(ctx, graphdriver.PrepareRootfs{Container: c, Layer: r.ID}); err != nil {
					b.Errorf("PrepareRootfs side by side: %v", err)
				}
				if _, err := d.List(ctx); err != nil {
					b.Errorf("List side by side: %v", err)
				}
				if err := d.ReleaseRootfs(ctx, c); err != nil {
					b.Errorf("ReleaseRootfs side by side: %v", err)
				}
				if err := d.RemoveLayer(ctx, r.ID); err != nil {
					b.Errorf("RemoveLayer side by side: %v", err)
				}
			}
		})
	}
	wg.Wait()
	wantItems(ctx, b)
}

func checkSameLayerAtOnce(ctx context.Context, b *bench) {
	r, want := large(b)
	d := b.Driver()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if l, err := d.ApplyLayer(ctx, r, nothing); err != nil || l.ID != r.ID {
				b.Errorf("ApplyLayer, three at once: %+v, %v", l, err)
			}
		})
	}
	wg.Wait()
	wantItems(ctx, b, heldLayer(r.ID))
	wantLayer(ctx, b, r.ID, want)
}
