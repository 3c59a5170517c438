package oci

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bindFlags are what the options of a bind mount ask for.
type bindFlags struct {
	set         uint64 // MOUNT_ATTR_…
	propagation uint64 // MS_PRIVATE and its like
	recursive   bool
}

// bindOptions reads the options of a bind mount. Without a word about it, what
// is mounted in the container stays there and the host's later mounts do not
// appear: rprivate, as Docker's default.
func bindOptions(options []string) (bindFlags, error) {
	b := bindFlags{propagation: unix.MS_PRIVATE}
	for _, o := range options {
		switch o {
		case "bind", "private", "rprivate":
		case "rbind":
			b.recursive = true
		case "slave", "rslave":
			b.propagation = unix.MS_SLAVE
		case "shared", "rshared":
			b.propagation = unix.MS_SHARED
		default:
			bit, ok := attrBit(o)
			if !ok && !isPlainMountOption(o) {
				return b, errclass.Errorf(errdefs.ErrInvalidArgument, "mount option %q is not known", o)
			}
			b.set |= bit
		}
	}
	return b, nil
}

// openBind makes a detached copy of a directory or file of the host.
func openBind(source string, options []string) (linux.Detached, error) {
	if !filepath.IsAbs(source) {
		return linux.Detached{}, errclass.Errorf(errdefs.ErrInvalidArgument, "bind source %q: not an absolute path", source)
	}
	b, err := bindOptions(options)
	if err != nil {
		return linux.Detached{}, err
	}
	m, err := linux.CloneMount(source, b.recursive)
	if err != nil {
		return m, Classify(err)
	}
	if err := checkPropagation(source, b.propagation); err != nil {
		m.Close()
		return m, err
	}
	if err := m.SetAttr(b.set, 0, b.propagation, true); err != nil {
		m.Close()
		return m, Classify(err)
	}
	return m, nil
}

// checkPropagation refuses what cannot come true: mounts travel only to and from
// a source whose mount is shared, or a slave of one.
func checkPropagation(source string, propagation uint64) error {
	if propagation == unix.MS_PRIVATE {
		return nil
	}
	shared, slave, err := linux.MountPropagation(source)
	switch {
	case err != nil:
		return Classify(err)
	case propagation == unix.MS_SHARED && !shared:
		return errclass.Errorf(errdefs.ErrInvalidArgument, "path %s is mounted on a mount that is not shared", source)
	case propagation == unix.MS_SLAVE && !shared && !slave:
		return errclass.Errorf(errdefs.ErrInvalidArgument, "path %s is mounted on a mount that is neither shared nor slave", source)
	}
	return nil
}

// openOverlay mounts an overlay from the graph driver's data.
func openOverlay(options []string) (linux.Detached, error) {
	var lower, flags []string
	var upper, work string
	var attrs uint64
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "lowerdir+":
			lower = append(lower, value)
		case "lowerdir": // one string, top first; for layers without ":" in their names
			lower = append(lower, strings.Split(value, ":")...)
		case "upperdir":
			upper = value
		case "workdir":
			work = value
		default:
			if bit, ok := attrBit(o); ok {
				attrs |= bit
			} else if !isPlainMountOption(o) {
				flags = append(flags, o)
			}
		}
	}
	if len(lower) == 0 {
		return linux.Detached{}, errclass.Errorf(errdefs.ErrInvalidArgument, "overlay without lowerdir+")
	}
	m, err := linux.MountOverlay(lower, upper, work, flags)
	if err != nil {
		return m, Classify(err)
	}
	if attrs != 0 {
		if err := m.SetAttr(attrs, 0, 0, false); err != nil {
			m.Close()
			return m, Classify(err)
		}
	}
	return m, nil
}

// OpenMount makes the detached mount of one that is made on this side: of type
// bind ("none" is the same) or overlay.
func OpenMount(kind, source string, options []string) (linux.Detached, error) {
	switch kind {
	case "bind", "none":
		return openBind(source, options)
	case "overlay":
		return openOverlay(options)
	}
	return linux.Detached{}, errclass.Errorf(errdefs.ErrNotImplemented, "mount of type %q is not supported", kind)
}

// Outside reports whether mounts of a type are made on this side.
func Outside(kind string) bool { return kind == "bind" || kind == "none" || kind == "overlay" }

// OpenMounts makes the detached mounts of those of the specification's mounts
// that are made on this side; the places of others are empty.
func OpenMounts(mounts []specs.Mount) ([]linux.Detached, error) {
	out := make([]linux.Detached, len(mounts))
	for i, m := range mounts {
		var err error
		if Outside(m.Type) {
			out[i], err = OpenMount(m.Type, m.Source, m.Options)
		}
		if err != nil {
			CloseAll(out)
			return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	return out, nil
}

// CloseAll closes the mounts that were made.
func CloseAll(mounts []linux.Detached) {
	for _, m := range mounts {
		if m.File != nil {
			m.Close()
		}
	}
}

// Classify gives an errno of the mount calls its class.
func Classify(err error) error {
	switch {
	case errors.Is(err, errdefs.ErrInvalidArgument), errors.Is(err, errdefs.ErrNotImplemented):
		return err
	case errors.Is(err, unix.E2BIG): // what a newer kernel would take
		return errclass.Errorf(errdefs.ErrNotImplemented, "%w", err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ELOOP):
		return errclass.Errorf(errdefs.ErrInvalidArgument, "%w", err)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EPERM):
		return errclass.Errorf(errdefs.ErrNotImplemented, "%w", err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return errclass.Errorf(errdefs.ErrResourceExhausted, "%w", err)
	}
	return errclass.Errorf(errdefs.ErrInternal, "%w", err)
}

// View reads files as the container will see them: below the root, or below
// the mount that covers the path.
type View struct {
	Root   *os.File
	Mounts []specs.Mount
	Opened []linux.Detached // of each mount; without a file where the init makes it
}

// Read is a FileReader. Links that lead from one mount into another are
// followed inside the first only, which is what the image's author sees too.
func (v View) Read(name string, limit int64) ([]byte, error) {
	root, rest, whole := v.Root, name, false
	for i, m := range v.Mounts { // later mounts cover earlier ones
		if v.Opened[i].File == nil {
			continue
		}
		if m.Destination == name {
			root, whole = v.Opened[i].File, true
		} else if below, ok := strings.CutPrefix(name, strings.TrimSuffix(m.Destination, "/")+"/"); ok {
			root, rest, whole = v.Opened[i].File, path.Join("/", below), false
		}
	}
	if whole {
		return linux.ReadOpened(root, name, limit)
	}
	return linux.ReadInRoot(root, rest, limit)
}
