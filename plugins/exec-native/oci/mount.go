package oci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Opener makes the mounts that are made on this side.
type Opener struct {
	Spec *specs.Spec
	Root *os.File // of the container: what tmpcopyup copies from
	// AnySource takes a source for a shared or slave mount that is on none: nothing will
	// travel. The specification allows it; to a person it would be a surprise.
	AnySource bool
}

// Outside reports whether a mount is made on this side: what is the host's, and
// what has to be filled.
func Outside(m specs.Mount) bool {
	o, err := optionsOf(m)
	return err != nil || !o.remount && (o.bind || o.copyUp || m.Type == "overlay") // an error is told by who opens
}

// Open makes the detached mount of one that is made on this side.
func (o Opener) Open(m specs.Mount) (linux.Detached, error) {
	opts, err := optionsOf(m)
	if err != nil {
		return linux.Detached{}, err
	}
	switch {
	case opts.bind:
		return o.bind(m, opts)
	case m.Type == "overlay":
		return o.overlay(m, opts)
	case opts.copyUp:
		return o.filledTmpfs(m, opts)
	}
	return linux.Detached{}, errclass.Errorf(errdefs.ErrNotImplemented, "mount of type %q is not supported", m.Type)
}

// OpenMount is Open for what has no maps and is no tmpfs.
func OpenMount(kind, source string, words []string) (linux.Detached, error) {
	return Opener{}.Open(specs.Mount{Type: kind, Source: source, Options: words})
}

// OpenMounts makes the detached mounts of those of the specification's mounts
// that are made on this side; the places of others are empty.
func OpenMounts(s *specs.Spec, root *os.File) ([]linux.Detached, error) {
	return Opener{Spec: s, Root: root}.OpenAll()
}

// OpenAll is OpenMounts.
func (o Opener) OpenAll() ([]linux.Detached, error) {
	out := make([]linux.Detached, len(o.Spec.Mounts))
	for i, m := range o.Spec.Mounts {
		var err error
		if Outside(m) {
			out[i], err = o.Open(m)
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

// bind makes a detached copy of a directory or file of the host.
func (o Opener) bind(m specs.Mount, opts options) (linux.Detached, error) {
	switch {
	case !filepath.IsAbs(m.Source):
		return linux.Detached{}, errclass.Errorf(errdefs.ErrInvalidArgument, "bind source %q: not an absolute path", m.Source)
	}
	for _, word := range append(opts.data, opts.super...) {
		if !ofTmpfs(word) {
			return linux.Detached{}, errclass.Errorf(errdefs.ErrInvalidArgument, "mount option %q is not known for a bind mount", word)
		}
	}
	d, err := linux.CloneMount(m.Source, opts.tree)
	if err != nil {
		return d, Classify(err)
	}
	if opts.propagation != 0 && !o.AnySource {
		if err := CheckPropagation(m.Source, opts.propagation); err != nil {
			d.Close()
			return linux.Detached{}, err
		}
	}
	if err := o.finish(d, m, opts); err != nil {
		d.Close()
		return linux.Detached{}, err
	}
	return d, nil
}

// ofTmpfs reports options of a tmpfs, which generators of specifications leave
// behind when they turn one into a bind mount. mount(2) takes no notice of them
// there.
func ofTmpfs(word string) bool {
	key, _, _ := strings.Cut(word, "=")
	switch key {
	case "mode", "size", "uid", "gid", "nr_inodes", "nr_blocks":
		return true
	}
	return false
}

// finish gives a detached mount its flags, its map and its propagation. Without
// a word about it, what is mounted in the container stays there and the host's
// later mounts do not appear: rprivate, as Docker's default.
func (o Opener) finish(d linux.Detached, m specs.Mount, opts options) error {
	if opts.propagation == 0 {
		opts.propagation, opts.spread = unix.MS_PRIVATE, true
	}
	if !opts.top.none() {
		if err := d.SetAttr(opts.top.set, opts.top.clear, 0, false); err != nil {
			return Classify(err)
		}
	}
	if !opts.all.none() {
		if err := d.SetAttr(opts.all.set, opts.all.clear, 0, true); err != nil {
			return Classify(err)
		}
	}
	if err := d.SetAttr(0, 0, opts.propagation, opts.spread); err != nil {
		return Classify(err)
	}
	return o.idmap(d, m, opts)
}

// CheckPropagation refuses what cannot come true: mounts travel only to and from
// a source whose mount is shared, or a slave of one.
func CheckPropagation(source string, propagation uint64) error {
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

// overlay mounts an overlay from the graph driver's data, or the specification's.
func (o Opener) overlay(m specs.Mount, opts options) (linux.Detached, error) {
	var lower, flags []string
	var upper, work string
	for _, word := range append(opts.data, opts.super...) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "lowerdir+":
			lower = append(lower, value)
		case "lowerdir": // one string, top first
			lower = append(lower, splitLayers(value)...)
		case "upperdir":
			upper = value
		case "workdir":
			work = value
		default:
			flags = append(flags, word)
		}
	}
	if len(lower) == 0 {
		return linux.Detached{}, errclass.Errorf(errdefs.ErrInvalidArgument, "overlay without lowerdir+")
	}
	d, err := linux.MountOverlay(lower, upper, work, flags)
	if err != nil {
		return d, Classify(err)
	}
	if opts.top.none() && opts.all.none() && opts.propagation == 0 && !opts.idmap {
		return d, nil
	}
	if err := o.finish(d, m, opts); err != nil {
		d.Close()
		return linux.Detached{}, err
	}
	return d, nil
}

// splitLayers splits lowerdir, in which a backslash takes the next character as
// it is (Documentation/filesystems/overlayfs.rst).
func splitLayers(value string) []string {
	var out []string
	var one strings.Builder
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == '\\' && i+1 < len(value):
			i++
			one.WriteByte(value[i])
		case value[i] == ':':
			out = append(out, one.String())
			one.Reset()
		default:
			one.WriteByte(value[i])
		}
	}
	return append(out, one.String())
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
	root, rest := v.place(name)
	if weak.Off(weak.UserFiles) {
		fd, err := unix.Openat(int(root.Fd()), "."+rest, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		return io.ReadAll(f)
	}
	if rest == "" {
		return linux.ReadOpened(root, name, limit)
	}
	return linux.ReadInRoot(root, rest, limit)
}

// open opens a path without opening what it names.
func (v View) open(name string) (*os.File, error) {
	root, rest := v.place(name)
	if rest == "" {
		fd, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	return linux.OpenInRoot(root, rest, unix.O_PATH)
}

// place finds the mount that a path is on and the path below its root, which is
// empty for the root itself.
func (v View) place(name string) (root *os.File, rest string) {
	root, rest = v.Root, name
	for i, m := range v.Mounts { // later mounts cover earlier ones
		if v.Opened[i].File == nil {
			continue
		}
		if m.Destination == name {
			root, rest = v.Opened[i].File, ""
		} else if below, ok := strings.CutPrefix(name, strings.TrimSuffix(m.Destination, "/")+"/"); ok {
			root, rest = v.Opened[i].File, path.Join("/", below)
		}
	}
	return root, rest
}
