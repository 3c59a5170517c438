package driverhost

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gantryd/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// cage keeps each driver instance in a cgroup of its own, so that all of its
// processes can be ended together, whatever they did to their parents. On
// cgroup v2 (also in a hybrid layout, beside v1 controllers) that is one write;
// on v1 alone, the pids hierarchy lists them.
type cage struct {
	dir   string   // <a hierarchy's mount>/<engine's parent>/drivers
	v2    bool     // that hierarchy is cgroup v2
	swept []string // <mount>/<engine's parent> in every hierarchy
}

// newCage finds a hierarchy, makes the engine's directory in it, and ends
// whatever an earlier host has left there. The caller has the engine's name
// for itself, so nobody else's drivers are in it.
func newCage(parent string, mounts []linux.Hierarchy) (*cage, error) {
	if !filepath.IsAbs(parent) || filepath.Clean(parent) == "/" {
		return nil, fmt.Errorf("%q cannot be the parent of an engine's cgroups: want a path below the root of the hierarchies", parent)
	}
	c := &cage{}
	for _, m := range mounts {
		dir := filepath.Join(m.Mount, parent)
		c.swept = append(c.swept, dir)
		if m.Unified || m.Has("pids") && !c.v2 {
			c.dir, c.v2 = filepath.Join(dir, "drivers"), m.Unified
		}
	}
	if c.dir == "" {
		return nil, errors.New("no cgroup hierarchy is mounted that drivers can be kept in: mount cgroup2, or v1 with the pids controller")
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the drivers' cgroup: %w", err)
	}
	for _, name := range c.names() {
		c.kill(name)
	}
	return c, nil
}

// names lists the instances that have a cgroup.
func (c *cage) names() []string {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil // no directory, no instance
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// make makes the cgroup of an instance, anew: on Linux 6.18 what clone3 puts
// into a cgroup that was ever killed by cgroup.kill is killed at its birth (seen).
func (c *cage) make(name string) (*os.File, error) {
	dir := filepath.Join(c.dir, name)
	c.drop(name)
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the drivers' cgroup: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the driver's cgroup: %w (%s)", err, c.describe(name))
	}
	return os.Open(dir)
}

// join puts the calling thread into an instance's cgroup, on v1: what it forks is
// born there (cgroups(7): "tasks" takes one thread). On v2 clone3 does that.
func (c *cage) join(name string) error {
	if c.v2 {
		return nil
	}
	tid := strconv.Itoa(unix.Gettid())
	if err := os.WriteFile(filepath.Join(c.dir, name, "tasks"), []byte(tid), 0); err != nil {
		return fmt.Errorf("enter the driver's cgroup: %w", err)
	}
	return nil
}

// kill ends every process in the instance's cgroup and those below.
func (c *cage) kill(name string) {
	dir := filepath.Join(c.dir, name)
	if c.v2 && os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	for _, pid := range c.pids(name) {
		c.killOne(name, pid)
	}
}

// killOne ends a process if it is still in the cgroup once it is held by a
// descriptor: its number may have gone to another one since it was listed.
func (c *cage) killOne(name string, pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it is gone
	}
	defer unix.Close(fd)
	if slices.Contains(c.pids(name), pid) {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may be gone, which is what is wanted
	}
}

// end kills until nothing is left, for so long at most, and reports whether
// nothing is.
func (c *cage) end(name string, length time.Duration) bool {
	for end := time.Now().Add(length); ; time.Sleep(time.Millisecond) {
		if len(c.pids(name)) == 0 {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		c.kill(name)
	}
}

// pids lists the processes in the instance's cgroup and those below.
func (c *cage) pids(name string) []int {
	var pids []int
	_ = filepath.WalkDir(filepath.Join(c.dir, name), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it was removed meanwhile: nobody is in it
		}
		if !e.IsDir() {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return nil // as above
		}
		for f := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// describe names what still runs in the cgroup, and where it sleeps.
func (c *cage) describe(name string) string {
	var b strings.Builder
	for _, pid := range c.pids(name) {
		wchan, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid)) // best effort: for a message
		fmt.Fprintf(&b, "pid %d waits in %q; ", pid, wchan)
	}
	if b.Len() == 0 {
		return "something outside of its cgroup holds its lock"
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// drop removes the cgroup of an instance that has ended. The kernel may be busy
// with it for a moment yet.
func (c *cage) drop(name string) {
	dir := filepath.Join(c.dir, name)
	for range 200 {
		removeEmpty(dir)
		if _, err := os.Stat(dir); err != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// remove removes the cgroups of drivers that have ended and, where no container
// and no shim is left either, the engine's own in every hierarchy.
func (c *cage) remove() {
	for _, name := range c.names() {
		c.drop(name)
	}
	for _, dir := range c.swept {
		removeEmpty(dir)
	}
}

// removeEmpty removes a cgroup and those below, as far as nobody is in them:
// rmdir of one in use fails, and is right to.
func removeEmpty(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeEmpty(filepath.Join(dir, e.Name()))
		}
	}
	_ = unix.Rmdir(dir)
}
