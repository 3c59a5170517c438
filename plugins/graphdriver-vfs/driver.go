// Package vfs is the graph driver that works everywhere and shares nothing: a
// layer is a whole copy of the one below with the layer applied, a root
// filesystem a whole copy of its topmost layer. Where the filesystem can share
// blocks between files (btrfs, xfs), copies cost little space; elsewhere they
// cost all of it. It is for filesystems on which overlayfs cannot work, and
// for comparing.
//
// Below its root directory (package layerstore has the rest):
//
//	layers/NAME/layer.json   what the layer is
//	layers/NAME/fs/          the layer on top of all below it
//	rootfs/ID/rootfs.json    which layer and which targets
//	rootfs/ID/fs/            the container's own copy
//
// Targets that the image lacks are made in the container's copy and
// remembered, so that Diff leaves them out as long as nothing was put there.
package vfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
	"github.com/gantryd/gantry/sdk/layerstore"
	"github.com/gantryd/gantry/sdk/layertar"
)

// version is the driver's own.
const version = "0.1.0"

// Driver is the vfs graph driver.
type Driver struct {
	store *layerstore.Store
	root  string
}

var (
	_ graphdriver.Driver = (*Driver)(nil)
	_ graphdriver.Differ = (*Driver)(nil)
	_ io.Closer          = (*Driver)(nil)
)

// New opens the driver on the directory cfg.Root. The value also implements
// graphdriver.Differ and io.Closer.
func New(cfg driver.Config) (graphdriver.Driver, error) {
	store, err := layerstore.Open(cfg.Root, cfg.EngineID)
	if err != nil {
		return nil, err
	}
	return &Driver{store: store, root: cfg.Root}, nil
}

// Close waits for what runs and ends work in the background.
func (d *Driver) Close() error { return d.store.Close() }

// Info introduces the driver.
func (d *Driver) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "vfs", Version: version, Abilities: []string{graphdriver.AbilityDiff, graphdriver.AbilityChanges}}, nil
}

// ApplyLayer copies the parent and unpacks a layer over it.
func (d *Driver) ApplyLayer(ctx context.Context, r graphdriver.ApplyLayer, p driver.Progress) (graphdriver.Layer, error) {
	l, err := d.store.MakeLayer(ctx, r.ID, r.Parent, func(stage string, _ layerstore.Layer) (layerstore.Layer, error) {
		return d.fillLayer(ctx, stage, r, p)
	})
	return graphdriver.Layer{ID: l.ID, Size: l.Size}, err
}

// fillLayer copies the parent into stage, unpacks over it and commits.
func (d *Driver) fillLayer(ctx context.Context, stage string, r graphdriver.ApplyLayer, p driver.Progress) (layerstore.Layer, error) {
	tell := func(done, total int64, what string) {
		if p != nil {
			p(done, total, what)
		}
	}
	blob, size, err := layertar.OpenBlob(r.Archive)
	if err != nil {
		return layerstore.Layer{}, err
	}
	defer blob.Close()
	fs, err := d.copyLayer(ctx, r.Parent, filepath.Join(stage, "fs"), driver.IDMap{}, func(n int64) { tell(0, size, "copy") })
	if err != nil {
		return layerstore.Layer{}, err
	}
	defer fs.Close()
	res, err := layertar.Unpack(ctx, fs, blob, layertar.Options{
		Whiteouts: layertar.Apply, Digest: r.Digest, DiffID: r.DiffID, Size: size, Progress: p})
	if err != nil {
		return layerstore.Layer{}, fmt.Errorf("unpack layer %s: %w", r.ID, err)
	}
	l := layerstore.Layer{ID: r.ID, Parent: r.Parent, Size: res.Size, Digest: res.Digest, DiffID: res.DiffID}
	return l, d.store.CommitLayer(stage, l, func() { tell(size, size, "sync") })
}

// copyLayer makes the directory to as the layer is; without one it is empty.
func (d *Driver) copyLayer(ctx context.Context, layer, to string, m driver.IDMap, beat func(int64)) (*os.File, error) {
	if err := os.Mkdir(to, 0o755); err != nil {
		return nil, layerstore.Class("make directory", err)
	}
	dst, err := os.Open(to)
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	if layer == "" {
		err = d.describeRoot(dst, m)
	} else {
		err = d.copyInto(ctx, layer, dst, m, beat)
	}
	if err != nil {
		dst.Close()
		return nil, err
	}
	return dst, nil
}

func (d *Driver) describeRoot(dir *os.File, m driver.IDMap) error {
	uid, gid, err := layertar.MapOwner(m, 0, 0)
	if err != nil {
		return err
	}
	return layerstore.Class("make root directory", errors.Join(dir.Chown(uid, gid), dir.Chmod(0o755)))
}

func (d *Driver) copyInto(ctx context.Context, layer string, dst *os.File, m driver.IDMap, beat func(int64)) error {
	src, err := os.Open(d.layerFS(layer))
	if err != nil {
		return fmt.Errorf("open layer %s: %w", layer, err)
	}
	defer src.Close()
	if _, err := layertar.CopyTree(ctx, src, dst, m, beat); err != nil {
		return fmt.Errorf("copy layer %s: %w", layer, err)
	}
	return nil
}

func (d *Driver) layerFS(id string) string {
	return filepath.Join(d.store.LayerDir(layerstore.Name(id)), "fs")
}

// RemoveLayer gives a layer back.
func (d *Driver) RemoveLayer(ctx context.Context, id string) error {
	return d.store.RemoveLayer(ctx, id)
}

