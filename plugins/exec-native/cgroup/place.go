package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Place is where a group is: its path below the root of each hierarchy, by the
// hierarchy's label. A runtime keeps it with the container's state.
type Place map[string]string

// ByName parts a place into those of one name, in the order of their names: a
// group has one name in all its hierarchies.
func (p Place) ByName() []Place {
	parts := map[string]Place{}
	for label, path := range p {
		name := filepath.Base(path)
		if parts[name] == nil {
			parts[name] = Place{}
		}
		parts[name][label] = path
	}
	var out []Place
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		out = append(out, parts[name])
	}
	return out
}

// At is the place with the same path, absolute and clean, in all hierarchies.
func (t Tree) At(path string) (Place, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || strings.ContainsAny(path, "\n\x00") {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "cgroup path %q: want an absolute, clean one", path)
	}
	place := Place{}
	for _, h := range t.Hierarchies {
		place[h.Label()] = path
	}
	return place, nil
}

// Place finds out where the specification's cgroupsPath leads, as runc takes
// it: an absolute path begins at each hierarchy's root. A relative one begins at
// this process's own group, of version 2 at the one above that (a group with
// processes cannot hand controllers down). An empty one is the container's id,
// relative.
func (t Tree) Place(cgroupsPath, id string) (Place, error) {
	if strings.ContainsAny(cgroupsPath, "\n\x00") {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "cgroupsPath %q: control characters", cgroupsPath)
	}
	if filepath.IsAbs(cgroupsPath) {
		return t.At(filepath.Clean(cgroupsPath))
	}
	inner := cgroupsPath
	if inner == "" {
		inner = id
	}
	// "..", however deep, does not lead out of where the path begins.
	if inner = filepath.Clean("/" + inner); inner == "/" {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "cgroupsPath %q names no group", cgroupsPath)
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read own cgroups: %w", err)
	}
	own := parseOwn(text)
	place := Place{}
	for _, h := range t.Hierarchies {
		begin, ok := own[h.Key()]
		if !ok {
			begin = "/"
		}
		if h.Unified {
			begin = filepath.Dir(begin)
		}
		place[h.Label()] = filepath.Join(begin, inner)
	}
	return place, nil
}

// parseOwn reads /proc/PID/cgroup: paths by controllers as the kernel lists
// them, that of version 2 by "". A group outside this process's cgroup
// namespace begins with "/..": the root is as near as one gets.
func parseOwn(text []byte) map[string]string {
	own := map[string]string{}
	for line := range bytes.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(parts) == 3 {
			own[parts[1]] = filepath.Clean("/" + strings.TrimSuffix(parts[2], " (deleted)"))
		}
	}
	return own
}

// makeTries bounds how often a group is tried again whose parent somebody
// removed meanwhile, as Remove does with one that has become empty.
const makeTries = 100

// Make makes the group at a place with its limits, and the groups above it that
// are missing; those are removed again with the last group inside. Errors are
// those of Create. The caller closes the group.
//
// Without the rights of root, hierarchies that belong to somebody else are left
// out: a limit that needs one is refused by name.
func (t Tree) Make(place Place, r *specs.LinuxResources) (*Group, error) {
	return t.Adopt(place, 0, r)
}

// Adopt is Make for a group that somebody else has made for this container, as
// systemd does: the process that holds it does not make it one in use.
func (t Tree) Adopt(place Place, holder int, r *specs.LinuxResources) (*Group, error) {
	for try := 1; ; try++ {
		g, err := t.makeOnce(place, holder, r)
		if err == nil || !isGone(err) || errors.Is(err, errdefs.ErrNotImplemented) || try == makeTries {
			return g, err
		}
	}
}

func (t Tree) makeOnce(place Place, holder int, r *specs.LinuxResources) (*Group, error) {
	p, name, err := t.openPlace(place, walk{delegate: true, mark: true})
	if err != nil {
		return nil, err
	}
	p.holder = holder
	if err = p.refuseFrozen(); err == nil {
		var g *Group
		if g, err = p.Create(name, r); err == nil {
			g.own = true
			return g, nil
		}
	}
	p.RemoveMade()
	p.Close()
	return nil, err
}

// Open finds the group at a place. The caller closes it. NotFound: it is in no
// hierarchy.
func (t Tree) Open(place Place) (*Group, error) {
	p, name, err := t.openPlace(place, walk{only: true})
	if err != nil {
		return nil, err
	}
	g := &Group{p: p, name: name, own: true}
	for _, d := range p.dirs {
		if isThere(int(d.f.Fd()), name) {
			return g, nil
		}
	}
	p.Close()
	return nil, errclass.Errorf(errdefs.ErrNotFound, "cgroup %s is in no hierarchy", g.full())
}

// Remove removes the group at a place, as Group.Remove does, also where it is
// not in all hierarchies or not there at all.
func (t Tree) Remove(ctx context.Context, place Place) error {
	g, err := t.Open(place)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer g.Close()
	return g.Remove(ctx)
}

