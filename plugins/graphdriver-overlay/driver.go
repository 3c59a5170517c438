package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
	"github.com/gantryd/gantry/sdk/layerstore"
	"github.com/gantryd/gantry/sdk/layertar"
)

// version is the driver's own.
const version = "0.1.0"

// emptySkeleton stands at the bottom of a root filesystem without layers and
// targets: overlayfs wants one lower directory.
const emptySkeleton = "empty"

// Driver is the overlay graph driver.
type Driver struct {
	store    *layerstore.Store
	pool     *pool
	root     string
	further  []string // mount options that this kernel's defaults make necessary
	warnings []string
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
	return &Driver{
		store:    store,
		pool:     newPool(store),
		root:     cfg.Root,
		further:  furtherOptions(os.ReadFile),
		warnings: probe(cfg.Root),
	}, nil
}

// Close waits for what runs and ends work in the background.
func (d *Driver) Close() error {
	d.store.Drain()
	d.pool.close()
	return d.store.Close()
}

// Info introduces the driver.
func (d *Driver) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "overlay", Version: version, Abilities: []string{graphdriver.AbilityDiff, graphdriver.AbilityChanges}, Warnings: slices.Clone(d.warnings)}, nil
}

// ApplyLayer unpacks a layer on top of its parent.
func (d *Driver) ApplyLayer(ctx context.Context, r graphdriver.ApplyLayer, p driver.Progress) (graphdriver.Layer, error) {
	l, err := d.store.MakeLayer(ctx, r.ID, r.Parent, func(stage string, parent layerstore.Layer) (layerstore.Layer, error) {
		l := layerstore.Layer{ID: r.ID, Parent: r.Parent, Hides: parent.Hides}
		if parent.ID != "" {
			l.Lowers = append([]string{layerstore.Name(parent.ID)}, parent.Lowers...)
		}
		if len(l.Lowers) >= maxLowers-1 { // one more for the skeleton
			return l, driver.Errorf(errdefs.ErrInvalidArgument, "layer %s is the %dth, overlayfs takes %d", r.ID, len(l.Lowers)+1, maxLowers-1)
		}
		err := d.fillLayer(ctx, stage, &l, r, p)
		return l, err
	})
	return graphdriver.Layer{ID: l.ID, Size: l.Size}, err
}

// fillLayer unpacks the archive into stage and commits it.
func (d *Driver) fillLayer(ctx context.Context, stage string, l *layerstore.Layer, r graphdriver.ApplyLayer, p driver.Progress) error {
	blob, size, err := layertar.OpenBlob(r.Archive)
	if err != nil {
		return err
	}
	defer blob.Close()
	fs, err := makeDir(filepath.Join(stage, "fs"))
	if err != nil {
		return err
	}
	defer fs.Close()
	o := layertar.Options{Whiteouts: layertar.Overlay, Digest: r.Digest, DiffID: r.DiffID, Size: size, Progress: p}
	for _, name := range l.Lowers {
		lower, err := os.Open(d.layerFS(name))
		if err != nil {
			return fmt.Errorf("open lower layer: %w", err)
		}
		defer lower.Close()
		o.Lowers = append(o.Lowers, lower)
	}
	res, err := layertar.Unpack(ctx, fs, blob, o)
	if err != nil {
		return fmt.Errorf("unpack layer %s: %w", r.ID, err)
	}
	l.Hides = l.Hides || res.Hides
	if res.OpaqueRoot {
		l.Lowers = nil
	}
	l.Size, l.Digest, l.DiffID = res.Size, res.Digest, res.DiffID
	return d.store.CommitLayer(stage, *l, func() {
		if p != nil {
			p(size, size, "sync")
		}
	})
}

func (d *Driver) layerFS(name string) string { return filepath.Join(d.store.LayerDir(name), "fs") }

