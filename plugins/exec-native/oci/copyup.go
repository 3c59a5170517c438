package oci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Bounds of what tmpcopyup copies from an image into memory.
const (
	copyEntries = 100_000
	copyDepth   = 128
)

// forkPatience is how long a mount may be busy that is to become read-only: a process
// that another thread is making has copies of the files written, until its exec.
const forkPatience = 5 * time.Second

// filledTmpfs makes a tmpfs that holds what the image has at its place
// (tmpcopyup). The copy goes from descriptor to descriptor: the image cannot
// lead out of itself.
func (o Opener) filledTmpfs(m specs.Mount, opts options) (linux.Detached, error) {
	if o.Root == nil {
		return linux.Detached{}, errclass.Errorf(errdefs.ErrNotImplemented, "tmpcopyup at %s: no root to copy from", m.Destination)
	}
	label := ""
	if o.Spec != nil && o.Spec.Linux != nil {
		label = o.Spec.Linux.MountLabel
	}
	d, err := MakeFilesystem("tmpfs", filesystemOf(m, opts, label).Params, opts.top.set&^unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return d, Classify(err)
	}
	from, err := openSource(o.Root, m.Destination)
	switch {
	case errors.Is(err, unix.ENOENT):
	case err == nil:
		left := copyEntries
		err = copyTree(int(from.Fd()), int(d.Fd()), &left, 0)
		from.Close()
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		d.Close()
		return linux.Detached{}, fmt.Errorf("copy up %s: %w", m.Destination, Exhausted(err))
	}
	opts.top.set &= unix.MOUNT_ATTR_RDONLY // after the files
	err = o.finish(d, m, opts)
	for end := time.Now().Add(forkPatience); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
		err = o.finish(d, m, opts)
	}
	if err != nil {
		d.Close()
		return linux.Detached{}, err
	}
	return d, nil
}

// openSource opens the directory of the image that a tmpfs is to cover.
func openSource(root *os.File, name string) (*os.File, error) {
	if weak.Off(weak.CopyUpInRoot) {
		fd, err := unix.Openat(int(root.Fd()), "."+name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return os.NewFile(uintptr(fd), name), err
	}
	return linux.OpenInRoot(root, name, unix.O_RDONLY|unix.O_DIRECTORY)
}

// copyTree copies the content, mode and owner of a directory.
func copyTree(from, to int, left *int, depth int) error {
	if depth > copyDepth {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "more than %d directories deep", copyDepth)
	}
	names, err := namesIn(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if *left--; *left < 0 {
			return errclass.Errorf(errdefs.ErrResourceExhausted, "more than %d files", copyEntries)
		}
		if err := copyEntry(from, to, name, left, depth); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return copyOwner(from, to)
}

// namesIn lists a directory without moving the caller's descriptor.
func namesIn(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	return f.Readdirnames(-1)
}

// copyOwner gives one open file the mode and owner of another.
func copyOwner(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := unix.Fchownat(to, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", to), st.Mode&0o7777)
}

// copyEntry copies one name, whatever it is; sockets are left out.
func copyEntry(from, to int, name string, left *int, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		return copyOpened(from, to, name, unix.O_RDONLY|unix.O_DIRECTORY, unix.O_RDONLY|unix.O_DIRECTORY, func(a, b int) error {
			return copyTree(a, b, left, depth+1)
		})
	case unix.S_IFREG:
		return copyOpened(from, to, name, unix.O_RDONLY|unix.O_NONBLOCK, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, copyFile)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, buf)
		if err == nil {
			err = unix.Symlinkat(string(buf[:n]), to, name)
		}
		if err == nil {
			err = unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
		}
		return err
	case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
		if err := unix.Mknodat(to, name, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
		return unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// copyOpened opens a name on both sides, never through a link.
func copyOpened(from, to int, name string, read, write int, do func(from, to int) error) error {
	a, err := unix.Openat(from, name, read|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(a)
	b, err := unix.Openat(to, name, write|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(b)
	return do(a, b)
}

// copyFile copies the bytes, mode and owner of a regular file.
func copyFile(from, to int) error {
	a, errA := unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, 0)
	b, errB := unix.FcntlInt(uintptr(to), unix.F_DUPFD_CLOEXEC, 0)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	src, dst := os.NewFile(uintptr(a), "source"), os.NewFile(uintptr(b), "copy")
	defer src.Close()
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return copyOwner(from, to)
}
