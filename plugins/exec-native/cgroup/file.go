package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// again repeats a system call that a signal interrupted.
func again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openAt opens a file below a directory's descriptor.
func openAt(dir int, name string, flags int) (int, error) {
	fd := -1
	err := again(func() (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// readAt reads a small file whole.
func readAt(dir int, name string) (string, error) {
	fd, err := openAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var b strings.Builder
	buf := make([]byte, 4096)
	for b.Len() < 1<<20 { // no file of ours is longer; pids of a huge group are read by Kill again
		n, err := unix.Read(int(f.Fd()), buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return "", &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			break
		}
		b.Write(buf[:n])
	}
	return b.String(), nil
}

// writeAt opens a file below a directory's descriptor and writes one value.
func writeAt(dir int, name, value, back string) error {
	fd, err := openForWrite(dir, name, back != "")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return writeValue(fd, name, value, back)
}

// openForWrite opens a file for values; readable as well if they are read back.
func openForWrite(dir int, name string, readBack bool) (int, error) {
	flags := unix.O_WRONLY
	if readBack {
		flags = unix.O_RDWR
	}
	fd, err := openAt(dir, name, flags)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// writeValue writes one value with one write, as these files want it, and reads
// back what became of it if back is not empty.
func writeValue(fd int, name, value, back string) error {
	if err := again(func() error { _, err := unix.Write(fd, []byte(value)); return err }); err != nil {
		return &os.PathError{Op: "write", Path: name, Err: err}
	}
	if back == "" {
		return nil
	}
	var buf [256]byte
	n, err := unix.Pread(fd, buf[:], 0)
	if err != nil {
		return &os.PathError{Op: "read back", Path: name, Err: err}
	}
	if got := strings.TrimSpace(string(buf[:n])); got != back && !sameNumber(got, back) {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "%s: wrote %s, the kernel keeps %q", name, value, got)
	}
	return nil
}

// sameNumber allows for a page size above 4 KiB: a number rounded down by less
// than 64 KiB. Numbers that small are compared exactly by the caller.
func sameNumber(got, want string) bool {
	g, err1 := strconv.ParseInt(got, 10, 64)
	w, err2 := strconv.ParseInt(want, 10, 64)
	return err1 == nil && err2 == nil && w >= 1<<20 && g <= w && w-g < 64<<10
}

// refusal puts a failed write into words and a class: file, value, group, and
// what the kernel said.
func refusal(group string, w Write, err error) error {
	var class error = errdefs.ErrInternal
	switch {
	case errors.Is(err, errdefs.ErrInvalidArgument):
		return fmt.Errorf("set limit of cgroup %s: %w", group, err)
	case errors.Is(err, unix.ENOENT):
		return errclass.Errorf(errdefs.ErrNotImplemented, "set limit of cgroup %s: this kernel has no %s", group, w.File)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EBUSY):
		class = errdefs.ErrInvalidArgument
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		class = errdefs.ErrPermissionDenied
	}
	return fmt.Errorf("set limit of cgroup %s: %q to %s: %w: %w", group, w.Value, w.File, err, class)
}