func makeDir(path string) (*os.File, error) {
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, layerstore.Class("make directory", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	return f, nil
}

// RemoveLayer gives a layer back.
func (d *Driver) RemoveLayer(ctx context.Context, id string) error {
	return d.store.RemoveLayer(ctx, id)
}

// PrepareRootfs makes upper and work directory and says how to mount them.
func (d *Driver) PrepareRootfs(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
	if r.Container == "" {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "root filesystem without a container")
	}
	unlock, err := d.store.Lock(ctx, "rootfs "+r.Container)
	if err != nil {
		return nil, err
	}
	defer unlock()
	held, isHeld := d.store.Rootfs(r.Container)
	if isHeld && held.Targets != nil && !held.IDMap.Equal(r.IDMap) {
		return nil, driver.Errorf(errdefs.ErrFailedPrecondition, "root filesystem of %s is held under another id map", r.Container)
	}
	if isHeld && held.Layer != r.Layer && held.Targets != nil {
		return nil, driver.Errorf(errdefs.ErrFailedPrecondition, "root filesystem of %s stands on layer %q, not %q", r.Container, held.Layer, r.Layer)
	}
	_, done, err := d.store.Use(r.Layer)
	if err != nil {
		return nil, err
	}
	defer done()
	lowers, err := d.lowers(r.Layer)
	if err != nil {
		return nil, err
	}
	name, err := d.skeleton(ctx, r.Targets, len(lowers) == 0)
	if err != nil {
		return nil, err
	}
	all := lowers
	if name != "" {
		all = append(slices.Clone(lowers), d.store.SharedDir(name))
	}
	m, err := planMount(all, d.store.RootfsDir(r.Container), d.further)
	if err != nil {
		return nil, err
	}
	if !r.IDMap.IsZero() { // the layers are shared; what is written belongs to the mapped ids
		m.Options = append(m.Options, driver.OptionIDMap)
	}
	want := layerstore.Rootfs{Container: r.Container, Layer: r.Layer, IDMap: r.IDMap, Shared: name, Targets: slices.Clone(r.Targets)}
	if want.Targets == nil {
		want.Targets = []driver.Target{}
	}
	switch {
	case !isHeld:
		err = d.makeRootfs(want, lowers)
	case held.Targets == nil || !slices.Equal(held.Targets, want.Targets):
		want.Made = held.Made
		if err = d.makeHidden(filepath.Join(d.store.RootfsDir(r.Container), "upper"), &want, lowers); err == nil {
			err = d.store.RewriteRootfs(want)
		}
	}
	if err != nil {
		return nil, err
	}
	return []driver.Mount{m}, nil
}

// lowers lists the directories of a layer and those below it, top first.
func (d *Driver) lowers(layer string) ([]string, error) {
	if layer == "" {
		return nil, nil
	}
	l, ok := d.store.Layer(layer)
	if !ok {
		return nil, driver.Errorf(errdefs.ErrNotFound, "layer %s is not there", layer)
	}
	out := []string{d.layerFS(layerstore.Name(layer))}
	for _, name := range l.Lowers {
		out = append(out, d.layerFS(name))
	}
	return out, nil
}

// skeleton makes the skeleton of targets, if it is not there, and names it.
func (d *Driver) skeleton(ctx context.Context, targets []driver.Target, needed bool) (string, error) {
	name, entries, err := planSkeleton(targets)
	if err != nil {
		return "", err
	}
	if name == "" && needed {
		name = emptySkeleton
	}
	if name == "" {
		return "", nil
	}
	err = d.store.Share(ctx, name, func(dir string) error { return fillSkeleton(dir, entries) })
	if err != nil {
		return "", fmt.Errorf("make skeleton: %w", err)
	}
	return name, nil
}

// fillSkeleton makes mount points in a directory that nobody else has seen
// yet, so that paths are safe here.
func fillSkeleton(dir string, entries []driver.Target) error {
	for _, t := range entries {
		p := filepath.Join(dir, t.Path)
		mode := os.FileMode(0o755)
		var err error
		if t.File {
			mode = 0o644
			err = os.WriteFile(p, nil, mode)
		} else {
			err = os.Mkdir(p, mode)
		}
		if err == nil {
			err = os.Chmod(p, mode) // whatever the umask is
		}
		if err != nil {
			return layerstore.Class("make target "+t.Path, err)
		}
	}
	return layerstore.Class("make skeleton", os.Chmod(dir, 0o755))
}

// makeRootfs makes a root filesystem. The root of an overlay shows the
// attributes of the upper directory, so it gets those of the topmost layer.
func (d *Driver) makeRootfs(r layerstore.Rootfs, lowers []string) error {
	stage, err := d.pool.take()
	if err != nil {
		return err
	}
	err = d.fillRootfs(stage, lowers, r.IDMap)
	if err == nil {
		err = d.makeHidden(filepath.Join(stage, "upper"), &r, lowers)
	}
	if err == nil {
		err = d.store.CommitRootfs(stage, r)
	}
	if err != nil {
		return errors.Join(err, d.store.Discard(stage))
	}
	return nil
}

// fillRootfs describes the upper directory as the topmost layer's root is, for
// whom its owner in the image is on the host: overlayfs itself does not map it.
func (d *Driver) fillRootfs(stage string, lowers []string, m driver.IDMap) error {
	if len(lowers) == 0 && m.IsZero() {
		return nil
	}
	upper, err := os.Open(filepath.Join(stage, "upper"))
	if err != nil {
		return fmt.Errorf("open upper directory: %w", err)
	}
	defer upper.Close()
	if len(lowers) == 0 {
		return giveToRoot(upper, m)
	}
	top, err := os.Open(lowers[0])
	if err != nil {
		return fmt.Errorf("open topmost layer: %w", err)
	}
	defer top.Close()
	return layertar.CopyAttributes(top, upper, m)
}

