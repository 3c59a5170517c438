package exectest

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
)

// removeCgroups removes the engine's parent cgroup from every hierarchy; by
// the contract it may stay while the engine exists, and this engine is gone.
func removeCgroups(t conform.T, c driver.Config) {
	table, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Errorf("look for cgroup hierarchies: %v", err)
		return
	}
	for line := range strings.Lines(string(table)) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); len(f) > 4 && strings.HasPrefix(after, "cgroup") {
			removeTree(t, filepath.Join(f[4], c.Cgroup))
		}
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
		if err := os.Remove(d); err != nil && !os.IsNotExist(err) {
			t.Errorf("a cgroup is left behind: %v", err)
		}
	}
}
