package exectest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
)

// removeCgroups removes the engine's parent cgroup from every hierarchy; by
// the contract it may stay while the engine exists, and this engine is gone.
func removeCgroups(t conform.T, c driver.Config) {
	hierarchies, err := linux.Hierarchies()
	if err != nil {
		t.Errorf("look for cgroup hierarchies: %v", err)
		return
	}
	for _, h := range hierarchies {
		removeTree(t, filepath.Join(h.Mount, c.Cgroup))
	}
}

// removeTree removes a cgroup and those below it, lowest first; their files go
// with them.
func removeTree(t conform.T, top string) {
	var dirs []string
	filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // what vanishes meanwhile is as good as removed
	})
	slices.Reverse(dirs)
	for _, d := range dirs {
		if err := removeGroup(d); err != nil && !os.IsNotExist(err) {
			t.Errorf("a cgroup is left behind: %v", err)
		}
	}
}

// removeGroup waits a little for the last process to leave: whatever a driver
// keeps started ahead, or gives up, ends a moment after the driver.
func removeGroup(dir string) error {
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := os.Remove(dir)
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}
