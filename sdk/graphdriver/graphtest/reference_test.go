package graphtest

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
	"github.com/gantryd/gantry/sdk/layertar"
)

// reference is a good graph driver with its memory in this process: what
// "survives" a restart is kept by the world. Files are copies.
type reference struct {
	root string

	mu      sync.Mutex // guards what follows
	layers  map[string]layerRecord
	rootfs  map[string]string // container to layer
	targets map[string][]driver.Target
}

type layerRecord struct {
	parent string
	layer  graphdriver.Layer
}

// world keeps drivers over restarts, by their directory.
type world struct {
	mu      sync.Mutex // guards drivers
	drivers map[string]*reference
}

func (w *world) open(c driver.Config) *reference {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.drivers == nil {
		w.drivers = map[string]*reference{}
	}
	if w.drivers[c.Root] == nil {
		w.drivers[c.Root] = newReference(c)
	}
	return w.drivers[c.Root]
}

func newReference(c driver.Config) *reference {
	return &reference{
		root: c.Root, layers: map[string]layerRecord{},
		rootfs: map[string]string{}, targets: map[string][]driver.Target{},
	}
}

func (d *reference) dir(id string) string {
	return filepath.Join(d.root, strings.TrimPrefix(id, "sha256:"))
}

func (d *reference) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "reference", Version: "1", Abilities: []string{graphdriver.AbilityDiff, graphdriver.AbilityChanges}}, nil
}

func (d *reference) ApplyLayer(ctx context.Context, r graphdriver.ApplyLayer, _ driver.Progress) (graphdriver.Layer, error) {
	return d.applyWith(ctx, r, layertar.Options{Whiteouts: layertar.Apply, Digest: r.Digest, DiffID: r.DiffID})
}

// applyWith lets a flawed driver unpack in other ways.
func (d *reference) applyWith(ctx context.Context, r graphdriver.ApplyLayer, o layertar.Options) (graphdriver.Layer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l, ok := d.layers[r.ID]; ok {
		return l.layer, nil
	}
	dir := d.dir(r.ID)
	if err := d.copyFrom(r.Parent, dir); err != nil {
		return graphdriver.Layer{}, err
	}
	size, err := unpack(ctx, dir, r.Archive, o)
	if err != nil {
		return graphdriver.Layer{}, errors.Join(err, os.RemoveAll(dir))
	}
	d.layers[r.ID] = layerRecord{r.Parent, graphdriver.Layer{ID: r.ID, Size: size}}
	return d.layers[r.ID].layer, nil
}

func unpack(ctx context.Context, dir, archive string, o layertar.Options) (int64, error) {
	blob, err := os.Open(archive)
	if err != nil {
		return 0, err
	}
	defer blob.Close()
	into, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer into.Close()
	u, err := layertar.Unpack(ctx, into, blob, o)
	return u.Size, err
}

func (d *reference) copyFrom(layer, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if layer == "" {
		return os.Mkdir(to, 0o755)
	}
	if _, ok := d.layers[layer]; !ok {
		return driver.Errorf(errdefs.ErrNotFound, "layer %s is not held", layer)
	}
	return exec.Command("cp", "-a", d.dir(layer), to).Run()
}

func (d *reference) RemoveLayer(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for other, l := range d.layers {
		if l.parent == id {
			return driver.Errorf(errdefs.ErrFailedPrecondition, "layer %s is under %s", id, other)
		}
	}
	for c, l := range d.rootfs {
		if l == id {
			return driver.Errorf(errdefs.ErrFailedPrecondition, "layer %s is under container %s", id, c)
		}
	}
	delete(d.layers, id)
	return os.RemoveAll(d.dir(id))
}

func (d *reference) PrepareRootfs(_ context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
	if !r.IDMap.IsZero() {
		return nil, driver.Errorf(errdefs.ErrNotImplemented, "the reference driver has no id maps")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.rootfs[r.Container]; !ok {
		if err := d.copyFrom(r.Layer, d.dir(r.Container)); err != nil {
			return nil, err
		}
		made, err := d.makeTargets(r)
		if err != nil {
			return nil, err
		}
		d.rootfs[r.Container], d.targets[r.Container] = r.Layer, made
	}
	return []driver.Mount{{Type: "bind", Source: d.dir(r.Container), Target: "/", Options: []string{"rbind"}}}, nil
}

// makeTargets makes the mount points that are missing and tells which.
func (d *reference) makeTargets(r graphdriver.PrepareRootfs) ([]driver.Target, error) {
	root, err := os.OpenRoot(d.dir(r.Container))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var made []driver.Target
	for _, t := range r.Targets {
		name := t.Path[1:]
		if _, err := root.Stat(name); err == nil {
			continue
		}
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			if _, err := root.Stat(dir); err != nil {
				made = append(made, driver.Target{Path: "/" + dir})
			}
		}
		made = append(made, t)
		if t.File {
			err = errors.Join(root.MkdirAll(filepath.Dir(name), 0o755), root.WriteFile(name, nil, 0o644))
		} else {
			err = root.MkdirAll(name, 0o755)
		}
		if err != nil {
			return nil, err
		}
	}
	return made, nil
}

