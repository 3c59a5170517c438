// Command gantry-graphdriver-copy is a whole graph driver to read and to start
// from. A layer is a directory with a copy of the layer below and the layer
// unpacked over it; a root filesystem is a copy of its topmost layer.
//
//	Root/layer/=ID/{fs,meta.json}    a layer; complete, because it was renamed
//	Root/rootfs/=ID/{fs,meta.json}   what a container writes to
//	Root/tmp/                        what is being made; void after a crash
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
	"github.com/gantryd/gantry/sdk/layertar"
)

func main() { os.Exit(graphdriver.Main(open)) }

// copyDriver does one thing at a time, which is the simplest way to be right.
type copyDriver struct {
	root string
	mu   sync.Mutex // held by every method that changes something
}

// meta is what meta.json says of its directory. The parent of a root
// filesystem is its topmost layer.
type meta struct {
	ID, Parent string
	Size       int64
}

func open(c driver.Config) (graphdriver.Driver, error) {
	d := &copyDriver{root: c.Root}
	err := os.RemoveAll(d.dir("tmp"))
	for _, kind := range []string{"layer", "rootfs", "tmp"} {
		err = errors.Join(err, os.MkdirAll(d.dir(kind), 0o700))
	}
	return d, err
}

// dir is where everything of a kind stands; path is the place of one of it. Ids
// are the engine's, but after "=" and without "/" none could lead elsewhere.
func (d *copyDriver) dir(kind string) string { return filepath.Join(d.root, kind) }
func (d *copyDriver) path(kind, id string) string {
	return filepath.Join(d.root, kind, "="+strings.ReplaceAll(id, "/", "_"))
}

// read tells what is held. NotFound: nothing of that kind under that id.
func (d *copyDriver) read(kind, id string) (m meta, err error) {
	raw, err := os.ReadFile(filepath.Join(d.path(kind, id), "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return m, driver.Errorf(errdefs.ErrNotFound, "%s %s is not held", kind, id)
	}
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	return m, err
}

// Info introduces the driver.
func (d *copyDriver) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "copy", Version: "1.0"}, nil
}

// create makes something: a copy of the parent's files, changed by fill, then
// renamed to its place in one step. What is there stays as it is.
func (d *copyDriver) create(ctx context.Context, kind string, m meta, fill func(files string, m *meta) error) (meta, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if there, err := d.read(kind, m.ID); !errdefs.IsNotFound(err) {
		return there, err
	}
	tmp, err := os.MkdirTemp(d.dir("tmp"), "")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(tmp)
	files := filepath.Join(tmp, "fs")
	if m.Parent == "" {
		err = os.Mkdir(files, 0o755)
	} else if _, err = d.read("layer", m.Parent); err == nil {
		err = exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", d.path("layer", m.Parent)+"/fs", files).Run()
	}
	if err == nil {
		err = fill(files, &m)
	}
	if err != nil {
		return m, err
	}
	raw, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(filepath.Join(tmp, "meta.json"), raw, 0o600)
	}
	if err != nil {
		return m, err
	}
	syscall.Sync() // what stands in its place is complete, also after a power cut
	return m, os.Rename(tmp, d.path(kind, m.ID))
}

// remove takes something out of its place in one step, then removes it.
func (d *copyDriver) remove(kind, id string) error {
	tmp, err := os.MkdirTemp(d.dir("tmp"), "")
	if err != nil {
		return err
	}
	if err := os.Rename(d.path(kind, id), tmp+"/gone"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(tmp)
}

// ApplyLayer unpacks a layer over a copy of its parent.
func (d *copyDriver) ApplyLayer(ctx context.Context, r graphdriver.ApplyLayer, p driver.Progress) (graphdriver.Layer, error) {
	m, err := d.create(ctx, "layer", meta{ID: r.ID, Parent: r.Parent}, func(files string, m *meta) error {
		blob, size, err := layertar.OpenBlob(r.Archive)
		if err != nil {
			return err
		}
		defer blob.Close()
		into, err := os.Open(files)
		if err != nil {
			return err
		}
		defer into.Close()
		unpacked, err := layertar.Unpack(ctx, into, blob, layertar.Options{
			Whiteouts: layertar.Apply, Digest: r.Digest, DiffID: r.DiffID, Size: size, Progress: p,
		})
		m.Size = unpacked.Size
		return err
	})
	return graphdriver.Layer{ID: m.ID, Size: m.Size}, err
}

// RemoveLayer removes a layer on which nothing stands.
func (d *copyDriver) RemoveLayer(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.each(func(kind string, m meta) error {
		if m.Parent == id {
			return driver.Errorf(errdefs.ErrFailedPrecondition, "layer %s: %s %s stands on it", id, kind, m.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.remove("layer", id)
}

// PrepareRootfs copies the topmost layer for a container.
func (d *copyDriver) PrepareRootfs(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
	if !r.IDMap.IsZero() {
		return nil, driver.Errorf(errdefs.ErrNotImplemented, "this driver serves no id maps")
	}
	_, err := d.create(ctx, "rootfs", meta{ID: r.Container, Parent: r.Layer}, func(files string, _ *meta) error {
		return makeTargets(files, r.Targets)
	})
	source := d.path("rootfs", r.Container) + "/fs"
	return []driver.Mount{{Type: "bind", Source: source, Target: "/", Options: []string{"rbind"}}}, err
}

// makeTargets makes mount points. The image is a stranger's: os.Root follows
// none of its links out of the directory.
func makeTargets(files string, targets []driver.Target) error {
	root, err := os.OpenRoot(files)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, t := range targets {
		name := strings.TrimPrefix(t.Path, "/")
		if _, err := root.Stat(name); err == nil {
			continue
		}
		dir := name
		if t.File {
			dir = filepath.Dir(name)
		}
		err := root.MkdirAll(dir, 0o755)
		if err == nil && t.File {
			err = root.WriteFile(name, nil, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ReleaseRootfs removes what a container has written.
func (d *copyDriver) ReleaseRootfs(_ context.Context, container string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.remove("rootfs", container)
}

// each calls f for everything held. Whatever stands in its place is complete.
func (d *copyDriver) each(f func(kind string, m meta) error) error {
	for _, kind := range []string{"layer", "rootfs"} {
		entries, err := os.ReadDir(d.dir(kind))
		for _, e := range entries {
			m, readErr := d.read(kind, e.Name()[1:])
			if errdefs.IsNotFound(readErr) {
				continue // removed meanwhile
			}
			if err = errors.Join(err, readErr); err == nil {
				err = f(kind, m)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// List tells everything held.
func (d *copyDriver) List(context.Context) (items []driver.Item, err error) {
	err = d.each(func(kind string, m meta) error {
		items = append(items, driver.Item{Kind: kind, Key: m.ID, State: "held"})
		return nil
	})
	return items, err
}
