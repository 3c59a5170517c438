// Package layerstore keeps the directories of a graph driver: layers and
// containers' root filesystems, with what must be remembered of each beside
// it. What is in the directories is the driver's affair.
//
// Below the store's root:
//
//	layers/NAME/     a complete, durable layer: layer.json and the driver's own
//	rootfs/ID/       a container's root filesystem: rootfs.json and the driver's own
//	shared/NAME/     what several root filesystems use (skeletons)
//	work/            things in the making and things being removed
//
// NAME is the first 128 bits of the SHA-256 of the key, in base32: short,
// since a mount option holds at most 256 bytes, and made of letters and digits
// whatever the key is. The key itself stands in the JSON.
//
// A directory is made in work/ and renamed when it is complete, and renamed
// back into work/ to be removed. So what lies in work/ when a store is opened
// is a leftover of a process that died, and goes. A layer is synced (syncfs)
// before its rename and the rename before it counts as made. A root filesystem
// is not: what a container wrote in the seconds before a power cut is lost
// anyway, and the engine asks for it again.
//
// One process at a time uses a root; the driver host sees to that.
package layerstore

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/layertar"
)

// version of the JSON files. A store of a later version is refused.
const version = 1

// Layer is what is remembered of a layer.
type Layer struct {
	Version int      `json:"version"`
	Engine  string   `json:"engine"` // id of the engine it is held for
	ID      string   `json:"id"`
	Parent  string   `json:"parent,omitempty"`
	Size    int64    `json:"size"`
	Digest  string   `json:"digest"`
	DiffID  string   `json:"diff_id"`
	Hides   bool     `json:"hides,omitempty"`  // it, or a layer below it, hides something (overlay)
	Lowers  []string `json:"lowers,omitempty"` // names of the layers it is seen on top of, top first
}

// Rootfs is what is remembered of a root filesystem.
type Rootfs struct {
	Version   int             `json:"version"`
	Engine    string          `json:"engine"`
	Container string          `json:"container"`
	Layer     string          `json:"layer,omitempty"`
	Shared    string          `json:"shared,omitempty"` // name in shared/
	IDMap     driver.IDMap    `json:"id_map"`
	Targets   []driver.Target `json:"targets"`        // nil: the record was lost, and what else is in it
	Made      []string        `json:"made,omitempty"` // targets made among the container's own files, relative
}

// Store is an open store.
type Store struct {
	root   string
	engine string
	work   *os.File // descriptor of work/

	mu     sync.Mutex
	layers map[string]Layer         // by id; guarded by mu, a copy of what is on disk
	rootfs map[string]Rootfs        // by container; guarded by mu, likewise
	shared map[string]bool          // names in shared/; guarded by mu
	using  map[string]int           // layers that something is being made on; guarded by mu
	busy   map[string]chan struct{} // keys in use; guarded by mu; closed when free
	next   uint64                   // number of the next directory in work/; guarded by mu
	closed bool                     // nothing new may begin; guarded by mu

	trash    []string       // directories in work/ to be removed; guarded by mu
	wake     chan struct{}  // tells the janitor that there is trash
	removals sync.WaitGroup // one for each of them
	stop     func()         // ends the janitor and waits for it
}

// Name is the directory name of a key.
func Name(key string) string {
	sum := sha256.Sum256([]byte(key))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// Open opens the store at root, making it if it is not there, and begins to
// remove what a dead process left in work/.
func Open(root, engine string) (*Store, error) {
	if !filepath.IsAbs(root) {
		return nil, fmt.Errorf("root %q of the layer store is not absolute: %w", root, errdefs.ErrInvalidArgument)
	}
	for _, dir := range []string{".", "layers", "rootfs", "shared", "work"} {
		// 0700: layers hold setuid programs and other users' files.
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			return nil, fmt.Errorf("make layer store: %w", err)
		}
	}
	work, err := os.Open(filepath.Join(root, "work"))
	if err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	s := &Store{
		root: root, engine: engine, work: work,
		layers: make(map[string]Layer), rootfs: make(map[string]Rootfs),
		shared: make(map[string]bool), using: make(map[string]int), busy: make(map[string]chan struct{}),
		wake: make(chan struct{}, 1),
	}
	if err := s.load(); err != nil {
		work.Close()
		return nil, err
	}
	leftovers, err := work.Readdirnames(-1)
	if err != nil {
		work.Close()
		return nil, fmt.Errorf("read %s: %w", work.Name(), err)
	}
	s.next = firstNumber(leftovers)
	s.startJanitor()
	s.removeLater(leftovers...)
	s.dropUnused()
	return s, nil
}

// firstNumber is above the numbers of all leftovers, so that a new directory
// never has the name of one that is being removed.
func firstNumber(leftovers []string) uint64 {
	var most uint64
	for _, name := range leftovers {
		if n, err := strconv.ParseUint(name, 10, 64); err == nil {
			most = max(most, n)
		}
	}
	return most + 1
}

