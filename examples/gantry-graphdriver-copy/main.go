// Command gantry-graphdriver-copy is a whole graph driver to read and to start
// from. A layer is a directory with a copy of the layer below and the layer
// unpacked over it; a root filesystem is a copy of its topmost layer.
//
//	Root/layers/HEX/{fs,layer.json}   a layer; complete, because it was renamed
//	Root/rootfs/ID/{fs,layer.json}    what a container writes to
//	Root/tmp/                         what is being made; void after a crash
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

// meta is what layer.json says of the directory it lies in: of a layer itself,
// of a root filesystem the container and, as parent, its topmost layer.
type meta struct {
	ID, Parent string
	Size       int64
}

func open(c driver.Config) (graphdriver.Driver, error) {
	d := &copyDriver{root: c.Root}
	if err := os.RemoveAll(d.path("tmp")); err != nil {
		return nil, err
	}
	for _, dir := range []string{"layers", "rootfs", "tmp"} {
		if err := os.MkdirAll(d.path(dir), 0o700); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *copyDriver) path(parts ...string) string {
	return filepath.Join(append([]string{d.root}, parts...)...)
}

// at is the directory of a layer or root filesystem. Ids are the engine's, but
// a name that is a path is refused all the same.
func (d *copyDriver) at(kind, id string) (string, error) {
	name := strings.TrimPrefix(id, "sha256:")
	if name == "" || strings.ContainsAny(name, "/.") {
		return "", driver.Errorf(errdefs.ErrInvalidArgument, "the id %q cannot be the name of a directory", id)
	}
	return d.path(kind, name), nil
}

func (d *copyDriver) read(kind, id string) (m meta, err error) {
	dir, err := d.at(kind, id)
	if err != nil {
		return m, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, "layer.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return m, driver.Errorf(errdefs.ErrNotFound, "%s %s is not held", kind, id)
	}
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(raw, &m)
}

func (d *copyDriver) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "copy", Version: "1.0"}, nil
}

// create makes a directory of a kind: a copy of the parent's files, changed by
// fill, then renamed to its place in one step.
func (d *copyDriver) create(ctx context.Context, kind string, m meta, fill func(dir string, m *meta) error) (meta, error) {
	to, err := d.at(kind, m.ID)
	if err != nil {
		return m, err
	}
	if done, err := d.read(kind, m.ID); !errdefs.IsNotFound(err) {
		return done, err // it is there, with what it was when it was made
	}
	tmp, err := os.MkdirTemp(d.path("tmp"), "")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(tmp)
	files := filepath.Join(tmp, "fs")
	if m.Parent == "" {
		err = os.Mkdir(files, 0o755)
	} else if _, err = d.read("layers", m.Parent); err == nil {
		below, _ := d.at("layers", m.Parent)
		err = exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", filepath.Join(below, "fs"), files).Run()
	}
	if err != nil {
		return m, err
	}
	if err := fill(files, &m); err != nil {
		return m, err
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	if err := os.WriteFile(filepath.Join(tmp, "layer.json"), raw, 0o600); err != nil {
		return m, err
	}
	syscall.Sync() // what is renamed into place must be complete, also after a power cut
	return m, os.Rename(tmp, to)
}

// remove takes a directory out of its place in one step, then removes it.
func (d *copyDriver) remove(kind, id string) error {
	from, err := d.at(kind, id)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(d.path("tmp"), "")
	if err != nil {
		return err
	}
	if err := os.Rename(from, filepath.Join(tmp, "x")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(tmp)
}

func (d *copyDriver) ApplyLayer(ctx context.Context, r graphdriver.ApplyLayer, p driver.Progress) (graphdriver.Layer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.create(ctx, "layers", meta{ID: r.ID, Parent: r.Parent}, func(dir string, m *meta) error {
		blob, size, err := layertar.OpenBlob(r.Archive)
		if err != nil {
			return err
		}
		defer blob.Close()
		into, err := os.Open(dir)
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

func (d *copyDriver) RemoveLayer(ctx context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, kind := range []string{"layers", "rootfs"} {
		held, err := d.all(kind)
		if err != nil {
			return err
		}
		for _, m := range held {
			if m.Parent == id {
				return driver.Errorf(errdefs.ErrFailedPrecondition, "layer %s: %s stands on it", id, m.ID)
			}
		}
	}
	return d.remove("layers", id)
}

func (d *copyDriver) PrepareRootfs(ctx context.Context, r graphdriver.PrepareRootfs) ([]driver.Mount, error) {
	if !r.IDMap.IsZero() {
		return nil, driver.Errorf(errdefs.ErrNotImplemented, "this driver serves no id maps")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.create(ctx, "rootfs", meta{ID: r.Container, Parent: r.Layer}, func(dir string, _ *meta) error {
		return makeTargets(dir, r.Targets)
	})
	if err != nil {
		return nil, err
	}
	dir, err := d.at("rootfs", r.Container)
	return []driver.Mount{{Type: "bind", Source: filepath.Join(dir, "fs"), Target: "/", Options: []string{"rbind"}}}, err
}

// makeTargets makes mount points. The image is a stranger's: os.Root follows
// none of its links out of dir.
func makeTargets(dir string, targets []driver.Target) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, t := range targets {
		name := strings.TrimPrefix(t.Path, "/")
		if _, err := root.Stat(name); err == nil {
			continue
		}
		if !t.File {
			err = root.MkdirAll(name, 0o755)
		} else if err = root.MkdirAll(filepath.Dir(name), 0o755); err == nil {
			err = root.WriteFile(name, nil, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *copyDriver) ReleaseRootfs(_ context.Context, container string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.remove("rootfs", container)
}

// all reads what is held of a kind. Whatever is in place is complete.
func (d *copyDriver) all(kind string) ([]meta, error) {
	entries, err := os.ReadDir(d.path(kind))
	if err != nil {
		return nil, err
	}
	var held []meta
	for _, e := range entries {
		m, err := d.read(kind, e.Name())
		if errdefs.IsNotFound(err) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		held = append(held, m)
	}
	return held, nil
}

func (d *copyDriver) List(context.Context) ([]driver.Item, error) {
	var items []driver.Item
	for kind, name := range map[string]string{"layers": "layer", "rootfs": "rootfs"} {
		held, err := d.all(kind)
		if err != nil {
			return nil, err
		}
		for _, m := range held {
			items = append(items, driver.Item{Kind: name, Key: m.ID, State: "held"})
		}
	}
	return items, nil
}
