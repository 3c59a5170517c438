package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// longestParam is the longest value fsconfig(2) takes as a string, without
// its NUL.
const longestParam = 255

// Detached is a mount that no mount table shows. It dies with its last
// descriptor, so a crash leaves none behind.
type Detached struct {
	*os.File
}

// MountOverlay mounts an overlay, detached. Lower holds the layers from top to
// bottom; upper and work are empty for a read-only one.
//
// The kernel turns an overlay read-only by itself when its upper directory
// cannot be used as one; that is an error here, never a silent change.
func MountOverlay(lower []string, upper, work string, flags []string) (Detached, error) {
	m, err := mountOverlayAnyWay(lower, upper, work, flags)
	if err != nil {
		return Detached{}, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(m.Fd()), &st); err != nil {
		m.Close()
		return Detached{}, fmt.Errorf("look at overlay: %w", err)
	}
	if upper != "" && st.Flags&unix.ST_RDONLY != 0 {
		m.Close()
		return Detached{}, fmt.Errorf("overlay on %s: the kernel made it read-only: %w", upper, unix.EROFS)
	}
	return m, nil
}

// mountOverlayAnyWay gives the layers one by one, or as one string. Which way
// comes first is a matter of the kernel's release: an older overlay writes each
// option that it does not know into the kernel's log, at every start. The other
// way comes second, as distributions bring newer overlays to older releases.
func mountOverlayAnyWay(lower []string, upper, work string, flags []string) (Detached, error) {
	if len(lower) == 0 || kernelSince(6, 8) {
		m, err := mountOverlayByLayer(lower, upper, work, flags)
		if !errors.Is(err, unix.EINVAL) || len(lower) == 0 {
			return m, err
		}
		m, older := mountOverlayByString(lower, upper, work, flags)
		if older != nil {
			return Detached{}, fmt.Errorf("%w; as for kernels before 6.8: %w", err, older)
		}
		return m, nil
	}
	m, err := mountOverlayByString(lower, upper, work, flags)
	if !errors.Is(err, unix.E2BIG) {
		return m, err
	}
	if m, newer := mountOverlayByLayer(lower, upper, work, flags); newer == nil {
		return m, nil
	}
	return Detached{}, err
}

// mountOverlayByLayer mounts an overlay whose layers are given one by one.
func mountOverlayByLayer(lower []string, upper, work string, flags []string) (Detached, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return Detached{}, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	if err := configFlag(fs, "source=overlay"); err != nil { // what mount tables show
		return Detached{}, err
	}
	for _, l := range lower {
		if err := configPath(fs, "lowerdir+", l); err != nil {
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

// configPath sets a directory. Names too long for a string go by descriptor,
// which overlay takes since 6.13.
func configPath(fs int, key, path string) error {
	if len(path) <= longestParam {
		return wrapConfig(fs, key, path, unix.FsconfigSetString(fs, key, path))
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	return wrapConfig(fs, key, path, unix.FsconfigSetFd(fs, key, fd))
}

// configFlag sets an option, "key" or "key=value".
func configFlag(fs int, option string) error {
	for i := range len(option) {
		if option[i] == '=' {
			key, value := option[:i], option[i+1:]
			return wrapConfig(fs, key, value, unix.FsconfigSetString(fs, key, value))
		}
	}
	return wrapConfig(fs, option, "", unix.FsconfigSetFlag(fs, option))
}

// wrapConfig names a refused parameter, and adds what the kernel wrote about it.
func wrapConfig(fs int, key, value string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("mount parameter %s=%s: %w%s", key, value, err, said(fs))
}

// create makes the filesystem and its detached mount.
func create(fs int, what string) (Detached, error) {
	if err := unix.FsconfigCreate(fs); err != nil {
		return Detached{}, fmt.Errorf("mount %s: %w%s", what, err, said(fs))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return Detached{}, fmt.Errorf("fsmount %s: %w", what, err)
	}
	return Detached{os.NewFile(uintptr(fd), what)}, nil
}

// said reads what a file system context has to tell about a failure: " (…)"
// or nothing.
func said(fs int) string {
	var buf [512]byte
	n, err := unix.Read(fs, buf[:])
	if err != nil || n <= 2 {
		return ""
	}
	line := buf[2:n] // "e " before an error, "w " before a warning
	for len(line) > 0 && line[len(line)-1] == '\n' {
		line = line[:len(line)-1]
	}
	return " (" + string(line) + ")"
}

// CloneMount makes a detached copy of the mount that a path is on, with the
// path as its root: what a bind mount is made of. With recursive, the mounts
// below come along.
func CloneMount(path string, recursive bool) (Detached, error) {
	return cloneTree(unix.AT_FDCWD, path, path, 0, recursive)
}

// CloneOpened is CloneMount of a directory or file that is open already.
func CloneOpened(f *os.File, recursive bool) (Detached, error) {
	return cloneTree(int(f.Fd()), "", f.Name(), unix.AT_EMPTY_PATH, recursive)
}

// cloneTree is open_tree(2) with OPEN_TREE_CLONE; name is for people.
func cloneTree(dir int, path, name string, flags uint, recursive bool) (Detached, error) {
	flags |= unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(dir, path, flags)
	if err != nil {
		return Detached{}, fmt.Errorf("clone mount of %s: %w", name, err)
	}
	return Detached{os.NewFile(uintptr(fd), name)}, nil
}

// SetAttr changes a detached mount's attributes: MOUNT_ATTR_… to set and clear,
// MS_PRIVATE and its like as propagation, 0 to leave it.
func (d Detached) SetAttr(set, clear, propagation uint64, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: set, Attr_clr: clear, Propagation: propagation}
	if err := unix.MountSetattr(int(d.Fd()), "", flags, &attr); err != nil {
		return fmt.Errorf("set attributes %#x of mount %s: %w", set, d.Name(), err)
	}
	return nil
}

// IsDir reports whether the mount's root is a directory.
func (d Detached) IsDir() (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return false, fmt.Errorf("look at %s: %w", d.Name(), err)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}
