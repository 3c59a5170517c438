package execnative

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/layertar"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// prepareJoins opens the namespaces of others that a container is put in: of a
// running container by a pidfd of its first process, which can be no stranger.
func (d *native) prepareJoins(r execdriver.Start, user plan.FD, b *oci.Files, h *handles) error {
	h.Joins = map[specs.LinuxNamespaceType]plan.FD{}
	for _, n := range sharesOf(r.Namespaces) {
		if n.share.Mode != execdriver.ShareContainer {
			continue
		}
		pidfd, _, err := d.holdRun(n.share.With)
		if err != nil {
			return fmt.Errorf("join the %s namespace: %w", n.name, err)
		}
		h.Joins[n.kind] = b.Add(pidfd)
	}
	if user != plan.NoFD {
		h.Joins[specs.UserNamespace] = user
	}
	return nil
}

// openUserNS opens the user namespace that a container is put in; nil for the
// host's.
func openUserNS(r execdriver.Start) (*os.File, error) {
	if r.IDMap.IsZero() {
		return nil, nil
	}
	return openHeld("UserNS", r.UserNS)
}

// holdRun holds a running run's first process.
//
// FailedPrecondition: it does not run.
func (d *native) holdRun(k execdriver.Key) (pidfd *os.File, pid int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.runs[k]
	if r == nil || r.state != running || r.pidfd == nil {
		return nil, 0, dead(k)
	}
	fd, err := unix.FcntlInt(r.pidfd.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, 0, fmt.Errorf("hold %s: %w", what(k), err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), r.started.PID, nil
}

// openHeld opens a namespace that somebody holds, and makes sure that it is the
// one meant: a path below /proc may have come to mean another.
func openHeld(field string, n netdriver.Namespace) (*os.File, error) {
	f, err := os.OpenFile(n.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "open %s: %w", field, err)
	}
	var fs unix.Statfs_t
	var st unix.Stat_t
	err = unix.Fstatfs(int(f.Fd()), &fs)
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("look at %s: %w", field, err)
	case fs.Type != unix.NSFS_MAGIC:
		err = driver.Errorf(errdefs.ErrInvalidArgument, "%s.Path %s: not a namespace", field, n.Path)
	case n.Inode != 0 && st.Ino != n.Inode:
		err = driver.Errorf(errdefs.ErrInvalidArgument, "%s.Path %s: inode %d, not %d: another namespace", field, n.Path, st.Ino, n.Inode)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// prepareNetwork opens the network namespace to join.
func (d *native) prepareNetwork(r execdriver.Start, b *oci.Files, h *handles) error {
	if r.Network.Mode != netdriver.NamespacePath {
		return nil
	}
	f, err := openHeld("Network", r.Network)
	if err != nil {
		return err
	}
	h.Network = b.Add(f)
	return nil
}

// shareShm gives a container the shared memory of the one whose IPC namespace
// it joins: a clone of that mount.
func (d *native) shareShm(r execdriver.Start, spec *specs.Spec, b *oci.Files, h *handles) error {
	ipc := r.Namespaces.IPC
	if ipc.Mode != execdriver.ShareContainer {
		return nil
	}
	for i, m := range spec.Mounts {
		if m.Destination != shmPath || m.Type != "tmpfs" {
			continue
		}
		pidfd, pid, err := d.holdRun(ipc.With)
		if err != nil {
			return fmt.Errorf("share %s: %w", shmPath, err)
		}
		defer pidfd.Close()
		shm, err := linux.CloneMountOf(pid, shmPath)
		if err != nil {
			return fmt.Errorf("share %s of %s: %w", shmPath, what(ipc.With), err)
		}
		h.Mounts[i] = oci.Mount{FD: b.Add(shm.File), IsDir: true}
		if unix.PidfdSendSignal(int(pidfd.Fd()), 0, nil, 0) != nil { // the pid was its own if it lives still
			return dead(ipc.With)
		}
	}
	return nil
}

// pipeOwner is who owns the pipes of a program in a user namespace; nil in the
// host's, where the program's user is given them.
func pipeOwner(m driver.IDMap, u oci.User) (*plan.Owner, error) {
	if m.IsZero() {
		return nil, nil
	}
	uid, gid, err := layertar.MapOwner(m, int(u.UID), int(u.GID))
	if err != nil {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "user %d:%d: %w", u.UID, u.GID, err)
	}
	return &plan.Owner{UID: uint32(uid), GID: uint32(gid)}, nil
}

// mapDevices opens the host's nodes for a container with a user namespace of its
// own, which can make none.
func (d *native) mapDevices(r execdriver.Start, spec *specs.Spec, b *oci.Files, h *handles) error {
	if r.IDMap.IsZero() {
		return nil
	}
	h.Devices = map[string]plan.FD{}
	for _, n := range append(oci.DefaultDevices(), spec.Linux.Devices...) {
		m, err := linux.CloneMount(hostPath(r.Security.Devices, n.Path), false)
		if err != nil {
			return driver.Errorf(errdefs.ErrInvalidArgument, "device %s: %w", n.Path, err)
		}
		h.Devices[n.Path] = b.Add(m.File)
	}
	return nil
}

// hostPath is where a device that is at a path inside is on the host.
func hostPath(devices []execdriver.Device, inside string) string {
	for _, d := range slices.Backward(devices) {
		if rest, ok := strings.CutPrefix(inside, cmp.Or(d.Container, d.Host)); ok && (rest == "" || rest[0] == '/') {
			return d.Host + rest
		}
	}
	return inside
}

// initProgram is where gantry-init is on the host, for a container that wants
// it. One in another's pid namespace has no use for it.
func (d *native) initProgram(r execdriver.Start) (string, error) {
	if !r.Init || r.Namespaces.PID.Mode != execdriver.ShareNone {
		return "", nil
	}
	name := filepath.Join(d.cfg.Libexec, "gantry-init")
	if _, err := os.Stat(name); err != nil {
		return "", driver.Errorf(errdefs.ErrNotImplemented, "Init: %w", err)
	}
	return name, nil
}