// Has reports whether there is a group at a place, in any hierarchy.
func (t Tree) Has(place Place) bool {
	return slices.ContainsFunc(t.Hierarchies, func(h Hierarchy) bool {
		path, ok := place[h.Label()]
		return ok && isThere(unix.AT_FDCWD, filepath.Join(h.Mount, path))
	})
}

// Sweep is Remove for what a Make that broke off has left at a place, where nothing
// was before: those above that it has made go, too, if it has made no more.
func (t Tree) Sweep(ctx context.Context, place Place) error {
	p, name, err := t.openPlace(place, walk{only: true})
	if err == nil {
		g := &Group{p: p, name: name, own: true}
		defer g.Close()
		if err := g.Remove(ctx); err != nil {
			return err
		}
	} else if !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	for _, h := range t.Hierarchies {
		if path, ok := place[h.Label()]; ok {
			removeMade(h.Mount, filepath.Dir(path))
		}
	}
	return nil
}

// openPlace opens the directories above the place's groups.
func (t Tree) openPlace(place Place, how walk) (*Parent, string, error) {
	name := ""
	for _, path := range place {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
			return nil, "", errclass.Errorf(errdefs.ErrInvalidArgument, "cgroup path %q: want an absolute, clean one", path)
		}
		name = filepath.Base(path)
	}
	if len(place.ByName()) != 1 {
		return nil, "", errclass.Errorf(errdefs.ErrInvalidArgument, "the groups of a place have one name in all hierarchies, not those of %v", place)
	}
	p := &Parent{}
	for _, h := range t.Hierarchies {
		path, ok := place[h.Label()]
		if !ok {
			continue
		}
		d, err := makeParent(h, filepath.Dir(path), how)
		if err == nil && !how.only && os.Geteuid() != 0 && !mayMake(d) {
			d.f.Close()
			err = unix.EACCES
		}
		switch {
		case how.only && isGone(err), os.Geteuid() != 0 && isDenied(err):
			continue
		case err != nil:
			p.Close()
			return nil, "", fmt.Errorf("make cgroup %s in %s: %w", filepath.Dir(path), h.Mount, err)
		}
		if p.dirs = append(p.dirs, d); p.path == "" || h.Unified {
			p.path = d.path
		}
	}
	if len(p.dirs) == 0 {
		class := error(errdefs.ErrPermissionDenied)
		if how.only {
			class = errdefs.ErrNotFound
		}
		return nil, "", errclass.Errorf(class, "no hierarchy has or takes the cgroup %s", name)
	}
	return p, name, nil
}

// mayMake reports whether this process may make groups in a directory.
func mayMake(d dir) bool {
	return unix.Faccessat(int(d.f.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
}

// isDenied reports whether an error says that a hierarchy is somebody else's.
func isDenied(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
}

// refuseFrozen refuses a place below a frozen group: what is put there hangs.
func (p *Parent) refuseFrozen() error {
	for _, d := range p.dirs {
		frozen, err := isFrozen(d, ".")
		if err != nil {
			return fmt.Errorf("look at freezer of cgroup %s: %w", d.path, err)
		}
		if frozen {
			return errclass.Errorf(errdefs.ErrFailedPrecondition, "cgroup %s is frozen", d.path)
		}
	}
	return nil
}

// Extended attributes that mark a directory as made by this package: the first
// needs the rights of root, the second Linux 5.7. The fact stands beside the
// resource, so that no state can be lost. All that a forged one can bring about
// is that an empty group goes.
const (
	rootMark = "trusted.gantry.made"
	userMark = "user.gantry.made"
)

// mark remembers that the directory was made here. Where the kernel keeps no
// attributes the directory stays when it is empty.
func mark(fd int, name string) {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", fd, name)
	if unix.Setxattr(path, rootMark, []byte("1"), 0) != nil {
		_ = unix.Setxattr(path, userMark, []byte("1"), 0)
	}
}

// isMarked reports whether a directory was made here. One that is not there any
// more is in nobody's way.
func isMarked(path string) bool {
	for _, attribute := range []string{rootMark, userMark} {
		if _, err := unix.Lgetxattr(path, attribute, nil); err == nil || errors.Is(err, unix.ENOENT) {
			return true
		}
	}
	return false
}

// RemoveMade removes the parent and those above it as far as this package made
// them for a group inside (OpenShared, Make) and nobody uses them.
func (p *Parent) RemoveMade() {
	for _, d := range p.dirs {
		removeMade(d.Mount, d.path)
	}
}

// removeMade is RemoveMade in one hierarchy.
func removeMade(mount, path string) {
	for ; path != "/" && path != "."; path = filepath.Dir(path) {
		at := filepath.Join(mount, path)
		if !isMarked(at) || ignoreGone(again(func() error { return unix.Rmdir(at) })) != nil {
			return
		}
	}
}

func ignoreGone(err error) error {
	if isGone(err) {
		return nil
	}
	return err
}
