package graphtest

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

func linkCount(info os.FileInfo) uint64 { return uint64(info.Sys().(*syscall.Stat_t).Nlink) }

func rootfsChecks() []check {
	return []check{
		{Name: "prepare", Promise: "PrepareRootfs makes a writable root filesystem and mounts nothing itself.", Run: checkPrepare},
		{Name: "prepare-empty", Promise: "Without a layer the root filesystem is empty and writable.", Run: checkPrepareEmpty},
		{Name: "prepare-repeated", Promise: "PrepareRootfs, repeated, answers with the same mounts and keeps what the container has written.", Run: checkPrepareRepeated},
		{Name: "prepare-targets", Promise: "Mount points that were asked for exist; what the image has there stays.", Run: checkTargets},
		{Name: "prepare-id-map", Promise: "An id map is served, or refused as Unimplemented.", Run: checkIDMap},
		{Name: "rootfs-apart", Promise: "Containers on one layer do not see each other's writes, and never change the layer.", Run: checkApart},
		{Name: "release", Promise: "ReleaseRootfs removes what the container has written, may be repeated, and succeeds for what is not held.", Run: checkRelease},
	}
}

func checkPrepare(ctx context.Context, b *bench) {
	r, c := base(b), conform.ID()
	apply(ctx, b, r)
	mounts := prepare(ctx, b, graphdriver.PrepareRootfs{Container: c, Layer: r.ID})
	if len(mounts) == 0 || mounts[0].Target != "/" {
		b.Fatalf("PrepareRootfs answered %+v, want a mount at / first", mounts)
	}
	for _, dir := range []string{b.Config.Root, b.Config.Run} {
		if found := mountsBelow(b, dir); len(found) > 0 {
			b.Errorf("the driver has mounted something itself: %v", found)
		}
	}
	wantItems(ctx, b, heldLayer(r.ID), heldRootfs(c))
	Inside(b, mounts, func(root string) {
		write(b, filepath.Join(root, "etc/name"), "changed")
		write(b, filepath.Join(root, "new"), "new")
		if err := os.RemoveAll(filepath.Join(root, "data")); err != nil {
			b.Errorf("remove a directory in the root filesystem: %v", err)
		}
		if err := os.Rename(filepath.Join(root, "bin/tool"), filepath.Join(root, "tool")); err != nil {
			b.Errorf("rename a file in the root filesystem: %v", err)
		}
	})
	Inside(b, mounts, func(root string) {
		for name, want := range map[string]string{
			"etc/name": "changed", "new": "new", "data/old": "(absent)", "tool": "tool", "bin/tool": "(absent)",
		} {
			if got := read(filepath.Join(root, name)); got != want {
				b.Errorf("mounted again, %s is %q, want %q", name, got, want)
			}
		}
	})
}

func checkPrepareEmpty(ctx context.Context, b *bench) {
	mounts := prepare(ctx, b, graphdriver.PrepareRootfs{Container: conform.ID()})
	Inside(b, mounts, func(root string) {
		wantTree(b, "empty root filesystem", tree(b, root), nil)
		write(b, filepath.Join(root, "f"), "f")
	})
	Inside(b, mounts, func(root string) {
		wantTree(b, "after a write", tree(b, root), []string{`f -rw-r--r-- 0:0 "f"`})
	})
}

func checkPrepareRepeated(ctx context.Context, b *bench) {
	r := base(b)
	apply(ctx, b, r)
	ask := graphdriver.PrepareRootfs{
		Container: conform.ID(), Layer: r.ID,
		Targets: []driver.Target{{Path: "/proc"}, {Path: "/etc/hosts", File: true}},
	}
	first := prepare(ctx, b, ask)
	Inside(b, first, func(root string) { write(b, filepath.Join(root, "written"), "kept") })
	for _, when := range []string{"repeated", "after a restart"} {
		again := prepare(ctx, b, ask)
		if !reflect.DeepEqual(again, first) {
			b.Errorf("PrepareRootfs %s answered\n\t%+v, first\n\t%+v", when, again, first)
		}
		Inside(b, again, func(root string) {
			if got := read(filepath.Join(root, "written")); got != "kept" {
				b.Errorf("%s, what the container had written is %q", when, got)
			}
		})
		b.Reopen()
	}
	wantItems(ctx, b, heldLayer(r.ID), heldRootfs(ask.Container))
}