// giveToRoot gives a directory to the container's root.
func giveToRoot(dir *os.File, m driver.IDMap) error {
	uid, gid, err := layertar.MapOwner(m, 0, 0)
	if err != nil {
		return err
	}
	return layerstore.Class("own upper directory", dir.Chown(uid, gid))
}

// makeHidden makes targets in the upper directory that a skeleton cannot show,
// since the image has deleted them, and remembers them in r.
func (d *Driver) makeHidden(upper string, r *layerstore.Rootfs, lowers []string) error {
	if top, ok := d.store.Layer(r.Layer); !ok || !top.Hides || len(r.Targets) == 0 {
		return nil
	}
	var layers []*os.File
	for _, dir := range append([]string{upper}, lowers...) {
		f, err := os.Open(dir)
		if err != nil {
			return fmt.Errorf("open layer: %w", err)
		}
		defer f.Close()
		layers = append(layers, f)
	}
	hidden, err := layertar.HiddenTargets(layers[1:], r.Targets)
	if err != nil {
		return err
	}
	for _, t := range hidden {
		made, err := layertar.MakeTarget(layers[0], t, r.IDMap, layers[1:]...)
		r.Made = append(r.Made, made...)
		if err != nil {
			return err
		}
	}
	return nil
}

// ReleaseRootfs removes what the container has written.
func (d *Driver) ReleaseRootfs(ctx context.Context, container string) error {
	return d.store.ReleaseRootfs(ctx, container)
}

// List tells every layer and root filesystem.
func (d *Driver) List(context.Context) ([]driver.Item, error) { return d.store.List(), nil }

// Diff writes what the container has written as a layer tar.
func (d *Driver) Diff(ctx context.Context, container string, w io.Writer) error {
	r, ok := d.store.Rootfs(container)
	if !ok {
		return driver.Errorf(errdefs.ErrNotFound, "root filesystem of %s is not there", container)
	}
	upper, err := os.Open(filepath.Join(d.store.RootfsDir(container), "upper"))
	if err != nil {
		return fmt.Errorf("open upper directory: %w", err)
	}
	defer upper.Close()
	skip, err := d.skeletonOnly(r)
	if err != nil {
		return err
	}
	return layertar.WriteOverlayDiff(ctx, w, upper, diffOptions(r, skip))
}

// diffOptions leave out what is ours.
func diffOptions(r layerstore.Rootfs, skip func(string) bool) layertar.DiffOptions {
	ours := func(path string, size int64) bool { return size == 0 && slices.Contains(r.Made, path) }
	return layertar.DiffOptions{IDMap: r.IDMap, SkipWhiteout: skip, SkipNew: ours}
}

// Changes lists the paths that the container has changed.
func (d *Driver) Changes(ctx context.Context, container string) ([]graphdriver.Change, error) {
	r, ok := d.store.Rootfs(container)
	if !ok {
		return nil, driver.Errorf(errdefs.ErrNotFound, "root filesystem of %s is not there", container)
	}
	skip, err := d.skeletonOnly(r)
	if err != nil {
		return nil, err
	}
	lowers, err := d.lowers(r.Layer)
	if err != nil {
		return nil, err
	}
	var layers []*os.File
	for _, dir := range append([]string{filepath.Join(d.store.RootfsDir(container), "upper")}, lowers...) {
		f, err := os.Open(dir)
		if err != nil {
			return nil, fmt.Errorf("open layer: %w", err)
		}
		defer f.Close()
		layers = append(layers, f)
	}
	list, err := layertar.OverlayChanges(ctx, layers[0], layers[1:], diffOptions(r, skip))
	if err != nil {
		return nil, err
	}
	out := make([]graphdriver.Change, 0, len(list))
	for _, c := range list {
		out = append(out, graphdriver.Change{Kind: c.Kind, Path: c.Path})
	}
	return out, nil
}

// skeletonOnly returns a function that reports whether a path is in the
// skeleton and in no layer: a whiteout of it hides nothing of the image's.
func (d *Driver) skeletonOnly(r layerstore.Rootfs) (func(string) bool, error) {
	lowers, err := d.lowers(r.Layer)
	if err != nil {
		return nil, err
	}
	_, entries, err := planSkeleton(r.Targets)
	if err != nil {
		return nil, err
	}
	ours := make(map[string]bool)
	for _, t := range entries {
		ours[t.Path[1:]] = true
	}
	return func(path string) bool {
		if !ours[path] {
			return false
		}
		return !slices.ContainsFunc(lowers, func(lower string) bool { return existsBelow(lower, path) })
	}, nil
}

// existsBelow reports whether a layer has path, without following its links.
func existsBelow(dir, path string) bool {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	found, err := unix.Openat2(fd, path, &how)
	if err != nil {
		return false
	}
	unix.Close(found)
	return true
}
