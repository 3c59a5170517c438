package graphtest

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
)

// Inside mounts mounts in a mount namespace of its own and calls f with the
// directory where the root filesystem is. Nothing is seen by, or left to, the
// rest of the machine.
func Inside(t conform.T, mounts []driver.Mount, f func(root string)) {
	t.Helper()
	root := t.TempDir()
	var err error
	conform.OnThread(func() { err = mounted(root, mounts, f) })
	if err != nil {
		t.Fatalf("mount what PrepareRootfs has answered (%+v): %v", mounts, err)
	}
}

func mounted(root string, mounts []driver.Mount, f func(root string)) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	for _, m := range mounts {
		if err := mountOne(m, root+strings.TrimSuffix(m.Target, "/")); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.Type, m.Target, err)
		}
	}
	f(root)
	return nil
}

// mountOne mounts m at target with the new mount API.
func mountOne(m driver.Mount, target string) error {
	switch m.Type {
	case "bind":
		return bind(m, target)
	case "overlay":
		return overlay(m, target)
	}
	fs, err := unix.Fsopen(m.Type, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	if m.Source != "" {
		if err := unix.FsconfigSetString(fs, "source", m.Source); err != nil {
			return fmt.Errorf("source %s: %w", m.Source, err)
		}
	}
	for _, o := range m.Options {
		key, value, valued := strings.Cut(o, "=")
		if valued {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", o, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(mnt)
	return unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// overlay takes each lower directory as an option of its own ("lowerdir+"), also
// where the kernel does not (before Linux 6.8).
func overlay(m driver.Mount, target string) error {
	var lower, flags []string
	var upper, work string
	for _, o := range m.Options {
		switch key, value, _ := strings.Cut(o, "="); key {
		case "lowerdir+":
			lower = append(lower, value)
		case "upperdir":
			upper = value
		case "workdir":
			work = value
		default:
			flags = append(flags, o)
		}
	}
	mnt, err := linux.MountOverlay(lower, upper, work, flags)
	if err != nil {
		return err
	}
	defer mnt.Close()
	return unix.MoveMount(int(mnt.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func bind(m driver.Mount, target string) error {
	flags := uintptr(unix.MS_BIND)
	readOnly := false
	for _, o := range m.Options {
		switch o {
		case "rbind":
			flags |= unix.MS_REC
		case "ro":
			readOnly = true
		case "bind", "rw":
		default:
			return fmt.Errorf("option %q of a bind is not known", o)
		}
	}
	if err := unix.Mount(m.Source, target, "", flags, ""); err != nil {
		return err
	}
	if readOnly {
		return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	return nil
}

// mountsBelow lists the mounts of this machine's table at or below a directory.
func mountsBelow(t conform.T, dir string) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatalf("read the mount table: %v", err)
	}
	var found []string
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			found = append(found, f[4])
		}
	}
	return found
}