func checkTargets(ctx context.Context, b *bench) {
	r := base(b)
	apply(ctx, b, r)
	for _, layer := range []string{r.ID, ""} {
		mounts := prepare(ctx, b, graphdriver.PrepareRootfs{
			Container: conform.ID(), Layer: layer,
			Targets: []driver.Target{
				{Path: "/proc"}, {Path: "/var/lib/deep"}, {Path: "/etc"},
				{Path: "/etc/hosts", File: true}, {Path: "/etc/name", File: true}, {Path: "/run/new/file", File: true},
			},
		})
		Inside(b, mounts, func(root string) {
			for _, name := range []string{"proc", "var/lib/deep", "etc"} {
				if info, err := os.Lstat(filepath.Join(root, name)); err != nil || !info.IsDir() || info.Mode().Perm() != 0o755 {
					b.Errorf("mount point /%s: %v, %v; want a directory of mode 0755", name, info, err)
				}
			}
			want := map[string]string{"etc/hosts": "", "run/new/file": "", "etc/name": ""}
			if layer != "" {
				want["etc/name"], want["etc/removed"] = "base\n", "here\n"
			}
			for name, content := range want {
				if got := read(filepath.Join(root, name)); got != content {
					b.Errorf("mount point /%s is %q, want %q", name, got, content)
				}
			}
		})
	}
}

func checkIDMap(ctx context.Context, b *bench) {
	r := base(b)
	apply(ctx, b, r)
	ids := []driver.IDMapping{{Container: 0, Host: 200_000, Size: 65536}}
	ask := graphdriver.PrepareRootfs{Container: conform.ID(), Layer: r.ID, IDMap: driver.IDMap{UIDs: ids, GIDs: ids}}
	first, err := b.Driver().PrepareRootfs(ctx, ask)
	if err != nil {
		conform.WantClass(b, "PrepareRootfs with an id map", err, "unimplemented")
		b.Logf("this driver serves no id maps: %v", err)
		return
	}
	if again := prepare(ctx, b, ask); !reflect.DeepEqual(again, first) {
		b.Errorf("PrepareRootfs repeated answered\n\t%+v, first\n\t%+v", again, first)
	}
}

func checkApart(ctx context.Context, b *bench) {
	r := base(b)
	apply(ctx, b, r)
	one := prepare(ctx, b, graphdriver.PrepareRootfs{Container: conform.ID(), Layer: r.ID})
	two := prepare(ctx, b, graphdriver.PrepareRootfs{Container: conform.ID(), Layer: r.ID})
	Inside(b, one, func(root string) {
		write(b, filepath.Join(root, "etc/name"), "one")
		// Appending in place reaches a shared inode, if there is one.
		f, err := os.OpenFile(filepath.Join(root, "etc/removed"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			b.Errorf("append in the root filesystem: %v", err)
			return
		}
		defer f.Close()
		f.WriteString("more")
		os.Chmod(filepath.Join(root, "data/old"), 0o600)
	})
	Inside(b, two, func(root string) { wantTree(b, "the other container", tree(b, root), baseTree()) })
	wantLayer(ctx, b, r.ID, baseTree())
}

func checkRelease(ctx context.Context, b *bench) {
	r, c := base(b), conform.ID()
	d := b.Driver()
	if err := d.ReleaseRootfs(ctx, c); err != nil {
		b.Errorf("ReleaseRootfs of what is not held: %v", err)
	}
	apply(ctx, b, r)
	ask := graphdriver.PrepareRootfs{Container: c, Layer: r.ID}
	Inside(b, prepare(ctx, b, ask), func(root string) {
		write(b, filepath.Join(root, "written"), "written")
		os.Remove(filepath.Join(root, "etc/name"))
	})
	for range 2 {
		if err := d.ReleaseRootfs(ctx, c); err != nil {
			b.Errorf("ReleaseRootfs: %v", err)
		}
		wantItems(ctx, b, heldLayer(r.ID))
	}
	Inside(b, prepare(ctx, b, ask), func(root string) {
		wantTree(b, "prepared again after the release", tree(b, root), baseTree())
	})
	if _, err := d.PrepareRootfs(ctx, ask); errdefs.IsNotFound(err) {
		b.Errorf("the layer is gone with the root filesystem: %v", err)
	}
}
