package layertar

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

// MakeTarget makes a mount point in a root filesystem, with the directories on
// the way, and tells which paths (relative to the root) it has made. What is
// there stays as it is, also where it is not what was asked for: through a
// link of the image nothing is made. Directories' times stay as they were.
// lowers are the layers below root, top first, if it is an upper directory:
// directories that they have are made as they have them.
func MakeTarget(root *os.File, t driver.Target, m driver.IDMap, lowers ...*os.File) ([]string, error) {
	parts, err := split(t.Path)
	if err != nil {
		return nil, fmt.Errorf("target %q: %w", clip(t.Path), err)
	}
	cur := cursor{root: int(root.Fd())}
	defer cur.cut(0)
	var made []string
	for i, name := range parts {
		full := strings.Join(parts[:i+1], "/")
		if i == len(parts)-1 && t.File {
			fresh, err := makeTargetFile(cur.dir(), name, m)
			if fresh {
				made = append(made, full)
			}
			return made, targetError(t, err)
		}
		fd, fresh, err := makeTargetDir(cur.dir(), name, m)
		if fresh {
			made = append(made, full)
		}
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return made, nil
		}
		if err != nil {
			return made, targetError(t, err)
		}
		cur.push(name, fd)
		if fresh {
			if _, err := inheritFrom(lowers, parts[:i+1], fd, m); err != nil {
				return made, targetError(t, err)
			}
		}
	}
	return made, nil
}

// HiddenTargets tells which targets something below the layers could not
// show, since a layer has deleted them or a directory on the way to them, and
// the layers themselves do not show either. lowers are all layers, top first.
func HiddenTargets(lowers []*os.File, targets []driver.Target) ([]driver.Target, error) {
	var out []driver.Target
	for _, t := range targets {
		parts, err := split(t.Path)
		if err != nil {
			return nil, fmt.Errorf("target %q: %w", clip(t.Path), err)
		}
		var dirs []int
		for _, l := range lowers {
			fd, err := openat(int(l.Fd()), ".", dirFlags, 0)
			if err != nil {
				return nil, targetError(t, err)
			}
			dirs = append(dirs, fd)
		}
		hidden, err := isHidden(dirs, parts)
		if err != nil {
			return nil, targetError(t, err)
		}
		if hidden {
			out = append(out, t)
		}
	}
	return out, nil
}

// isHidden walks down the merged directories dirs, which it closes.
func isHidden(dirs []int, parts []string) (bool, error) {
	cut := false // something below the layers is not seen from here on
	for _, name := range parts {
		next, stop, file, err := merge(dirs, name)
		closeAll(dirs)
		dirs = next
		cut = cut || stop
		if err != nil || file {
			closeAll(dirs)
			return false, err // what the image has there wins
		}
		if len(dirs) == 0 {
			return cut, nil
		}
	}
	closeAll(dirs)
	return false, nil // the layers show it
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// merge opens the directories that overlayfs merges into name. stop: nothing
// below them is seen. file: name is no directory.
func merge(dirs []int, name string) (next []int, stop, file bool, err error) {
	for _, dir := range dirs {
		st, err := lstat(dir, name)
		switch {
		case errors.Is(err, unix.ENOENT):
			if isOpaque(dir) {
				return next, true, false, nil
			}
			continue
		case err != nil:
			return next, false, false, err
		case isWhiteout(&st):
			return next, true, false, nil
		case !isDir(&st):
			return next, true, len(next) == 0, nil
		}
		fd, err := openat(dir, name, dirFlags, 0)
		if err != nil {
			return next, false, false, err
		}
		next = append(next, fd)
		if isOpaque(dir) || isOpaque(fd) {
			return next, true, false, nil
		}
	}
	return next, false, false, nil
}

func targetError(t driver.Target, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("make target %s: %w", clip(t.Path), class(err))
}

// keepTimes calls f, which makes something in dir, and sets dir's times back.
func keepTimes(dir int, f func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	times := [2]unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(dir, ".", times[:], 0)
}

func makeTargetFile(dir int, name string, m driver.IDMap) (bool, error) {
	if _, err := lstat(dir, name); err == nil {
		return false, nil
	}
	uid, gid, err := MapOwner(m, 0, 0)
	if err != nil {
		return false, err
	}
	err = keepTimes(dir, func() error {
		fd, err := openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return errors.Join(unix.Fchown(fd, uid, gid), unix.Fchmod(fd, 0o644))
	})
	return err == nil, err
}

func makeTargetDir(dir int, name string, m driver.IDMap) (fd int, fresh bool, err error) {
	fd, err = openat(dir, name, dirFlags, 0)
	if !errors.Is(err, unix.ENOENT) {
		return fd, false, err
	}
	uid, gid, err := MapOwner(m, 0, 0)
	if err != nil {
		return -1, false, err
	}
	err = keepTimes(dir, func() error {
		if err := unix.Mkdirat(dir, name, 0o755); err != nil {
			return err
		}
		fd, err = openat(dir, name, dirFlags, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.Fchown(fd, uid, gid), unix.Fchmod(fd, 0o755))
	})
	return fd, err == nil, err
}
