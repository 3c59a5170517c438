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

// Parent is a directory of groups, the same path in every hierarchy. Its
// descriptors are opened once; making a group walks no path. Safe for
// concurrent use.
type Parent struct {
	path string // below each hierarchy's root
	dirs []dir
	bpf  bool // devices of version 2 are a program
}

// dir is the parent in one hierarchy.
type dir struct {
	Hierarchy
	f *os.File
}

// OpenParent makes the path in every hierarchy, such that groups below it take
// processes and limits, and opens it. leaf says that processes are put into
// the directory itself (version 2 allows that only without controllers).
func (t Tree) OpenParent(path string, leaf bool) (*Parent, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "cgroup path %q: want an absolute, clean one", path)
	}
	p := &Parent{path: path, bpf: true}
	for _, h := range t.Hierarchies {
		f, err := makeParent(h, path, leaf)
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("make cgroup %s in %s: %w", path, h.Mount, err)
		}
		p.dirs = append(p.dirs, dir{h, f})
		if h.Has("devices") {
			p.bpf = false
		}
	}
	return p, nil
}

// makeParent walks down one hierarchy, making and preparing each directory.
func makeParent(h Hierarchy, path string, leaf bool) (*os.File, error) {
	fd, err := openAt(unix.AT_FDCWD, h.Mount, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, part := range parts {
		if h.Unified {
			delegate(fd, h.Controllers)
		}
		next, err := enter(h, fd, part)
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
		fd = next
		if h.Has("cpuset") {
			if err := inheritCpuset(fd, h.Mount, parts[:i]); err != nil {
				unix.Close(fd)
				return nil, err
			}
		}
	}
	if h.Unified && !leaf {
		delegate(fd, h.Controllers)
	}
	return os.NewFile(uintptr(fd), h.Mount+path), nil
}

// enter makes one directory if it is missing, and opens it.
func enter(h Hierarchy, fd int, name string) (int, error) {
	err := again(func() error { return unix.Mkdirat(fd, name, 0o755) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return openAt(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
}

// delegate hands controllers down to children of a version 2 group, one by one:
// what cannot be is missed by the limit that needs it, with its name.
func delegate(fd int, controllers []string) {
	for _, c := range controllers {
		_ = writeAt(fd, "cgroup.subtree_control", "+"+c, "")
	}
}

// inheritCpuset fills a version 1 cpuset from the one above, and lets children
// do so by themselves.
func inheritCpuset(fd int, mount string, above []string) error {
	if err := writeAt(fd, "cgroup.clone_children", "1", ""); err != nil {
		return err
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := readAt(fd, file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(have) != "" {
			continue
		}
		up, err := os.ReadFile(filepath.Join(mount, filepath.Join(above...), file))
		if err != nil {
			return err
		}
		if err := writeAt(fd, file, strings.TrimSpace(string(up)), ""); err != nil {
			return err
		}
	}
	return nil
}

// Path is the parent's path below each hierarchy's root.
func (p *Parent) Path() string { return p.path }

// Close lets go of the descriptors. Groups stay.
func (p *Parent) Close() {
	for _, d := range p.dirs {
		d.f.Close()
	}
}

// Entry is how a process gets into a group in all hierarchies.
type Entry struct {
	// Tasks are files of version 1: a process that has one thread moves itself
	// by writing "0" to each.
	Tasks []*os.File
	// Dir is the directory of version 2, to be cloned into; nil without it.
	Dir *os.File
}

// Close closes the files.
func (e Entry) Close() {
	for _, f := range e.Tasks {
		f.Close()
	}
	if e.Dir != nil {
		e.Dir.Close()
	}
}

// Entry opens the ways into the parent itself. The caller closes it.
func (p *Parent) Entry() (Entry, error) { return p.entry("") }

func (p *Parent) entry(name string) (Entry, error) {
	var e Entry
	for _, d := range p.dirs {
		file, flags := filepath.Join(name, "tasks"), unix.O_WRONLY
		if d.Unified {
			file, flags = filepath.Join(".", name), unix.O_PATH|unix.O_DIRECTORY
		}
		fd, err := openAt(int(d.f.Fd()), file, flags)
		if err != nil {
			e.Close()
			return Entry{}, fmt.Errorf("open %s of cgroup %s in %s: %w", file, p.path, d.Label(), err)
		}
		if d.Unified {
			e.Dir = os.NewFile(uintptr(fd), file)
		} else {
			e.Tasks = append(e.Tasks, os.NewFile(uintptr(fd), file))
		}
	}
	return e, nil
}

// Create makes a group with its limits. A group of that name left over from
// before must be empty; its limits are set anew. After an error nothing is
// left of a group that was new.
//
// InvalidArgument: the kernel does not take a value. NotImplemented: it lacks
// a controller, or the limit is not served. FailedPrecondition: processes run
// in a group of this name.
func (p *Parent) Create(name string, r *specs.LinuxResources) (*Group, error) {
	g := p.Group(name)
	if err := g.check(); err != nil {
		return nil, err
	}
	v1, err := writesV1(r)
	if err != nil {
		return nil, err
	}
	v2, err := writesV2(r)
	if err != nil {
		return nil, err
	}
	if err := p.mkdirs(name); err != nil {
		return nil, errors.Join(err, g.sweep())
	}
	if w, err := writeAll(name, append(p.forV1(v1), p.forV2(v2)...)); err != nil {
		return nil, errors.Join(refusal(p.path+"/"+name, w, err), g.sweep())
	}
	if err := p.restrictDevices(name, r.Devices); err != nil {
		return nil, errors.Join(err, g.sweep())
	}
	return g, nil
}

// mkdirs makes the group in every hierarchy.
func (p *Parent) mkdirs(name string) error {
	for _, d := range p.dirs {
		err := again(func() error { return unix.Mkdirat(int(d.f.Fd()), name, 0o755) })
		switch {
		case errors.Is(err, unix.EEXIST):
			procs, err := readAt(int(d.f.Fd()), name+"/cgroup.procs")
			if err != nil {
				return fmt.Errorf("look into cgroup %s/%s: %w", p.path, name, err)
			}
			if strings.TrimSpace(procs) != "" {
				return errclass.Errorf(errdefs.ErrFailedPrecondition, "cgroup %s/%s is in use: processes %s", p.path, name,
					strings.Join(strings.Fields(procs), " "))
			}
		case err != nil:
			return fmt.Errorf("make cgroup %s/%s in %s: %w", p.path, name, d.Label(), err)
		}
	}
	return nil
}

// writeAll writes in order; several values for one file share its descriptor.
// It says which write was refused.
func writeAll(name string, writes []placed) (Write, error) {
	fd, open := -1, placed{}
	defer func() {
		if fd >= 0 {
			unix.Close(fd)
		}
	}()
	for _, w := range writes {
		if fd < 0 || w.dir.f != open.dir.f || w.File != open.File || w.Back != "" {
			if fd >= 0 {
				unix.Close(fd)
			}
			var err error
			fd, err = openForWrite(int(w.dir.f.Fd()), name+"/"+w.File, w.Back != "")
			if err != nil && w.Optional && errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return w.Write, err
			}
			open = w
		}
		if err := writeValue(fd, w.File, w.Value, w.Back); err != nil {
			return w.Write, err
		}
	}
	return Write{}, nil
}

// placed is a write and the hierarchy it goes to.
type placed struct {
	Write
	dir dir
}

// forV1 finds the hierarchy of each write of version 1. What no hierarchy of
// version 1 has is left to version 2.
func (p *Parent) forV1(writes []Write) []placed {
	var out []placed
	for _, w := range writes {
		for _, d := range p.dirs {
			if d.Has(w.Controller) {
				out = append(out, placed{w, d})
			}
		}
	}
	return out
}

// forV2 places the writes whose controller version 1 does not have. On a
// machine without version 2 they go to the first hierarchy, where the missing
// file makes a good error.
func (p *Parent) forV2(writes []Write) []placed {
	var out []placed
	for _, w := range writes {
		if slices.ContainsFunc(p.dirs, func(d dir) bool { return d.Has(w.Controller) }) {
			continue
		}
		place := p.dirs[0]
		for _, d := range p.dirs {
			if d.Unified {
				place = d
			}
		}
		out = append(out, placed{w, place})
	}
	return out
}

// List names the groups of this parent, sorted.
func (p *Parent) List() ([]string, error) {
	var out []string
	for _, d := range p.dirs {
		names, err := subdirs(int(d.f.Fd()), ".")
		if err != nil {
			return nil, fmt.Errorf("list cgroups of %s in %s: %w", p.path, d.Label(), err)
		}
		out = append(out, names...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// subdirs lists the directories of a directory.
func subdirs(at int, name string) ([]string, error) {
	fd, err := openAt(at, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Remove removes the parent itself, where it is empty, in all hierarchies.
func (p *Parent) Remove() error {
	var errs []error
	for _, d := range p.dirs {
		err := again(func() error { return unix.Rmdir(d.Mount + p.path) })
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, &os.PathError{Op: "remove cgroup", Path: d.Mount + p.path, Err: err})
		}
	}
	return errors.Join(errs...)
}