// Drain lets no new work under a key begin and waits for what runs. Whoever
// runs it should have been cancelled.
func (s *Store) Drain() {
	for {
		s.mu.Lock()
		s.closed = true
		var running chan struct{}
		for _, running = range s.busy {
			break
		}
		s.mu.Unlock()
		if running == nil {
			return
		}
		<-running
	}
}

// Close drains the store and ends removal in the background; the next Open
// goes on with it. It may be repeated.
func (s *Store) Close() error {
	s.Drain()
	s.stop()
	if err := s.work.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// load reads what is held.
func (s *Store) load() error {
	err := eachDir(filepath.Join(s.root, "layers"), func(dir string) error {
		var l Layer
		if err := readJSON(filepath.Join(dir, "layer.json"), &l); err != nil {
			return err // a layer is durable before it has this name
		}
		if l.Version != version || Name(l.ID) != filepath.Base(dir) {
			return fmt.Errorf("%s is of version %d and id %q: %w", dir, l.Version, l.ID, errdefs.ErrFailedPrecondition)
		}
		s.layers[l.ID] = l
		return nil
	})
	if err != nil {
		return err
	}
	err = eachDir(filepath.Join(s.root, "rootfs"), func(dir string) error {
		var r Rootfs
		if err := readJSON(filepath.Join(dir, "rootfs.json"), &r); err != nil || rootfsName(r.Container) != filepath.Base(dir) {
			// After a power cut the file may be empty. What the container
			// wrote is kept until somebody asks for its removal.
			r = Rootfs{Version: version, Engine: s.engine, Container: filepath.Base(dir)}
		}
		s.rootfs[r.Container] = r
		return nil
	})
	if err != nil {
		return err
	}
	return eachDir(filepath.Join(s.root, "shared"), func(dir string) error {
		s.shared[filepath.Base(dir)] = true
		return nil
	})
}

// dropUnused removes shared directories that no root filesystem uses. It is
// done when nothing can be about to use one.
func (s *Store) dropUnused() {
	used := make(map[string]bool)
	for _, r := range s.rootfs {
		used[r.Shared] = true
	}
	for name := range s.shared {
		if !used[name] && s.discard(filepath.Join(s.root, "shared", name)) == nil {
			delete(s.shared, name)
		}
	}
}

func eachDir(dir string, f func(path string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read %s: %w", dir, err)
	}
	for _, e := range entries {
		if err := f(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w: %w", path, err, errdefs.ErrDataLoss)
	}
	return nil
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return Class("write "+path, err)
	}
	return nil
}

// Class wraps an error of the disk with what was done, and gives it its class.
func Class(act string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%s: %w: %w", act, err, errdefs.ErrResourceExhausted)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w: %w", act, err, errdefs.ErrNotFound)
	}
	return fmt.Errorf("%s: %w", act, err)
}

// Lock waits until nobody else works under key. A step asked again while it
// runs so joins the running one: it waits, then finds it done.
// Unavailable: the store is being closed.
func (s *Store) Lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, fmt.Errorf("the driver is ending: %w", errdefs.ErrUnavailable)
		}
		taken, ok := s.busy[key]
		if !ok {
			free := make(chan struct{})
			s.busy[key] = free
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.busy, key)
				s.mu.Unlock()
				close(free)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-taken:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Stage makes an empty directory in work/, to be filled and committed, or
// discarded.
func (s *Store) Stage() (string, error) {
	path := filepath.Join(s.root, "work", s.number())
	if err := os.Mkdir(path, 0o700); err != nil {
		return "", Class("make a directory in the layer store", err)
	}
	return path, nil
}

func (s *Store) number() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.next
	s.next++
	return strconv.FormatUint(n, 10)
}

// Discard removes a staged directory at once.
func (s *Store) Discard(stage string) error {
	return layertar.RemoveTree(context.Background(), s.work, filepath.Base(stage))
}

// discard renames a directory into work/ and removes it in the background.
func (s *Store) discard(path string) error {
	name := s.number()
	err := os.Rename(path, filepath.Join(s.root, "work", name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return Class("remove "+path, err)
	}
	s.removeLater(name)
	return nil
}

// removeLater gives directories of work/ to the janitor.
func (s *Store) removeLater(names ...string) {
	s.removals.Add(len(names))
	s.mu.Lock()
	s.trash = append(s.trash, names...)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default: // it is told already
	}
}

// startJanitor starts the goroutine that removes trash, one directory at a
// time. What cannot be removed is tried again at the next Open.
func (s *Store) startJanitor() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s.stop = func() {
		cancel()
		<-ended
	}
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.wake:
			}
			for name, ok := s.nextTrash(); ok && ctx.Err() == nil; name, ok = s.nextTrash() {
				_ = layertar.RemoveTree(ctx, s.work, name)
				s.removals.Done()
			}
		}
	}()
}

func (s *Store) nextTrash() (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.trash) == 0 {
		return "", false
	}
	name := s.trash[0]
	s.trash = s.trash[1:]
	return name, true
}

// Wait waits until nothing is removed in the background any more.
func (s *Store) Wait() { s.removals.Wait() }