// PrepareRootfs copies the topmost layer for a container.
func (d *Driver) PrepareRootfs(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
	if r.Container == "" {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "root filesystem without a container")
	}
	unlock, err := d.store.Lock(ctx, "rootfs "+r.Container)
	if err != nil {
		return nil, err
	}
	defer unlock()
	_, done, err := d.store.Use(r.Layer)
	if err != nil {
		return nil, err
	}
	defer done()
	fs := filepath.Join(d.store.RootfsDir(r.Container), "fs")
	mounts := []driver.Mount{{Type: "bind", Source: fs, Target: "/"}}
	if held, ok := d.store.Rootfs(r.Container); ok {
		return mounts, d.keepRootfs(held, r, fs)
	}
	stage, err := d.store.Stage()
	if err != nil {
		return nil, err
	}
	if err := d.fillRootfs(ctx, stage, r); err != nil {
		return nil, errors.Join(err, d.store.Discard(stage))
	}
	return mounts, nil
}

// keepRootfs makes a root filesystem that is held what r asks for.
func (d *Driver) keepRootfs(held layerstore.Rootfs, r graphdriver.PrepareRootfs, fs string) error {
	lost := held.Targets == nil
	if !lost && !held.IDMap.Equal(r.IDMap) {
		return driver.Errorf(errdefs.ErrFailedPrecondition, "root filesystem of %s is held under another id map", r.Container)
	}
	if !lost && held.Layer != r.Layer {
		return driver.Errorf(errdefs.ErrFailedPrecondition, "root filesystem of %s stands on layer %q, not %q", r.Container, held.Layer, r.Layer)
	}
	if !lost && slices.Equal(held.Targets, r.Targets) {
		return nil
	}
	root, err := os.Open(fs)
	if err != nil {
		return fmt.Errorf("open root filesystem: %w", err)
	}
	defer root.Close()
	want := record(r)
	if want.Made, err = makeTargets(root, r); err != nil {
		return err
	}
	want.Made = append(want.Made, held.Made...)
	return d.store.RewriteRootfs(want)
}

// record is what is remembered of r. Its Targets are not nil, also if there
// are none: nil says that the record was lost.
func record(r graphdriver.PrepareRootfs) layerstore.Rootfs {
	return layerstore.Rootfs{Container: r.Container, Layer: r.Layer, IDMap: r.IDMap, Targets: append([]driver.Target{}, r.Targets...)}
}

func (d *Driver) fillRootfs(ctx context.Context, stage string, r graphdriver.PrepareRootfs) error {
	root, err := d.copyLayer(ctx, r.Layer, filepath.Join(stage, "fs"), r.IDMap, nil)
	if err != nil {
		return err
	}
	defer root.Close()
	want := record(r)
	if want.Made, err = makeTargets(root, r); err != nil {
		return err
	}
	return d.store.CommitRootfs(stage, want)
}

// makeTargets makes the targets that are not there and tells what it made.
func makeTargets(root *os.File, r graphdriver.PrepareRootfs) ([]string, error) {
	var made []string
	for _, t := range r.Targets {
		if !filepath.IsAbs(t.Path) || filepath.Clean(t.Path) != t.Path {
			return nil, driver.Errorf(errdefs.ErrInvalidArgument, "target %q is not an absolute, clean path", t.Path)
		}
		fresh, err := layertar.MakeTarget(root, t, r.IDMap)
		if err != nil {
			return nil, err
		}
		made = append(made, fresh...)
	}
	return made, nil
}

// ReleaseRootfs removes the container's copy.
func (d *Driver) ReleaseRootfs(ctx context.Context, container string) error {
	return d.store.ReleaseRootfs(ctx, container)
}

// List tells every layer and root filesystem.
func (d *Driver) List(context.Context) ([]driver.Item, error) { return d.store.List(), nil }

// Diff compares the container's copy with its layer and writes what differs
// as a layer tar.
func (d *Driver) Diff(ctx context.Context, container string, w io.Writer) error {
	return d.compare(container, func(lower, upper *os.File, o layertar.DiffOptions) error {
		return layertar.WriteDiff(ctx, w, lower, upper, o)
	})
}

// Changes lists the paths that the container has changed.
func (d *Driver) Changes(ctx context.Context, container string) ([]graphdriver.Change, error) {
	var out []graphdriver.Change
	err := d.compare(container, func(lower, upper *os.File, o layertar.DiffOptions) error {
		list, err := layertar.TreeChanges(ctx, lower, upper, o)
		for _, c := range list {
			out = append(out, graphdriver.Change{Kind: c.Kind, Path: c.Path})
		}
		return err
	})
	return out, err
}

// compare opens a container's copy and its layer, which is nil for none.
func (d *Driver) compare(container string, f func(lower, upper *os.File, o layertar.DiffOptions) error) error {
	r, ok := d.store.Rootfs(container)
	if !ok {
		return driver.Errorf(errdefs.ErrNotFound, "root filesystem of %s is not there", container)
	}
	upper, err := os.Open(filepath.Join(d.store.RootfsDir(container), "fs"))
	if err != nil {
		return fmt.Errorf("open root filesystem: %w", err)
	}
	defer upper.Close()
	var lower *os.File
	if r.Layer != "" {
		if lower, err = os.Open(d.layerFS(r.Layer)); err != nil {
			return fmt.Errorf("open layer %s: %w", r.Layer, err)
		}
		defer lower.Close()
	}
	ours := make(map[string]bool)
	for _, path := range r.Made {
		ours[path] = true
	}
	skip := func(path string, size int64) bool { return ours[path] && size == 0 }
	return f(lower, upper, layertar.DiffOptions{IDMap: r.IDMap, SkipNew: skip})
}
