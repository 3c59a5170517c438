package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

// Layer tells what is remembered of a layer.
func (s *Store) Layer(id string) (Layer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[id]
	return l, ok
}

// Use keeps a layer from being removed until done is called: something is being
// made on it. No layer has no name, and nothing to keep.
// NotFound: it is not there.
func (s *Store) Use(id string) (l Layer, done func(), err error) {
	if id == "" {
		return Layer{}, func() {}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[id]
	if !ok {
		return Layer{}, nil, driver.Errorf(errdefs.ErrNotFound, "layer %s is not there", id)
	}
	s.using[id]++
	return l, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.using[id]--; s.using[id] == 0 {
			delete(s.using, id)
		}
	}, nil
}

// LayerDir is the directory of the layer named name.
func (s *Store) LayerDir(name string) string { return filepath.Join(s.root, "layers", name) }

// RootfsDir is the directory of a container's root filesystem.
func (s *Store) RootfsDir(container string) string {
	return filepath.Join(s.root, "rootfs", rootfsName(container))
}

// rootfsName is a container's id itself, if it can be a file's name: should
// the JSON be lost in a power cut, what the container wrote still has its key.
func rootfsName(container string) string {
	const most = 64
	ok := len(container) > 0 && len(container) <= most
	for _, c := range []byte(container) {
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_')
	}
	if ok {
		return container
	}
	return "=" + Name(container)
}

// SharedDir is the directory of something shared.
func (s *Store) SharedDir(name string) string { return filepath.Join(s.root, "shared", name) }

