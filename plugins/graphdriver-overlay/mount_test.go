package overlay

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/sdk/driver"
)

// mounted mounts m in a mount namespace of its own and calls f there with the
// mount's place. The namespace ends with its thread, and the mount with it.
func mounted(t *testing.T, m driver.Mount, f func(root string) error) {
	t.Helper()
	root := t.TempDir()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not fit for others
		done <- mountAndCall(m, root, f)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func mountAndCall(m driver.Mount, root string, f func(root string) error) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
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
	if err := unix.MoveMount(int(mnt.Fd()), "", unix.AT_FDCWD, root, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move mount: %w", err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	return f(root)
}

// listing describes what is seen below root, one line each.
func listing(root string) (string, error) {
	var out []string
	err := filepath.Walk(root, func(path string, fi os.FileInfo, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		line := fmt.Sprintf("%s %v", rel, fi.Mode())
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(b)
		}
		out = append(out, line)
		return nil
	})
	return strings.Join(out, "\n"), err
}

var ctx = context.Background()
