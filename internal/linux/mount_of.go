package linux

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// CloneMountOf makes a detached copy of the mount at a path in the mount
// namespace of another process, which only somebody in it can make. The path is
// resolved below that process's root.
func CloneMountOf(pid int, path string) (Detached, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return Detached{}, err
	}
	defer ns.Close()
	var m Detached
	onOwnThread(func() { m, err = cloneIn(ns, path) })
	return m, err
}

// cloneIn moves the thread into a mount namespace, whose root becomes its root.
func cloneIn(ns *os.File, path string) (Detached, error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return Detached{}, fmt.Errorf("unshare working directory: %w", err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return Detached{}, fmt.Errorf("enter mount namespace: %w", err)
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	at, err := unix.Openat2(unix.AT_FDCWD, path, &how)
	if err != nil {
		return Detached{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(at)
	fd, err := unix.OpenTree(at, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return Detached{}, &os.PathError{Op: "clone mount", Path: path, Err: err}
	}
	return Detached{os.NewFile(uintptr(fd), path)}, nil
}