// CommitLayer makes a staged directory a layer: durable, then visible. While
// the disk is synced, beat is called every few seconds.
func (s *Store) CommitLayer(stage string, l Layer, beat func()) error {
	l.Version, l.Engine = version, s.engine
	if err := writeJSON(filepath.Join(stage, "layer.json"), l); err != nil {
		return err
	}
	if err := syncAll(s.work, beat); err != nil {
		return Class("sync layer", err)
	}
	dir := s.LayerDir(Name(l.ID))
	if err := os.Rename(stage, dir); err != nil {
		return Class("commit layer", err)
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		// Whether it would be there after a power cut is not known: it must
		// not be called made.
		return fmt.Errorf("commit layer: %w", joinDiscard(err, s.discard(dir)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.layers[l.ID] = l
	return nil
}

func joinDiscard(err, discardErr error) error {
	if discardErr != nil {
		return fmt.Errorf("%w (and it stays half made: %v)", err, discardErr)
	}
	return err
}

// syncAll writes everything of dir's filesystem to the disk.
func syncAll(dir *os.File, beat func()) error {
	done := make(chan error, 1)
	go func() { done <- unix.Syncfs(int(dir.Fd())) }()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if beat != nil {
				beat()
			}
		}
	}
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// MakeLayer makes a layer, or tells the one that is held. fill has a directory in
// work/ for it, commits it (CommitLayer) and tells what it has made; parent is zero
// for the lowest layer.
// InvalidArgument: it would be its own parent. NotFound: the parent is not there.
func (s *Store) MakeLayer(ctx context.Context, id, parent string, fill func(stage string, parent Layer) (Layer, error)) (Layer, error) {
	if id == "" || id == parent {
		return Layer{}, driver.Errorf(errdefs.ErrInvalidArgument, "layer %q on parent %q: a name is not valid", id, parent)
	}
	unlock, err := s.Lock(ctx, "layer "+id)
	if err != nil {
		return Layer{}, err
	}
	defer unlock()
	if l, ok := s.Layer(id); ok {
		return l, nil
	}
	below, done, err := s.Use(parent)
	if err != nil {
		return Layer{}, fmt.Errorf("parent: %w", err)
	}
	defer done()
	stage, err := s.Stage()
	if err != nil {
		return Layer{}, err
	}
	l, err := fill(stage, below)
	if err != nil {
		return Layer{}, errors.Join(err, s.Discard(stage))
	}
	return l, nil
}

// RemoveLayer gives a layer back. FailedPrecondition: something stands on it.
func (s *Store) RemoveLayer(ctx context.Context, id string) error {
	unlock, err := s.Lock(ctx, "layer "+id)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := s.takeOut(id)
	if err != nil || l.ID == "" {
		return err
	}
	if err := s.discard(s.LayerDir(Name(id))); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.layers[id] = l
		return err
	}
	return nil
}

// takeOut forgets a layer on which nothing stands and nothing is being made. The
// zero value: it is not held.
func (s *Store) takeOut(id string) (Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user := ""
	for _, l := range s.layers {
		if l.Parent == id {
			user = "layer " + l.ID
		}
	}
	for _, r := range s.rootfs {
		if r.Layer == id {
			user = "root filesystem of " + r.Container
		}
	}
	if s.using[id] > 0 {
		user = "something that is being made"
	}
	l, held := s.layers[id]
	if held && user != "" {
		return Layer{}, fmt.Errorf("layer %s is used by %s: %w", id, user, errdefs.ErrFailedPrecondition)
	}
	delete(s.layers, id)
	return l, nil
}

// Rootfs tells what is remembered of a root filesystem.
func (s *Store) Rootfs(container string) (Rootfs, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.rootfs[container]
	return r, ok
}

// RewriteRootfs remembers r for a root filesystem that is held already.
func (s *Store) RewriteRootfs(r Rootfs) error {
	r.Version, r.Engine = version, s.engine
	name := filepath.Join(s.RootfsDir(r.Container), "rootfs.json")
	if err := writeJSON(name+".new", r); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return Class("write "+name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rootfs[r.Container] = r
	return nil
}

// CommitRootfs makes a staged directory a root filesystem.
func (s *Store) CommitRootfs(stage string, r Rootfs) error {
	r.Version, r.Engine = version, s.engine
	if err := writeJSON(filepath.Join(stage, "rootfs.json"), r); err != nil {
		return err
	}
	if err := os.Rename(stage, s.RootfsDir(r.Container)); err != nil {
		return Class("commit root filesystem", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rootfs[r.Container] = r
	return nil
}

// ReleaseRootfs removes a root filesystem, if it is held. What is in it is
// removed in the background.
func (s *Store) ReleaseRootfs(ctx context.Context, container string) error {
	unlock, err := s.Lock(ctx, "rootfs "+container)
	if err != nil {
		return err
	}
	defer unlock()
	if _, ok := s.Rootfs(container); !ok {
		return nil
	}
	if err := s.discard(s.RootfsDir(container)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rootfs, container)
	return nil
}

// Share returns the shared directory name, made by fill if it is not there.
func (s *Store) Share(ctx context.Context, name string, fill func(dir string) error) error {
	unlock, err := s.Lock(ctx, "shared "+name)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	there := s.shared[name]
	s.mu.Unlock()
	if there {
		return nil
	}
	stage, err := s.Stage()
	if err != nil {
		return err
	}
	if err := fill(stage); err != nil {
		return joinDiscard(err, s.Discard(stage))
	}
	if err := os.Rename(stage, s.SharedDir(name)); err != nil {
		return Class("commit shared directory", joinDiscard(err, s.Discard(stage)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared[name] = true
	return nil
}

// List tells what is held for the engine.
func (s *Store) List() []driver.Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	var items []driver.Item
	for _, l := range s.layers {
		if l.Engine == s.engine {
			items = append(items, driver.Item{Kind: "layer", Key: l.ID, State: "held"})
		}
	}
	for _, r := range s.rootfs {
		if r.Engine == s.engine {
			items = append(items, driver.Item{Kind: "rootfs", Key: r.Container, State: "held"})
		}
	}
	slices.SortFunc(items, func(a, b driver.Item) int {
		if a.Kind != b.Kind {
			return len(a.Kind) - len(b.Kind)
		}
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return items
}
