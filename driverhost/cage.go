package driverhost

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

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

// newCage finds a hierarchy and makes the engine's directory in it.
func newCage(parent string) (*cage, error) {
	mounts, err := hierarchies()
	if err != nil {
		return nil, err
	}
	c := &cage{}
	for _, m := range mounts {
		dir := filepath.Join(m.dir, parent)
		c.swept = append(c.swept, dir)
		if m.v2 || m.pids && !c.v2 {
			c.dir, c.v2 = filepath.Join(dir, "drivers"), m.v2
		}
	}
	if c.dir == "" {
		return nil, errors.New("no cgroup hierarchy is mounted that drivers can be kept in: mount cgroup2, or v1 with the pids controller")
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the drivers' cgroup: %w", err)
	}
	return c, nil
}

// mount is a mounted cgroup hierarchy.
type mount struct {
	dir  string
	v2   bool
	pids bool // v1, with the pids controller
}

func hierarchies() ([]mount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []mount
	for line := range strings.Lines(string(data)) {
		left, right, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 5 || len(g) < 3 || g[0] != "cgroup" && g[0] != "cgroup2" {
			continue
		}
		all = append(all, mount{dir: f[4], v2: g[0] == "cgroup2", pids: strings.Contains(","+g[2]+",", ",pids,")})
	}
	return all, nil
}

// make makes the cgroup of an instance, empty.
func (c *cage) make(name string) (*os.File, error) {
	dir := filepath.Join(c.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make the driver's cgroup: %w", err)
	}
	return os.Open(dir)
}

// kill ends every process in the instance's cgroup and those below.
func (c *cage) kill(name string) {
	dir := filepath.Join(c.dir, name)
	if c.v2 && os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	for _, pid := range c.pids(name) {
		_ = unix.Kill(pid, unix.SIGKILL) // it may be gone, which is what is wanted
	}
}

// pids lists the processes in the instance's cgroup.
func (c *cage) pids(name string) []int {
	data, err := os.ReadFile(filepath.Join(c.dir, name, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for f := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
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

// drop removes the cgroup of an instance that has ended.
func (c *cage) drop(name string) {
	for range 200 {
		err := os.Remove(filepath.Join(c.dir, name))
		if !errors.Is(err, unix.EBUSY) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// remove removes the cgroups of drivers that have ended and, where no container
// and no shim is left either, the engine's own in every hierarchy.
func (c *cage) remove() {
	entries, err := os.ReadDir(c.dir)
	if err == nil {
		for _, e := range entries {
			if e.IsDir() {
				c.drop(e.Name())
			}
		}
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
