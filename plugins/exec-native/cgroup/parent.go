package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Parent is a directory of groups in every hierarchy. Its descriptors are
// opened once; making a group walks no path. Safe for concurrent use.
type Parent struct {
	path    string // below each hierarchy's root, as messages say it
	dirs    []dir
	inherit bool // a new version 1 cpuset has what its parent has (clone_children)
	holder  int  // a process that may be in a group to be made; 0 for none

	mu    sync.Mutex
	files map[string]bool // that groups are known to have; guarded by mu
}

// dir is the parent in one hierarchy.
type dir struct {
	Hierarchy
	path      string // below the hierarchy's root
	f         *os.File
	delegated []string // version 2: the controllers that groups inside have
}

// OpenParent makes the path in every hierarchy, such that groups below it take
// processes and limits, and opens it. leaf says that processes are put into
// the directory itself (version 2 allows that only without controllers). The
// path is the caller's own: it stays until Remove.
func (t Tree) OpenParent(path string, leaf bool) (*Parent, error) {
	return t.openParent(path, walk{delegate: !leaf, inherit: true})
}

// OpenShared is OpenParent for a path that is not the caller's own: directories
// that are missing are made and marked, and go with RemoveMade.
func (t Tree) OpenShared(path string) (*Parent, error) {
	return t.openParent(path, walk{delegate: true, inherit: true, mark: true})
}

// openParent makes what is missing as how says.
func (t Tree) openParent(path string, how walk) (*Parent, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "cgroup path %q: want an absolute, clean one", path)
	}
	p := &Parent{path: path, inherit: true}
	for _, h := range t.Hierarchies {
		d, err := makeParent(h, path, how)
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("make cgroup %s in %s: %w", path, h.Mount, err)
		}
		p.dirs = append(p.dirs, d)
	}
	return p, nil
}

// walk says how a path is gone down and made.
type walk struct {
	only     bool // make nothing: what is not there is ENOENT
	delegate bool // hand controllers to what is inside the last one
	inherit  bool // version 1 cpusets pass their values on by themselves
	mark     bool // remember which directories were made
}

// makeParent walks down one hierarchy, making and preparing each directory.
func makeParent(h Hierarchy, path string, how walk) (dir, error) {
	fd, err := openAt(unix.AT_FDCWD, h.Mount, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return dir{}, err
	}
	above := h.Mount
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if part == "" {
			break // the root itself
		}
		if h.Unified && !how.only {
			delegate(fd, h.Controllers)
		}
		next, err := enter(fd, part, how)
		unix.Close(fd)
		if err != nil {
			return dir{}, err
		}
		fd = next
		if h.Has("cpuset") && !how.only {
			if err := prepareCpuset(fd, above, how.inherit); err != nil {
				unix.Close(fd)
				return dir{}, err
			}
		}
		above = filepath.Join(above, part)
	}
	if h.Unified && how.delegate && !how.only {
		delegate(fd, h.Controllers)
	}
	d := dir{Hierarchy: h, path: path, f: os.NewFile(uintptr(fd), filepath.Join(h.Mount, path))}
	if h.Unified {
		text, _ := readAt(fd, "cgroup.subtree_control") // none in trees older than the file
		d.delegated = strings.Fields(text)
	}
	return d, nil
}

// enter makes one directory if it is missing, and opens it.
func enter(fd int, name string, how walk) (int, error) {
	if !how.only {
		err := again(func() error { return unix.Mkdirat(fd, name, 0o755) })
		if err != nil && !errors.Is(err, unix.EEXIST) && !isThere(fd, name) {
			return -1, err
		}
		if err == nil && how.mark {
			mark(fd, name)
		}
	}
	return openAt(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
}

// isThere reports whether a name exists. Without the right to make directories
// mkdir may answer EACCES or EROFS for one that exists.
func isThere(fd int, name string) bool {
	return unix.Faccessat(fd, name, unix.F_OK, 0) == nil
}

// delegate hands controllers down to children of a version 2 group: all that
// are missing in one write, and if the kernel does not take that, one by one.
// What cannot be handed down is missed by the limit that needs it, by name.
func delegate(fd int, controllers []string) {
	have, err := readAt(fd, "cgroup.subtree_control")
	if err != nil {
		return
	}
	var missing []string
	for _, c := range controllers {
		if !slices.Contains(strings.Fields(have), c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 || writeAt(fd, "cgroup.subtree_control", strings.Join(missing, " ")) == nil {
		return
	}
	for _, c := range missing {
		_ = writeAt(fd, "cgroup.subtree_control", c)
	}
}

// prepareCpuset fills a version 1 cpuset from the one above, and lets children
// do so by themselves if asked to.
func prepareCpuset(fd int, above string, inherit bool) error {
	if inherit {
		if err := writeAt(fd, "cgroup.clone_children", "1"); err != nil {
			return err
		}
	}
	return fillCpuset(fd, above)
}

// fillCpuset gives an empty version 1 cpuset what the one above has: without,
// no process may enter.
func fillCpuset(fd int, above string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := readAt(fd, file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(have) != "" {
			continue
		}
		up, err := os.ReadFile(filepath.Join(above, file))
		if err != nil {
			return err
		}
		if err := writeAt(fd, file, strings.TrimSpace(string(up))); err != nil {
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

// of finds the hierarchy of a controller: of version 1 where one has it, else
// version 2 if it hands the controller down.
func (p *Parent) of(controller string) (dir, bool) {
	var two *dir
	for i, d := range p.dirs {
		if d.Has(controller) {
			return d, true
		}
		// Of version 2 devices are a program, and the core is always there.
		if d.Unified && (slices.Contains(d.delegated, controller) || controller == "devices" || controller == "cgroup") {
			two = &p.dirs[i]
		}
	}
	if two == nil {
		return dir{}, false
	}
	return *two, true
}

// hasV1 reports whether a version 1 hierarchy has the controller.
func (p *Parent) hasV1(controller string) bool {
	return slices.ContainsFunc(p.dirs, func(d dir) bool { return d.Has(controller) })
}

// unified is the version 2 hierarchy.
func (p *Parent) unified() (dir, bool) {
	at := slices.IndexFunc(p.dirs, func(d dir) bool { return d.Unified })
	if at < 0 {
		return dir{}, false
	}
	return p.dirs[at], true
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
func (p *Parent) Entry() (Entry, error) { return p.Group(".").entry() }

// tasks opens the version 1 tasks files of a group.
func (p *Parent) tasks(name string) ([]*os.File, error) {
	var out []*os.File
	for _, d := range p.dirs {
		if d.Unified {
			continue
		}
		file := filepath.Join(name, "tasks")
		fd, err := openAt(int(d.f.Fd()), file, unix.O_WRONLY)
		if err != nil {
			Entry{Tasks: out}.Close()
			return nil, fmt.Errorf("open %s of cgroup %s in %s: %w", file, p.path, d.Label(), err)
		}
		out = append(out, os.NewFile(uintptr(fd), file))
	}
	return out, nil
}

// List names the groups of this parent, sorted, without spares.
func (p *Parent) List() ([]string, error) {
	names, err := p.list()
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, sparePrefix) }), err
}

// list names them all.
func (p *Parent) list() ([]string, error) {
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
		at := filepath.Join(d.Mount, d.path)
		err := again(func() error { return unix.Rmdir(at) })
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, &os.PathError{Op: "remove cgroup", Path: at, Err: err})
		}
	}
	return errors.Join(errs...)
}
