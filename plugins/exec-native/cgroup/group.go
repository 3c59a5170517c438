package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Bounds of ending and removing a group.
const (
	killRounds   = 200                    // of version 1, against programs that fork on
	emptyTimeout = 2 * time.Second        // for killed processes to be gone
	firstWait    = 200 * time.Microsecond // doubles
	longestWait  = 50 * time.Millisecond
)

// Group is one name below a Parent, in every hierarchy. It need not exist.
type Group struct {
	p    *Parent
	name string
}

// Group names a group without looking for it.
func (p *Parent) Group(name string) *Group { return &Group{p, name} }

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
	return g.p.entry(g.name)
}

// Mounts makes a detached mount of the group's directory in each hierarchy of
// version 1. The caller closes them, after an error too.
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

// OOMCounter opens the file whose line "oom_kill N" counts the processes that
// the kernel killed for want of memory; nil where there is none.
func (g *Group) OOMCounter() (*os.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	for _, d := range g.p.dirs {
		file := "memory.oom_control"
		if d.Unified {
			file = "memory.events"
		} else if !d.Has("memory") {
			continue
		}
		fd, err := openAt(int(d.f.Fd()), filepath.Join(g.name, file), unix.O_RDONLY)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), file), nil
		case !errors.Is(err, unix.ENOENT):
			return nil, fmt.Errorf("open %s of cgroup %s: %w", file, g.name, err)
		}
	}
	return nil, nil
}

// OOMKills reads that counter; 0 where there is none.
func (g *Group) OOMKills() (uint64, error) {
	f, err := g.OOMCounter()
	if f == nil || err != nil {
		return 0, err
	}
	defer f.Close()
	var buf [1024]byte
	n, err := f.Read(buf[:])
	if err != nil {
		return 0, fmt.Errorf("read %s of cgroup %s: %w", f.Name(), g.name, err)
	}
	for line := range strings.Lines(string(buf[:n])) {
		if value, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, nil
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
	for _, word := range strings.Fields(text) {
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

// Freeze stops or resumes everything in the group; NotImplemented where no
// freezer is.
func (g *Group) Freeze(frozen bool) error {
	if err := g.check(); err != nil {
		return err
	}
	for _, d := range g.p.dirs {
		switch {
		case d.Has("freezer"):
			state := "THAWED"
			if frozen {
				state = "FROZEN"
			}
			err := writeAt(int(d.f.Fd()), g.name+"/freezer.state", state, "")
			return ignoreGone(err)
		case d.Unified && !g.p.hasV1("freezer"):
			state := "0"
			if frozen {
				state = "1"
			}
			err := writeAt(int(d.f.Fd()), g.name+"/cgroup.freeze", state, "")
			return ignoreGone(err)
		}
	}
	return errclass.Errorf(errdefs.ErrNotImplemented, "freeze cgroup %s: no freezer", g.name)
}

// hasV1 reports whether a version 1 hierarchy has the controller.
func (p *Parent) hasV1(controller string) bool {
	return slices.ContainsFunc(p.dirs, func(d dir) bool { return d.Has(controller) })
}

// ignoreGone lets a group that is not there be.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Kill sends SIGKILL to everything in the group, frozen or not, and does not
// wait for it to be gone. The group must not be one that this process is in.
func (g *Group) Kill() error {
	if err := g.check(); err != nil {
		return err
	}
	for _, d := range g.p.dirs {
		if d.Unified {
			// cgroup.kill (5.14) reaches all at once, also what is just forking.
			// Version 1's freezer still holds them: thaw below.
			_ = writeAt(int(d.f.Fd()), g.name+"/cgroup.kill", "1", "")
		}
	}
	if !g.p.hasV1("freezer") {
		return g.signalAll()
	}
	return errors.Join(g.killFrozen(), g.Freeze(false))
}

// killFrozen freezes the group, so that nothing forks on or hides, and kills
// all. The caller thaws: until then SIGKILL waits.
func (g *Group) killFrozen() error {
	pids, err := g.Pids()
	if err != nil || len(pids) == 0 {
		return err
	}
	if err := g.Freeze(true); err != nil {
		return err
	}
	return g.signalAll()
}

// signalAll kills the processes that are in the group now.
func (g *Group) signalAll() error {
	pids, err := g.Pids()
	if err != nil {
		return err
	}
	self := os.Getpid()
	for _, pid := range pids {
		if pid == self {
			return errclass.Errorf(errdefs.ErrFailedPrecondition, "cgroup %s holds this very process", g.name)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d of cgroup %s: %w", pid, g.name, err)
		}
	}
	return nil
}

// Remove kills what is in the group, waits for it to be gone (at most two
// seconds), and removes the group and those below it in every hierarchy. One
// that is not there is fine.
//
// Unavailable: processes do not go away, in uninterruptible sleep as a rule.
// Nothing waits for them: the caller asks again later.
func (g *Group) Remove(ctx context.Context) error {
	if err := g.check(); err != nil {
		return err
	}
	wait := firstWait
	var err error
	deadline := time.Now().Add(emptyTimeout)
	for round := 0; ; round++ {
		if err = g.sweep(); err == nil {
			return nil
		}
		if round < killRounds {
			if killErr := g.Kill(); killErr != nil {
				return killErr
			}
		}
		if time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
			wait = min(2*wait, longestWait)
		}
	}
	pids, _ := g.Pids()
	return errclass.Errorf(errdefs.ErrUnavailable, "remove cgroup %s: %w; processes left: %v", g.name, err, describe(pids))
}

// describe names processes with the state in which they hang.
func describe(pids []int) []string {
	var out []string
	for _, pid := range pids[:min(len(pids), 10)] {
		state := "?"
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			if _, rest, ok := strings.Cut(string(stat), ") "); ok && rest != "" {
				state = rest[:1]
			}
		}
		where, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
		out = append(out, fmt.Sprintf("%d (%s %s)", pid, state, where))
	}
	return out
}

// sweep removes the directories, deepest first; EBUSY while processes are in.
func (g *Group) sweep() error {
	if err := g.check(); err != nil {
		return err
	}
	var errs []error
	for _, d := range g.p.dirs {
		if err := removeBelow(int(d.f.Fd()), g.name, 0); err != nil {
			errs = append(errs, &os.PathError{Op: "remove", Path: d.Label() + ":" + g.name, Err: err})
		}
	}
	return errors.Join(errs...)
}

// removeBelow removes one directory and those inside it.
func removeBelow(at int, name string, depth int) error {
	err := again(func() error { return unix.Unlinkat(at, name, unix.AT_REMOVEDIR) })
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	// EBUSY: processes, or groups inside.
	if depth >= maxDepth {
		return err
	}
	names, listErr := subdirs(at, name)
	if errors.Is(listErr, unix.ENOENT) {
		return nil
	}
	if listErr != nil || len(names) == 0 {
		return err
	}
	for _, n := range names {
		if err := removeBelow(at, name+"/"+n, depth+1); err != nil {
			return err
		}
	}
	err = again(func() error { return unix.Unlinkat(at, name, unix.AT_REMOVEDIR) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
