package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Group is one name below a Parent, in every hierarchy. It need not exist.
type Group struct {
	p    *Parent
	name string
	own  bool // the parent was opened for this group alone (place.go)

	// Of a group that was just made; Entry and OOMCounter hand it out.
	spare *Spare
	dir   *os.File // of version 2
}

// FromSpare reports whether a group that was just made is the spare of before.
func (g *Group) FromSpare() bool { return g.spare != nil }

// openDir opens the directory of version 2.
func (g *Group) openDir() error {
	d, ok := g.p.unified()
	if !ok {
		return nil
	}
	fd, err := openAt(int(d.f.Fd()), g.name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open cgroup %s in %s: %w", g.full(), d.Label(), err)
	}
	g.dir = os.NewFile(uintptr(fd), g.name)
	return nil
}

// forget closes what nobody has asked for.
func (g *Group) forget() {
	if g.spare != nil {
		g.spare.close()
		g.spare = nil
	}
	if g.dir != nil {
		g.dir.Close()
		g.dir = nil
	}
}

// Group names a group without looking for it.
func (p *Parent) Group(name string) *Group { return &Group{p: p, name: name} }

// Close lets go of the descriptors of a group that Tree.Make or Tree.Open gave.
// Groups of a Parent have none but what CreateWith has opened ahead.
func (g *Group) Close() {
	g.forget()
	if g.own {
		g.p.Close()
	}
}

// full is the group's path for messages.
func (g *Group) full() string { return filepath.Join(g.p.path, g.name) }

// Paths are the group's directories, by the hierarchy's label: a list of
// controllers, or "unified".
func (g *Group) Paths() map[string]string {
	out := map[string]string{}
	for _, d := range g.p.dirs {
		out[d.Label()] = filepath.Join(d.Mount, d.path, g.name)
	}
	return out
}

// check refuses names that would lead out of the parent. Every method that
// touches the kernel asks it first.
func (g *Group) check() error {
	if g.name == "" || g.name == "." || g.name == ".." || strings.ContainsAny(g.name, "/\n\x00") {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "cgroup name %q is not one component of a path", g.name)
	}
	return nil
}

// Entry opens the ways into the group. The caller closes it.
func (g *Group) Entry() (Entry, error) {
	if err := g.check(); err != nil {
		return Entry{}, err
	}
	return g.entry()
}

func (g *Group) entry() (Entry, error) {
	var e Entry
	var err error
	if g.spare != nil && g.spare.tasks != nil {
		e.Tasks, g.spare.tasks = g.spare.tasks, nil
	} else if e.Tasks, err = g.p.tasks(g.name); err != nil {
		return Entry{}, err
	}
	if g.dir == nil {
		err = g.openDir()
	}
	e.Dir, g.dir = g.dir, nil
	if err != nil {
		e.Close()
		return Entry{}, err
	}
	return e, nil
}

// Mounts makes a detached mount of the group's directory in each hierarchy of
// version 1, in the order of the tree's. The caller closes them, after an error
// too.
func (g *Group) Mounts() ([]*os.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	var out []*os.File
	for _, d := range g.p.dirs {
		if d.Unified {
			continue
		}
		fd, err := unix.OpenTree(int(d.f.Fd()), g.name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return out, fmt.Errorf("clone mount of cgroup %s in %s: %w", g.name, d.Label(), err)
		}
		out = append(out, os.NewFile(uintptr(fd), g.name))
	}
	return out, nil
}

// Pids lists the processes of the group and of all groups below it.
func (g *Group) Pids() ([]int, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	var out []int
	for _, d := range g.p.dirs {
		pids, err := pidsBelow(int(d.f.Fd()), g.name, 0)
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup %s in %s: %w", g.name, d.Label(), err)
		}
		out = append(out, pids...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// maxDepth bounds the groups a container may have nested inside its own.
const maxDepth = 64

// pidsBelow collects the processes of one directory and those inside it.
func pidsBelow(at int, name string, depth int) ([]int, error) {
	text, err := readAt(at, name+"/cgroup.procs")
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return nil, nil
	case errors.Is(err, unix.EOPNOTSUPP): // a threaded group of version 2: its root lists them
	case err != nil:
		return nil, err
	}
	var out []int
	for word := range strings.FieldsSeq(text) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			out = append(out, pid)
		}
	}
	if depth >= maxDepth {
		return out, nil
	}
	names, err := subdirs(at, name)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	for _, n := range names {
		more, err := pidsBelow(at, name+"/"+n, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// Delegate gives the version 2 group to a user of the host, as the
// specification's "Cgroup ownership" says: the directory, and those files in it
// that may be handed out safely. Version 1 has no safe way, so nothing is done.
func (g *Group) Delegate(uid, gid int) error {
	if err := g.check(); err != nil {
		return err
	}
	d, ok := g.p.unified()
	if !ok {
		return nil
	}
	files := []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"}
	if text, err := os.ReadFile("/sys/kernel/cgroup/delegate"); err == nil {
		files = strings.Fields(string(text))
	}
	for _, file := range append([]string{"."}, files...) {
		err := unix.Fchownat(int(d.f.Fd()), filepath.Join(g.name, file), uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.ENOENT) { // not every group has all of them
			return fmt.Errorf("give %s of cgroup %s to user %d: %w", file, g.full(), uid, err)
		}
	}
	return nil
}
