package oci

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// idmap shows the files of a detached mount as of other owners, if that is
// asked for: by the mount's own map, or the container's.
func (o Opener) idmap(d linux.Detached, m specs.Mount, opts options) error {
	if !opts.idmap {
		return nil
	}
	uids, gids := m.UIDMappings, m.GIDMappings
	if len(uids)+len(gids) == 0 && o.Spec != nil {
		uids, gids = o.Spec.Linux.UIDMappings, o.Spec.Linux.GIDMappings
	}
	if len(uids) == 0 || len(gids) == 0 {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "idmap without uidMappings and gidMappings, of the mount or of a new user namespace")
	}
	ns, err := MapNamespace(uids, gids)
	if err != nil {
		return err
	}
	defer ns.Close()
	flags := uint(unix.AT_EMPTY_PATH)
	if opts.idmapTree {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	if err := unix.MountSetattr(int(d.Fd()), "", flags, &attr); err != nil {
		return Classify(fmt.Errorf("map the owners of %s: %w", d.Name(), err))
	}
	return nil
}

// MapNamespace makes a user namespace that holds nothing but a map, for mounts.
// It dies with its descriptor.
func MapNamespace(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	// A child that stops before its first instruction: traced by this thread,
	// which nobody else may take meanwhile.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, err := os.StartProcess("/proc/self/exe", []string{"gantry-map"}, &os.ProcAttr{
		Dir: "/", Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: sysMap(uids), GidMappings: sysMap(gids),
			GidMappingsEnableSetgroups: true, Ptrace: true, Pdeathsig: syscall.SIGKILL,
		},
	})
	if err != nil {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "make a user namespace with the maps of a mount: %w", err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Pid))
	// By pid, which is ours until it is reaped: package os takes the stop for its
	// end, and would not kill it any more.
	var status unix.WaitStatus
	_, waitErr := unix.Wait4(child.Pid, &status, 0, nil)
	_ = unix.Kill(child.Pid, unix.SIGKILL)
	_, _ = unix.Wait4(child.Pid, &status, 0, nil)
	_ = child.Release()
	if err != nil {
		return nil, fmt.Errorf("open the user namespace of a map: %w", errors.Join(err, waitErr))
	}
	return f, nil
}

func sysMap(m []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, 0, len(m))
	for _, e := range m {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Size)})
	}
	return out
}
