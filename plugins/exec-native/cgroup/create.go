package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Create makes a group with its limits. What this machine cannot limit is
// refused before anything is made. A group of that name left over from before
// must be empty and not frozen; its limits are set anew. After an error nothing
// is left of the group.
//
// InvalidArgument: the kernel does not take a value. NotImplemented: it lacks
// a controller or a file, or would ignore what it is told. FailedPrecondition:
// processes run in a group of this name, or it is frozen.
func (p *Parent) Create(name string, r *specs.LinuxResources) (*Group, error) {
	g := p.Group(name)
	if err := g.check(); err != nil {
		return nil, err
	}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	var writes []Write
	var err error
	early := !p.atRoot()
	if early {
		if writes, err = plan(r, p.viewNew("")); err != nil {
			return nil, err
		}
	}
	if err := p.mkdirs(name); err != nil {
		if !errors.Is(err, errdefs.ErrFailedPrecondition) { // that one is somebody else's
			err = errors.Join(err, g.sweep())
		}
		return nil, err
	}
	if err := p.setUp(g, r, writes, early); err != nil {
		return nil, errors.Join(err, g.sweep())
	}
	return g, nil
}

// setUp fills a group that has just been made.
func (p *Parent) setUp(g *Group, r *specs.LinuxResources, writes []Write, planned bool) error {
	if !planned {
		var err error
		if writes, err = plan(r, p.viewNew(g.name)); err != nil {
			return err
		}
	}
	if err := p.writeNew(g.name, writes); err != nil {
		return err
	}
	return p.restrictDevices(g.name, r.Devices)
}

// atRoot reports whether the parent is the root of a hierarchy, which lacks
// most files that the groups inside have.
func (p *Parent) atRoot() bool {
	for _, d := range p.dirs {
		if d.path == "/" {
			return true
		}
	}
	return false
}

// viewNew is the view of a group that is to be made or has just been made:
// name is empty before that, and the parent's own files stand for the group's.
func (p *Parent) viewNew(name string) view {
	return view{
		fresh:   true,
		version: p.version,
		has:     func(controller, file string) bool { return p.hasFile(name, controller, file) },
		now:     func(string, string) string { return "" },
	}
}

// version is that of the hierarchy that has the controller; 0 for none.
func (p *Parent) version(controller string) int {
	d, ok := p.of(controller)
	switch {
	case !ok:
		return 0
	case d.Unified:
		return 2
	}
	return 1
}

// hasFile reports whether groups here have a file. That they have it is
// remembered; files come with modules, and never go.
func (p *Parent) hasFile(name, controller, file string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files[file] {
		return true
	}
	d, ok := p.of(controller)
	if !ok || !isThere(int(d.f.Fd()), filepath.Join(name, file)) {
		return false
	}
	if p.files == nil {
		p.files = map[string]bool{}
	}
	p.files[file] = true
	return true
}

// mkdirs makes the group in every hierarchy.
func (p *Parent) mkdirs(name string) error {
	for _, d := range p.dirs {
		at := int(d.f.Fd())
		err := again(func() error { return unix.Mkdirat(at, name, 0o755) })
		switch {
		case errors.Is(err, unix.EEXIST):
			err = p.adopt(d, name)
		case err != nil:
			err = fmt.Errorf("make cgroup %s in %s: %w", filepath.Join(p.path, name), d.Label(), err)
		}
		if err == nil && !p.inherit && d.Has("cpuset") {
			err = fillBelow(d, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fillBelow fills the cpuset of a group of this directory.
func fillBelow(d dir, name string) error {
	fd, err := openAt(int(d.f.Fd()), name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open cgroup %s in %s: %w", name, d.Label(), err)
	}
	defer unix.Close(fd)
	if err := fillCpuset(fd, d.f.Name()); err != nil {
		return fmt.Errorf("fill cpuset of cgroup %s: %w", name, err)
	}
	return nil
}

// adopt takes a group that exists, if nothing runs in it and it is not frozen:
// what is put into a frozen one hangs.
func (p *Parent) adopt(d dir, name string) error {
	full := filepath.Join(p.path, name)
	pids, err := pidsBelow(int(d.f.Fd()), name, 0)
	if err != nil {
		return fmt.Errorf("look into cgroup %s: %w", full, err)
	}
	pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == p.holder })
	if len(pids) > 0 {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "cgroup %s is in use: processes %s", full, strings.Trim(fmt.Sprint(pids), "[]"))
	}
	frozen, err := isFrozen(d, name)
	if err != nil {
		return fmt.Errorf("look into cgroup %s: %w", full, err)
	}
	if frozen {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "cgroup %s is frozen", full)
	}
	return nil
}

// restrictDevices attaches the rules as a program to the version 2 group, where
// version 1 has no controller for them. No rules restrict nothing.
func (p *Parent) restrictDevices(name string, rules []specs.LinuxDeviceCgroup) error {
	if len(rules) == 0 || p.hasV1("devices") {
		return nil
	}
	parsed, err := parseDevices(rules)
	if err != nil {
		return err
	}
	d, ok := p.unified()
	if !ok {
		return errclass.Errorf(errdefs.ErrNotImplemented, "restrict devices of cgroup %s: no controller for devices", filepath.Join(p.path, name))
	}
	fd, err := openAt(int(d.f.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == nil {
		err = restrictTo(fd, parsed)
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("restrict devices of cgroup %s: %w", filepath.Join(p.path, name), err)
	}
	return nil
}
