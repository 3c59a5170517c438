package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// InMountNamespaceOf runs f on a thread of its own that has entered the mount
// namespace of another process, whose root is then its root. The thread ends
// with f. pid must be held by whoever calls (a pidfd), or it may be another's.
func InMountNamespaceOf(pid int, f func() error) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	onOwnThread(func() {
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			err = fmt.Errorf("unshare working directory: %w", err)
		} else if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			err = fmt.Errorf("enter mount namespace: %w", err)
		} else {
			err = f()
		}
	})
	return err
}

// InPrivateRoot runs f on a thread of its own whose root is a detached mount, in
// a mount namespace that holds nothing else and ends with f. At is a directory
// that lends its place for the change; nothing of this is seen there.
func InPrivateRoot(root Detached, at string, f func() error) error {
	var err error
	onOwnThread(func() {
		if err = enterRoot(root, at); err == nil {
			err = f()
		}
	})
	return err
}

func enterRoot(root Detached, at string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.MoveMount(int(root.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach root: %w", err)
	}
	// pivot_root(2), "pivot_root(".", ".")": the old root comes over the new one.
	if err := unix.Chdir(at); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach old root: %w", err)
	}
	return unix.Chdir("/")
}

// AttachBelow attaches a detached mount at a path below the root of a thread,
// which may be hostile. A path that is not there is ErrNotExist.
func AttachBelow(root *os.File, m Detached, path string) error {
	at, err := OpenInRoot(root, path, unix.O_PATH)
	if err != nil {
		return err
	}
	defer at.Close()
	err = unix.MoveMount(int(m.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return &os.PathError{Op: "attach mount", Path: path, Err: err}
	}
	return nil
}

// CloneMountOf makes a detached copy of the mount at a path in the mount
// namespace of another process, which only somebody in it can make. The path is
// resolved below that process's root.
func CloneMountOf(pid int, path string) (Detached, error) {
	var m Detached
	err := InMountNamespaceOf(pid, func() (err error) {
		m, err = cloneHere(path)
		return err
	})
	return m, err
}

// cloneHere copies the mount that a path is the root of, without those below.
func cloneHere(path string) (Detached, error) {
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

// RootOf is the root directory of the calling thread, whole or without what is
// mounted in it.
func RootOf(alone bool) (*os.File, error) {
	if alone {
		m, err := cloneHere("/")
		return m.File, err
	}
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(errors.New("open root"), err)
	}
	return os.NewFile(uintptr(fd), "/"), nil
}

// RootToRead is RootOf for whoever opens files that strangers may change meanwhile.
// It is a copy of its own, below which no device can be opened: to open one that has
// come in a file's place might have effects, and the rules of its own cgroup bind a
// container, not the caller.
func RootToRead(alone bool) (*os.File, error) {
	m, err := CloneMount("/", !alone)
	if err != nil {
		return nil, err
	}
	if err := m.SetAttr(unix.MOUNT_ATTR_NODEV, 0, 0, !alone); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m.File, nil
}
