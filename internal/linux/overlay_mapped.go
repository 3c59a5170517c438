package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MountOverlayMapped is MountOverlay for a container with a user namespace of
// its own: each lower layer, which belongs to the host's ids, is seen through
// the map of that namespace. The upper directory is not: what is written there
// already has the mapped ids. Overlay takes layers of this kind since 5.19, and
// by descriptor since 6.13; before that they need a place in some mount
// namespace, which is that of a thread. An upper directory without a work
// directory is only read: it is the uppermost of the lower layers.
func MountOverlayMapped(lower []string, upper, work string, flags []string, user *os.File) (Detached, error) {
	layers := make([]Detached, 0, len(lower))
	defer func() {
		for _, l := range layers {
			l.Close()
		}
	}()
	if work == "" && upper != "" {
		l, err := CloneMount(upper, false)
		if err != nil {
			return Detached{}, err
		}
		layers, upper = append(layers, l), ""
	}
	for _, path := range lower {
		l, err := CloneMount(path, false)
		if err != nil {
			return Detached{}, err
		}
		layers = append(layers, l)
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(user.Fd())}
		if err := unix.MountSetattr(int(l.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return Detached{}, fmt.Errorf("map the ids of %s: %w", path, err)
		}
	}
	m, err := mountMappedByDescriptor(layers, upper, work, flags)
	// Overlay knows nothing of fsconfig(2) before 6.5, and of descriptors before 6.13.
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBADF) {
		var older error
		if m, older = mountMappedAside(layers, upper, work, flags); older != nil {
			return Detached{}, fmt.Errorf("%w; as for kernels before 6.13: %w", err, older)
		}
		err = nil
	}
	if err != nil {
		return Detached{}, err
	}
	if err := refuseReadOnly(m, upper); err != nil {
		m.Close()
		return Detached{}, err
	}
	return m, nil
}

// refuseReadOnly finds an overlay that the kernel turned read-only by itself.
func refuseReadOnly(m Detached, upper string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(m.Fd()), &st); err != nil {
		return fmt.Errorf("look at overlay: %w", err)
	}
	if upper != "" && st.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("overlay on %s: the kernel made it read-only: %w", upper, unix.EROFS)
	}
	return nil
}

// mountMappedByDescriptor gives overlay the detached layers themselves.
func mountMappedByDescriptor(layers []Detached, upper, work string, flags []string) (Detached, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return Detached{}, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	if err := configFlag(fs, "source=overlay"); err != nil {
		return Detached{}, err
	}
	for _, l := range layers {
		if err := wrapConfig(fs, "lowerdir+", l.Name(), unix.FsconfigSetFd(fs, "lowerdir+", int(l.Fd()))); err != nil {
			return Detached{}, err
		}
	}
	if upper != "" {
		if err := errors.Join(configPath(fs, "upperdir", upper), configPath(fs, "workdir", work)); err != nil {
			return Detached{}, err
		}
	}
	for _, f := range flags {
		if err := configFlag(fs, f); err != nil {
			return Detached{}, err
		}
	}
	return create(fs, "overlay")
}

// mountMappedAside gives the layers places in the mount namespace of a thread,
// and takes a detached copy of the overlay. The layers are used up.
func mountMappedAside(layers []Detached, upper, work string, flags []string) (Detached, error) {
	var m Detached
	var err error
	onOwnThread(func() { m, err = mappedAside(layers, upper, work, flags) })
	return m, err
}

func mappedAside(layers []Detached, upper, work string, flags []string) (Detached, error) {
	const scratch = "/proc" // any directory that surely is there: this is nobody's but ours
	if err := leaveMounts(); err != nil {
		return Detached{}, err
	}
	if err := unix.Mount("tmpfs", scratch, "tmpfs", 0, ""); err != nil {
		return Detached{}, fmt.Errorf("mount scratch: %w", err)
	}
	names := make([]string, len(layers))
	for i, l := range layers {
		names[i] = filepath.Join(scratch, strconv.Itoa(i))
		if err := os.Mkdir(names[i], 0o700); err != nil {
			return Detached{}, err
		}
		if err := unix.MoveMount(int(l.Fd()), "", unix.AT_FDCWD, names[i], unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return Detached{}, fmt.Errorf("attach layer: %w", err)
		}
	}
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace
	options := []string{"lowerdir=" + strings.Join(names, ":")}
	if upper != "" {
		options = append(options, "upperdir="+escape(upper), "workdir="+escape(work))
	}
	data := strings.Join(append(options, flags...), ",")
	if len(data) > longestOptions {
		return Detached{}, fmt.Errorf("overlay of %d layers: options of %d bytes, at most %d: %w", len(layers), len(data), longestOptions, unix.E2BIG)
	}
	over := filepath.Join(scratch, "merged")
	if err := os.Mkdir(over, 0o700); err != nil {
		return Detached{}, err
	}
	return mountAside(over, data)
}
