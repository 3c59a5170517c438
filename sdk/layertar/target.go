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
func MakeTarget(root *os.File, t driver.Target, m driver.IDMap) ([]string, error) {
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
	}
	return made, nil
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
