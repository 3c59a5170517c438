package cgroup

import (
	"errors"
	"fmt"
	"os"
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
	return p.CreateWith(name, r, Making{})
}

// Making says how a group is made faster.
type Making struct {
	// Spare is used up, whatever comes of it; nil for none.
	Spare *Spare
	// Enter is called once processes may be cloned into the version 2 directory,
	// while the rest is still being made. The directory is the group's (Entry). After
	// an error it may have been called: then the caller removes the group, with
	// what was cloned into it. nil for nobody who wants to know.
	Enter func(dir *os.File)
}

// CreateWith is Create with something made ahead, for somebody in haste.
func (p *Parent) CreateWith(name string, r *specs.LinuxResources, m Making) (*Group, error) {
	g := p.Group(name)
	g.spare = m.Spare
	if r == nil {
		r = &specs.LinuxResources{}
	}
	err := g.check()
	if err == nil && p.atRoot() {
		err = p.createAtRoot(g, r)
	} else if err == nil {
		err = p.create(g, r, m.Enter)
	}
	if err == nil {
		return g, nil
	}
	if m.Spare != nil {
		m.Spare.Remove()
	}
	g.forget()
	return nil, err
}

// create makes the group of version 2 first, whose limits are few: a process can
// be cloned into it while the many directories of version 1 are made.
func (p *Parent) create(g *Group, r *specs.LinuxResources, enter func(*os.File)) error {
	writes, err := plan(r, p.viewNew(""))
	if err != nil {
		return err
	}
	var one, two []Write
	for _, w := range writes {
		if d, ok := p.of(w.Controller); ok && d.Unified {
			two = append(two, w)
		} else {
			one = append(one, w)
		}
	}
	if g.spare != nil {
		var fits bool
		if one, fits = g.spare.fit(one); !fits {
			g.spare.Remove()
			g.spare = nil
		}
	}
	entered := false
	err = p.mkdirs(g.name, isTwo)
	if err == nil {
		if err = p.writeNew(g.name, two); err == nil {
			err = p.restrictDevices(g.name, r.Devices)
		}
		if _, unified := p.unified(); err == nil && unified && enter != nil {
			if err = g.openDir(); err == nil {
				enter(g.dir)
				entered = true
			}
		}
	}
	if err == nil {
		err = p.makeOne(g)
	}
	if err == nil {
		err = p.writeNew(g.name, one)
	}
	if err != nil && !entered && !errors.Is(err, errdefs.ErrFailedPrecondition) { // that one is somebody else's
		err = errors.Join(err, g.sweep())
	}
	return err
}

// makeOne makes the directories of version 1, of the spare where there is one.
func (p *Parent) makeOne(g *Group) error {
	if g.spare != nil && g.spare.become(g.name) == nil {
		return nil
	}
	if g.spare != nil { // one that is half renamed is in nobody's way
		g.spare.Remove()
		g.spare = nil
	}
	return p.mkdirs(g.name, isOne)
}

// createAtRoot makes a group whose parent cannot tell which files it will have.
func (p *Parent) createAtRoot(g *Group, r *specs.LinuxResources) error {
	err := p.mkdirs(g.name, func(dir) bool { return true })
	if err != nil && errors.Is(err, errdefs.ErrFailedPrecondition) {
		return err
	}
	var writes []Write
	if err == nil {
		writes, err = plan(r, p.viewNew(g.name))
	}
	if err == nil {
		err = p.writeNew(g.name, writes)
	}
	if err == nil {
		err = p.restrictDevices(g.name, r.Devices)
	}
	if err != nil {
		err = errors.Join(err, g.sweep())
	}
	return err
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

// mkdirs makes the group in every hierarchy that is meant.
func (p *Parent) mkdirs(name string, meant func(dir) bool) error {
	for _, d := range p.dirs {
		if !meant(d) {
			continue
		}
		err := p.mkdir(d, name)
		if errors.Is(err, unix.EEXIST) {
			err = p.adopt(d, name)
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

// mkdir makes the group in one hierarchy.
func (p *Parent) mkdir(d dir, name string) error {
	at := int(d.f.Fd())
	if err := again(func() error { return unix.Mkdirat(at, name, 0o755) }); err != nil {
		return fmt.Errorf("make cgroup %s in %s: %w", filepath.Join(p.path, name), d.Label(), err)
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
