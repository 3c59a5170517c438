package runtime

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostRoot is the root of a container without a mount namespace, which inherits
// ours (config-linux.md, "namespaces"): a mount upon the root directory, which
// carries all its other mounts. They go with it, in one unmount.
type hostRoot struct {
	Path  string `json:"path"`
	Mount uint64 `json:"mount"` // the kernel's number of it
}

// attachRoot puts the root where the host has it, for a container in the host's
// mount namespace. It is written down first: whoever finds a creation that broke
// off takes it off again.
func (c *creation) attachRoot(root linux.Detached) error {
	if own, _ := oci.HasNamespace(c.b.spec, specs.MountNamespace); own {
		return nil
	}
	if err := root.SetAttr(0, 0, unix.MS_PRIVATE, true); err != nil {
		return err
	}
	number, err := mountNumber(int(root.Fd()), "")
	if err != nil {
		return err
	}
	c.HostRoot = &hostRoot{c.b.spec.Root.Path, number}
	if err := c.save(); err != nil {
		return err
	}
	if err := unix.MoveMount(int(root.Fd()), "", unix.AT_FDCWD, c.HostRoot.Path, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "mount root.path %s upon itself: %w", c.HostRoot.Path, err)
	}
	return nil
}

// detachRoot takes the container's mounts off the host's tree.
func (c *container) detachRoot() error {
	r := c.HostRoot
	if r == nil {
		return nil
	}
	number, err := mountNumber(unix.AT_FDCWD, r.Path)
	switch {
	case errors.Is(err, unix.ENOENT), err == nil && number != r.Mount:
		return nil // it has never been attached, or somebody was quicker
	case err == nil:
		err = unix.Unmount(r.Path, unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("take the container's mounts off %s: %w", r.Path, err)
	}
	return nil
}

// mountNumber is the kernel's number of the mount that a path is on: one that
// is never given again, from Linux 6.8 on.
func mountNumber(dir int, path string) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(dir, path, unix.AT_EMPTY_PATH, unix.STATX_MNT_ID_UNIQUE, &st); err != nil {
		return 0, err
	}
	if st.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		if err := unix.Statx(dir, path, unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
			return 0, err
		}
	}
	return st.Mnt_id, nil
}

// enterRoot has another program of the container take its root directory, which
// joining namespaces does not give where the mounts are the host's.
func (e *execution) enterRoot() error {
	if e.HostRoot == nil {
		return nil
	}
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", e.Init.PID), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open the container's root: %w", err)
	}
	e.h.Chroot = plan.Chroot{FD: e.files.Add(root)}
	return nil
}
