package cgroup

import (
	"errors"
	"os"
	"strings"

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
	defer unix.Close(fd)
	text, err := readWhole(fd)
	if err != nil {
		return "", &os.PathError{Op: "read", Path: name, Err: err}
	}
	return text, nil
}

// longest bounds what is read of one file: no file of ours is longer; the pids
// of a huge group are read by Kill again.
const longest = 1 << 20

// readWhole reads a file from its beginning.
func readWhole(fd int) (string, error) {
	var buf [4096]byte
	var long strings.Builder
	for at := int64(0); at < longest; {
		var n int
		err := again(func() (err error) {
			n, err = unix.Pread(fd, buf[:], at)
			return err
		})
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
		at += int64(n)
		long.Write(buf[:n])
	}
	return long.String(), nil
}

// readOnce reads a file of one short line with one read.
func readOnce(fd int) (string, error) {
	var buf [256]byte
	var n int
	err := again(func() (err error) {
		n, err = unix.Pread(fd, buf[:], 0)
		return err
	})
	return string(buf[:max(n, 0)]), err
}

// writeAt opens a file below a directory's descriptor and writes one value.
func writeAt(dir int, name, value string) error {
	fd, err := openAt(dir, name, unix.O_WRONLY)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if err := writeOnce(fd, value); err != nil {
		return &os.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

// writeOnce writes one value with one write, as these files want it.
func writeOnce(fd int, value string) error {
	return again(func() error { _, err := unix.Write(fd, []byte(value)); return err })
}