func (d *reference) ReleaseRootfs(_ context.Context, container string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.rootfs, container)
	delete(d.targets, container)
	return os.RemoveAll(d.dir(container))
}

func (d *reference) List(context.Context) ([]driver.Item, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var items []driver.Item
	for id := range d.layers {
		items = append(items, driver.Item{Kind: "layer", Key: id, State: "held"})
	}
	for id := range d.rootfs {
		items = append(items, driver.Item{Kind: "rootfs", Key: id, State: "held"})
	}
	return items, nil
}

// Diff compares the container's copy with its layer's, file by file.
func (d *reference) Diff(_ context.Context, container string, w io.Writer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	layer, ok := d.rootfs[container]
	if !ok {
		return driver.Errorf(errdefs.ErrNotFound, "container %s has no root filesystem", container)
	}
	t := tar.NewWriter(w)
	if err := d.diff(t, d.dir(layer), d.dir(container), d.targets[container]); err != nil {
		return err
	}
	return t.Close()
}

// Changes compares as Diff does, and tells the directories above what differs.
func (d *reference) Changes(_ context.Context, container string) ([]graphdriver.Change, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	layer, ok := d.rootfs[container]
	if !ok {
		return nil, driver.Errorf(errdefs.ErrNotFound, "container %s has no root filesystem", container)
	}
	before, now, kinds := map[string]string{}, map[string]string{}, map[string]string{}
	err := walk(d.dir(layer), func(name, line string) error { before[name] = line; return nil })
	if err == nil {
		err = walk(d.dir(container), func(name, line string) error { now[name] = line; return nil })
	}
	for name, line := range now {
		isTarget := slices.ContainsFunc(d.targets[container], func(t driver.Target) bool {
			return t.Path == "/"+name || strings.HasPrefix(t.Path, "/"+name+"/")
		})
		if old, was := before[name]; !was && !isTarget {
			kinds[name] = "A"
		} else if was && old != line {
			kinds[name] = "C"
		}
	}
	for name := range before {
		_, is := now[name]
		if _, parent := now[filepath.Dir(name)]; !is && (parent || filepath.Dir(name) == ".") {
			kinds[name] = "D"
		}
	}
	for name := range maps.Clone(kinds) {
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			if _, was := before[dir]; was && kinds[dir] == "" {
				kinds[dir] = "C"
			}
		}
	}
	var out []graphdriver.Change
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		out = append(out, graphdriver.Change{Kind: kinds[name], Path: "/" + name})
	}
	return out, err
}

func (d *reference) diff(t *tar.Writer, below, above string, skip []driver.Target) error {
	now, before := map[string]bool{}, map[string]bool{}
	err := walk(above, func(name, line string) error {
		now[name] = true
		isTarget := slices.ContainsFunc(skip, func(t driver.Target) bool { return t.Path == "/"+name })
		if old, err := describe(filepath.Join(below, name), name); isTarget || err == nil && old == line {
			return nil
		}
		return addFile(t, above, name)
	})
	if err != nil {
		return err
	}
	return walk(below, func(name, _ string) error {
		before[name] = true
		if now[name] || before[filepath.Dir(name)] && !now[filepath.Dir(name)] {
			return nil
		}
		dir, base := filepath.Split(name)
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dir + ".wh." + base, Mode: 0o644})
	})
}

// walk calls f with the name and description of every file below root.
func walk(root string, f func(name, line string) error) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		line, err := describe(path, name)
		if err != nil {
			return err
		}
		return f(name, line)
	})
}

func addFile(t *tar.Writer, root, name string) error {
	path := filepath.Join(root, name)
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	to, _ := os.Readlink(path)
	h, err := tar.FileInfoHeader(info, to)
	if err != nil {
		return err
	}
	h.Name = name
	if err := t.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = t.Write(raw)
	return err
}

// untar writes what a tar says wherever it says.
func untar(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := dir + "/" + h.Name
		switch h.Typeflag {
		case tar.TypeDir:
			os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			os.Symlink(h.Linkname, path)
		case tar.TypeLink:
			os.Link(dir+"/"+h.Linkname, path)
		default:
			raw, _ := io.ReadAll(r)
			os.WriteFile(path, raw, 0o644)
		}
	}
}
