package exectest

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
		// Whatever a driver keeps started ahead, or gives up, ends a moment after the driver.
		if err := linux.RemoveCgroup(d, 3*time.Second); err != nil && !os.IsNotExist(err) {
			t.Errorf("a cgroup is left behind: %v", err)
		}
	}
}
