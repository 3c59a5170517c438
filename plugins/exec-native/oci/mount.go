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
	// ByInit leaves bind mounts to the init, where it can make them: the container
	// has a mount namespace copied from ours, in the same user namespace.
	ByInit bool
}

// Opened is what is open on this side of a mount of the specification.
type Opened struct {
	linux.Detached        // the mount, or what it is of; without a file where nothing of it is here
	Source         Source // for a mount that the init makes
	peer           linux.Detached
}

// Outside reports whether a mount is made on this side: what is the host's, and
// what has to be filled.
func Outside(m specs.Mount) bool {
	o, err := optionsOf(m)
	return err != nil || !o.remount && (o.bind || o.copyUp || m.Type == "overlay") // an error is told by who opens
}

// Open makes the detached mount of one that is made on this side.
func (o Opener) Open(m specs.Mount) (linux.Detached, error) {
	o.ByInit = false
	made, err := o.open(m)
	return made.Detached, err
}

func (o Opener) open(m specs.Mount) (out Opened, err error) {
	opts, err := optionsOf(m)
	if err != nil {
		return out, err
	}
	switch {
	case opts.bind:
		return o.bind(m, opts)
	case m.Type == "overlay":
		out.Detached, err = o.overlay(m, opts)
		return out, err
	case opts.copyUp:
		out.Detached, err = o.filledTmpfs(m, opts)
		return out, err
	}
	return out, errclass.Errorf(errdefs.ErrNotImplemented, "mount of type %q is not supported", m.Type)
}

// OpenMount is Open for what has no maps and is no tmpfs.
func OpenMount(kind, source string, words []string) (linux.Detached, error) {
	return Opener{}.Open(specs.Mount{Type: kind, Source: source, Options: words})
}

// OpenMounts makes the detached mounts of those of the specification's mounts
// that are made on this side; the places of others are empty.
func OpenMounts(s *specs.Spec, root *os.File) ([]Opened, error) {
	return Opener{Spec: s, Root: root}.OpenAll()
}

// OpenAll is OpenMounts.
func (o Opener) OpenAll() ([]Opened, error) {
	out := make([]Opened, len(o.Spec.Mounts))
	for i, m := range o.Spec.Mounts {
		var err error
		if Outside(m) {
			out[i], err = o.open(m)
		}
		if err != nil {
			CloseAll(out)
			return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	return out, nil
}

// CloseAll closes the mounts that were made.
func CloseAll(mounts []Opened) {
	for _, m := range mounts {
		if m.File != nil {
			m.Close()
		}
		if m.peer.File != nil {
			m.peer.Close()
		}
	}
}

// bind makes a detached copy of a directory or file of the host, or opens what
// the init is to copy.
func (o Opener) bind(m specs.Mount, opts options) (out Opened, err error) {
	if !filepath.IsAbs(m.Source) {
		return out, errclass.Errorf(errdefs.ErrInvalidArgument, "bind source %q: not an absolute path", m.Source)
	}
	for _, word := range append(opts.data, opts.super...) {
		if !ofTmpfs(word) {
			return out, errclass.Errorf(errdefs.ErrInvalidArgument, "mount option %q is not known for a bind mount", word)
		}
	}
	if o.ByInit && !opts.idmap {
		out, err = source(m.Source, opts.settled())
		if err != nil || out.Source.Path != "" {
			return out, Classify(err)
		}
		place := out.Detached
		out.Detached, err = linux.CloneOpened(place.File, opts.tree)
		place.Close()
	} else {
		out.Detached, err = linux.CloneMount(m.Source, opts.tree)
	}
	if err != nil {
		return out, Classify(err)
	}
	if opts.propagation != 0 && !o.AnySource {
		err = CheckPropagation(m.Source, opts.propagation)
	}
	if err == nil {
		err = o.finish(out.Detached, m, opts)
	}
	if err != nil {
		out.Close()
		return Opened{}, err
	}
	return out, nil
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

// finish gives a detached mount its flags, its map and its propagation.
func (o Opener) finish(d linux.Detached, m specs.Mount, opts options) error {
	for _, a := range opts.settled().changes(!opts.tree) {
		if err := d.SetAttr(a.Set, a.Clear, a.Propagation, a.Recursive); err != nil {
			return Classify(err)
		}
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
	case err == nil, errors.Is(err, errdefs.ErrInvalidArgument), errors.Is(err, errdefs.ErrNotImplemented):
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
	Opened []Opened // of each mount
}

// Read is a FileReader. Links that lead from one mount into another are
// followed inside the first only, which is what the image's author sees too.
func (v View) Read(name string, limit int64) ([]byte, error) {
	root, rest, done, err := v.place(name)
	if err != nil {
		return nil, err
	}
	defer done()
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
	root, rest, done, err := v.place(name)
	if err != nil {
		return nil, err
	}
	defer done()
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
// empty for the root itself. Done ends the use of root.
func (v View) place(name string) (root *os.File, rest string, done func(), err error) {
	root, rest, done = v.Root, name, func() {}
	on := Opened{}
	for i, m := range v.Mounts { // later mounts cover earlier ones
		if v.Opened[i].File == nil {
			continue
		}
		if m.Destination == name {
			on, rest = v.Opened[i], ""
		} else if below, ok := strings.CutPrefix(name, strings.TrimSuffix(m.Destination, "/")+"/"); ok {
			on, rest = v.Opened[i], path.Join("/", below)
		}
	}
	if on.File == nil {
		return root, rest, done, nil
	}
	if rest != "" && on.Source.Path != "" && !on.Source.Tree {
		// What the host has mounted below the source is not in the container.
		alone, err := linux.CloneOpened(on.File, false)
		return alone.File, rest, func() { alone.Close() }, err
	}
	return on.File, rest, done, nil
}
