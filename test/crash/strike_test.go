package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// strike is a way to hurt.
type strike struct {
	name string
	// hit does it and says whether there was something to hit. After it the
	// engine runs or, with engine set, does not.
	hit    func(w *world) (bool, error)
	engine bool
	shim   bool
}

// strikes are all ways.
func strikes() []strike {
	all := []strike{
		{name: "engine", engine: true, hit: func(w *world) (bool, error) { return true, w.Kill() }},
		{name: "shim", shim: true, hit: func(w *world) (bool, error) { return killAll(w.ShimPids()) }},
	}
	for _, driver := range []string{"exec-native", "net-bridge", "graphdriver-overlay", "image-oci"} {
		all = append(all,
			strike{name: driver, hit: func(w *world) (bool, error) { return killAll(w.DriverPids(driver)) }},
			strike{name: driver + " by its cgroup", hit: func(w *world) (bool, error) { return killGroups(w.DriverGroups(driver)) }},
		)
	}
	return all
}

// killAll kills the processes; those that have ended meanwhile do not count.
func killAll(pids []int) (bool, error) {
	hit := false
	for _, pid := range pids {
		err := syscall.Kill(pid, syscall.SIGKILL)
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			return hit, fmt.Errorf("kill %d: %w", pid, err)
		}
		hit = hit || err == nil
	}
	return hit, nil
}

// killGroups kills everything in the cgroups.
func killGroups(dirs []string) (bool, error) {
	hit := false
	for _, dir := range dirs {
		procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // gone: nothing to hit
		err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
			return hit, err
		}
		hit = hit || err == nil && len(procs) > 0
	}
	return hit, nil
}
