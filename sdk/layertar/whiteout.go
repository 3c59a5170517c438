package layertar

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

// Names of the OCI image specification, "layer.md", inherited from aufs.
const (
	whiteoutPrefix = ".wh."
	aufsPrefix     = ".wh..wh."
	opaqueName     = ".wh..wh..opq"
)

// errAbsent says that a directory to delete in is not there; errHidden, that
// the layer itself hides it.
var (
	errAbsent = errors.New("no such directory")
	errHidden = errors.New("hidden by the layer")
)

// whiteout hides what is below the layer and leaves what is in it.
func (u *unpacker) whiteout(parent []string, name string) error {
	hidden := strings.TrimPrefix(name, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("whiteout of %q: %w", hidden, errdefs.ErrInvalidArgument)
	}
	if name == opaqueName {
		if err := u.cur.seek(parent, u.enter); err != nil {
			return err
		}
		return u.makeOpaque(u.cur.dir(), len(parent) == 0)
	}
	// A whiteout makes no directory of its own, unless overlayfs needs one.
	err := u.cur.seek(parent, u.enterExisting)
	switch {
	case errors.Is(err, errHidden):
		return nil
	case errors.Is(err, errAbsent):
		if u.o.Whiteouts == Apply {
			return nil
		}
		seen, err := u.isSeenBelow(append(slices.Clone(parent), hidden))
		if err != nil || !seen {
			return err
		}
		if err := u.cur.seek(parent, u.enter); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	dir := u.cur.dir()
	if u.o.Whiteouts == Apply {
		if _, err := u.clear(dir, hidden); err != nil {
			return fmt.Errorf("delete %q: %w", hidden, class(err))
		}
		return nil
	}
	return u.hide(dir, hidden)
}

// hide makes an overlay whiteout of name, or makes a directory opaque that
// the layer itself has under this name. A whiteout of nothing is not made: in
// a directory that no layer below has, overlayfs would list it.
func (u *unpacker) hide(dir int, name string) error {
	st, err := lstat(dir, name)
	switch {
	case err == nil && isDir(&st):
		fd, err := openat(dir, name, dirFlags, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return u.makeOpaque(fd, false)
	case err == nil:
		return nil
	case !errors.Is(err, unix.ENOENT):
		return class(err)
	}
	seen, err := u.isSeenBelow(append(slices.Clone(u.cur.names), name))
	if err != nil || !seen {
		return err
	}
	if err := unix.Mknodat(dir, name, unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("make whiteout: %w", class(err))
	}
	u.res.Hides = true
	return nil
}

// isSeenBelow reports whether the layers below show something at path that
// this layer does not hide already.
func (u *unpacker) isSeenBelow(path []string) (bool, error) {
	if u.hidesBelow() {
		return false, nil
	}
	parent, name := path[:len(path)-1], path[len(path)-1]
	for _, lower := range u.o.Lowers {
		dir, hidden, err := openLower(lower, parent)
		if err != nil {
			return false, err
		}
		if dir >= 0 {
			st, err := lstat(dir, name)
			hidden = hidden || isOpaque(dir)
			unix.Close(dir)
			if err == nil {
				return !isWhiteout(&st), nil
			}
		}
		if hidden {
			return false, nil
		}
	}
	return false, nil
}

// hidesBelow reports whether nothing of the layers below is seen in the
// current directory.
func (u *unpacker) hidesBelow() bool {
	return u.res.OpaqueRoot || slices.ContainsFunc(u.cur.fds, isOpaque)
}

func isOpaque(fd int) bool {
	value, err := getXattr(procPath(fd, "."), opaqueXattr)
	return err == nil && string(value) == "y"
}

// dropWhiteouts removes the whiteouts below a directory that has become
// opaque: there is nothing left for them to hide.
func dropWhiteouts(fd int) error {
	names, err := readNames(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		st, err := lstat(fd, name)
		if err != nil {
			return err
		}
		if isWhiteout(&st) {
			err = unix.Unlinkat(fd, name, 0)
		} else if isDir(&st) {
			var child int
			if child, err = openat(fd, name, dirFlags, 0); err == nil {
				err = dropWhiteouts(child)
				unix.Close(child)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeOpaque hides all that the layers below have in a directory.
func (u *unpacker) makeOpaque(fd int, root bool) error {
	if u.o.Whiteouts == Apply {
		names, err := readNames(fd)
		if err != nil {
			return err
		}
		for _, name := range names {
			if _, err := u.clear(fd, name); err != nil {
				return fmt.Errorf("delete %q: %w", name, class(err))
			}
		}
		return nil
	}
	if err := dropWhiteouts(fd); err != nil {
		return class(err)
	}
	u.res.Hides = true
	if root {
		u.res.OpaqueRoot = true
		return nil
	}
	if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("make opaque: %w", class(err))
	}
	return nil
}

// clear deletes name in dir with all below it, except entries of this layer
// and the directories they are in. It reports whether name is gone.
func (u *unpacker) clear(dir int, name string) (bool, error) {
	st, err := lstat(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if !isDir(&st) {
		if u.isMade(&st) {
			return false, nil
		}
		return true, unix.Unlinkat(dir, name, 0)
	}
	fd, err := openat(dir, name, dirFlags, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	names, err := readNames(fd)
	if err != nil {
		return false, err
	}
	left := u.isMade(&st)
	for _, child := range names {
		gone, err := u.clear(fd, child)
		if err != nil {
			return false, err
		}
		left = left || !gone
	}
	if left {
		return false, nil
	}
	return true, unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// enterExisting opens the directory name in the current one, if it is there.
func (u *unpacker) enterExisting(name string) (int, error) {
	fd, err := openat(u.cur.dir(), name, dirFlags, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return -1, errAbsent
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		st, err := lstat(u.cur.dir(), name)
		switch {
		case err == nil && u.o.Whiteouts == Overlay && isWhiteout(&st):
			return -1, errHidden
		case err == nil && u.isMade(&st):
			return -1, u.goesThrough(name)
		}
		return -1, errAbsent
	}
	return fd, err
}

// goesThrough refuses an entry whose parent is something else in the layer.
func (u *unpacker) goesThrough(name string) error {
	return fmt.Errorf("goes through %q, which the layer makes a link or a file: %w",
		clip(path.Join(append(slices.Clone(u.cur.names), name)...)), errdefs.ErrInvalidArgument)
}

// enter opens the directory name in the current one, on the way to an entry.
// One that the tar does not describe is made as the layers below have it.
func (u *unpacker) enter(name string) (int, error) {
	dir := u.cur.dir()
	fd, err := openat(dir, name, dirFlags, 0)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		st, err := lstat(dir, name)
		if err != nil {
			return -1, err
		}
		whiteout := u.o.Whiteouts == Overlay && isWhiteout(&st)
		if !whiteout && u.isMade(&st) {
			return -1, u.goesThrough(name)
		}
		return u.makeImplicit(name, !whiteout)
	case errors.Is(err, unix.ENOENT):
		return u.makeImplicit(name, true)
	}
	return -1, fmt.Errorf("open %q: %w", clip(name), class(err))
}

// makeImplicit makes a directory that the tar does not describe. In an
// overlay the topmost directory's attributes are seen, so it gets those of
// the layers below, unless it hides them.
func (u *unpacker) makeImplicit(name string, inherit bool) (int, error) {
	fd, err := u.openOrMake(name)
	if err != nil {
		return -1, fmt.Errorf("make directory %q: %w", clip(name), class(err))
	}
	found := false
	if inherit && !u.hidesBelow() {
		found, err = inheritFrom(u.o.Lowers, append(slices.Clone(u.cur.names), name), fd, driver.IDMap{})
	}
	if err == nil && !found {
		err = u.plainDir(fd)
	}
	if err == nil {
		err = u.mark(fd, ".")
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make directory %q: %w", clip(name), class(err))
	}
	return fd, nil
}

// plainDir gives a directory that nothing describes root as owner and mode 0755.
func (u *unpacker) plainDir(fd int) error {
	uid, gid, err := MapOwner(u.o.IDMap, 0, 0)
	if err != nil {
		return err
	}
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	return unix.Fchmod(fd, 0o755)
}

// inheritRoot describes the root as the layers below do; an entry of the tar
// may do it anew.
func (u *unpacker) inheritRoot() error {
	found, err := inheritFrom(u.o.Lowers, nil, u.cur.root, driver.IDMap{})
	if err == nil && !found {
		err = u.plainDir(u.cur.root)
	}
	return err
}

// inheritFrom copies the attributes that the directory path has in lowers, top
// first, to fd, whose owner is mapped by m. It reports whether they show such a
// directory.
func inheritFrom(lowers []*os.File, path []string, fd int, m driver.IDMap) (bool, error) {
	for _, lower := range lowers {
		from, hidden, err := openLower(lower, path)
		if err != nil {
			return false, err
		}
		if from >= 0 {
			err := copyAttributes(from, fd, m)
			unix.Close(from)
			return err == nil, err
		}
		if hidden {
			return false, nil
		}
	}
	return false, nil
}

// openLower opens the directory path of one layer. Without one, -1 and
// whether the layer hides what the layers below have there.
func openLower(layer *os.File, path []string) (fd int, hidden bool, err error) {
	fd, err = openat(int(layer.Fd()), ".", dirFlags, 0)
	if err != nil {
		return -1, false, err
	}
	for _, part := range path {
		hidden = hidden || isOpaque(fd)
		next, err := openat(fd, part, dirFlags, 0)
		unix.Close(fd)
		switch {
		case errors.Is(err, unix.ENOENT):
			return -1, hidden, nil
		case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
			return -1, true, nil
		case err != nil:
			return -1, false, err
		}
		fd = next
	}
	return fd, hidden, nil
}

// copyAttributes gives the directory to owner (mapped by m), mode and extended
// attributes of the directory from.
func copyAttributes(from, to int, m driver.IDMap) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	uid, gid, err := MapOwner(m, int(st.Uid), int(st.Gid))
	if err != nil {
		return err
	}
	if err := unix.Fchown(to, uid, gid); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	xattrs, err := getXattrs(from, ".")
	if err != nil {
		return err
	}
	for name, value := range xattrs {
		mapped, reason := mapXattr(name, []byte(value), m)
		if reason != "" {
			continue
		}
		if _, err := setXattr(to, ".", name, mapped); err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}
