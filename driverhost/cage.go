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
	root string // the hierarchy's mount
	dir  string // <root>/<engine's parent>/drivers
	v2   bool
}

// newCage finds a hierarchy and makes the engine's directory in it.
func newCage(parent string) (*cage, error) {
	root, v2, err := hierarchy()
	if err != nil {
		return nil, err
	}
	c := &cage{root: root, dir: filepath.Join(root, parent, "drivers"), v2: v2}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the drivers' cgroup: %w", err)
	}
	return c, nil
}

// hierarchy is the cgroup2 mount, or the v1 mount with the pids controller.
func hierarchy() (root string, v2 bool, err error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", false, err
	}
	var v1 string
	for line := range strings.Lines(string(data)) {
		left, right, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		switch {
		case g[0] == "cgroup2":
			return f[4], true, nil
		case g[0] == "cgroup" && strings.Contains(","+g[2]+",", ",pids,"):
			v1 = f[4]
		}
	}
	if v1 == "" {
		return "", false, errors.New("no cgroup hierarchy is mounted that drivers can be kept in: mount cgroup2, or v1 with the pids controller")
	}
	return v1, false, nil
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

// remove removes the drivers' cgroup when it is empty.
func (c *cage) remove() {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			c.drop(e.Name())
		}
	}
	_ = os.Remove(c.dir) // not empty: the next host ends what is left
}
