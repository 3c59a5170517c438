package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

// DirKeys keeps keys as files of mode 0600 in dir, which is made with mode 0700.
func DirKeys(dir string) (Keys, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the directory of keys: %w", err)
	}
	return dirKeys(dir), nil
}

type dirKeys string

func (d dirKeys) path(id core.ContainerID) string { return filepath.Join(string(d), string(id)) }

// Load reads a key.
func (d dirKeys) Load(id core.ContainerID) ([]byte, error) {
	key, err := os.ReadFile(d.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errclass.Errorf(errdefs.ErrNotFound, "no key of container %.12s", id)
	}
	if err == nil && len(key) != keySize {
		err = errclass.Errorf(errdefs.ErrDataLoss, "key of container %.12s is %d bytes long, not %d", id, len(key), keySize)
	}
	return key, err
}

// Save writes a key under its name in one step, and makes both durable.
func (d dirKeys) Save(id core.ContainerID, key []byte) error {
	temporary := d.path(id) + ".new"
	if err := writeDurable(temporary, key); err != nil {
		return firstError(err, os.Remove(temporary))
	}
	if err := os.Rename(temporary, d.path(id)); err != nil {
		return err
	}
	return syncDir(string(d))
}

// writeDurable writes a file of mode 0600 and syncs it.
func writeDurable(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return firstError(err, f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return firstError(d.Sync(), d.Close())
}

// Destroy writes zeros over a key before it takes its name away.
func (d dirKeys) Destroy(id core.ContainerID) error {
	f, err := os.OpenFile(d.path(id), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, keySize), 0)
	if err == nil {
		err = f.Sync()
	}
	err = firstError(err, f.Close())
	return firstError(err, os.Remove(d.path(id)))
}

// List gives the names in the directory that are ids. What is half written goes.
func (d dirKeys) List() ([]core.ContainerID, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var ids []core.ContainerID
	for _, e := range entries {
		if isHex(e.Name()) {
			ids = append(ids, core.ContainerID(e.Name()))
		} else if err := os.Remove(filepath.Join(string(d), e.Name())); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// MemKeys keeps keys in memory, for tests and the simulator.
func MemKeys() Keys { return &memKeys{keys: make(map[core.ContainerID][]byte)} }

type memKeys struct {
	mu   sync.Mutex // guards keys
	keys map[core.ContainerID][]byte
}

// Load gives a key.
func (m *memKeys) Load(id core.ContainerID) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if key, ok := m.keys[id]; ok {
		return key, nil
	}
	return nil, errclass.Errorf(errdefs.ErrNotFound, "no key of container %.12s", id)
}

// Save keeps a key.
func (m *memKeys) Save(id core.ContainerID, key []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys[id] = append([]byte(nil), key...)
	return nil
}

// Destroy forgets a key.
func (m *memKeys) Destroy(id core.ContainerID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.keys, id)
	return nil
}

// List gives the containers that have keys.
func (m *memKeys) List() ([]core.ContainerID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []core.ContainerID
	for id := range m.keys {
		ids = append(ids, id)
	}
	return ids, nil
}
