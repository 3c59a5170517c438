package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// writeNew writes to a group that has just been made. After an error the caller
// removes the group, so nothing is put back.
func (p *Parent) writeNew(name string, writes []Write) error {
	o := opened{fd: -1}
	defer o.close()
	for _, w := range writes {
		d, ok := p.of(w.Controller)
		if !ok {
			return errclass.Errorf(errdefs.ErrNotImplemented, "resource limit %s: no controller %s", w.Field, w.Controller)
		}
		if err := o.write(d, name, w); err != nil {
			return refusal(filepath.Join(p.path, name), w, err)
		}
	}
	return nil
}

// opened is the file of the last write: several values for one file, as device
// rules are, share its descriptor.
type opened struct {
	fd   int
	dir  *os.File
	file string
}

func (o *opened) close() {
	if o.fd >= 0 {
		unix.Close(o.fd)
		o.fd = -1
	}
}

// write does one write and looks what became of it.
func (o *opened) write(d dir, name string, w Write) error {
	if o.fd < 0 || o.dir != d.f || o.file != w.File || w.Back != "" {
		o.close()
		flags := unix.O_WRONLY
		switch {
		case w.Value == "":
			flags = unix.O_RDONLY
		case w.Back != "":
			flags = unix.O_RDWR
		}
		fd, err := openAt(int(d.f.Fd()), name+"/"+w.File, flags)
		if err != nil {
			return err
		}
		*o = opened{fd, d.f, w.File}
	}
	if w.Value != "" {
		if err := writeOnce(o.fd, w.Value); err != nil {
			return err
		}
	}
	if w.Back == "" && w.Rule != sameSet {
		return nil
	}
	read := readOnce
	if w.Rule == sameSet || w.Rule == sameLine {
		read = readWhole // one line for each device
	}
	got, err := read(o.fd)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !w.kept(got) {
		return errIgnored{got}
	}
	return nil
}

// errIgnored says that the kernel took a value and keeps another.
type errIgnored struct{ got string }

func (e errIgnored) Error() string {
	return fmt.Sprintf("the kernel keeps %q", strings.TrimSpace(e.got))
}

// refusal puts a failed write into words and a class: the field, the value,
// the file, the group, and what the kernel said.
func refusal(group string, w Write, err error) error {
	class, ignored := error(errdefs.ErrInternal), errIgnored{}
	value := w.Value
	if value == "" {
		value = w.Back
	}
	switch {
	case errors.As(err, &ignored):
		if w.Key != "" {
			ignored.got, _ = lineOf(ignored.got, w.Key)
		}
		return errclass.Errorf(errdefs.ErrInvalidArgument, "set limit %s of cgroup %s: wrote %q to %s, but %w", w.Field, group, value, w.File, ignored)
	case errors.Is(err, unix.ENOENT):
		return errclass.Errorf(errdefs.ErrNotImplemented, "set limit %s of cgroup %s: this kernel has no %s", w.Field, group, w.File)
	case errors.Is(err, unix.EOPNOTSUPP):
		class = errdefs.ErrNotImplemented
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EBUSY),
		errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO), errors.Is(err, unix.EOVERFLOW):
		class = errdefs.ErrInvalidArgument
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS):
		class = errdefs.ErrPermissionDenied
	}
	return errclass.Errorf(class, "set limit %s of cgroup %s: %q to %s: %w", w.Field, group, value, w.File, err)
}

// Update changes limits of a group while processes run in it; what is not named
// stays. If a value is refused, those written before it are written back, and
// the error says so where that fails too. The errors are those of Create;
// NotFound: there is no such group.
func (g *Group) Update(r *specs.LinuxResources) error {
	if err := g.check(); err != nil || r == nil {
		return err
	}
	for _, d := range g.p.dirs {
		if !isThere(int(d.f.Fd()), g.name) {
			return errclass.Errorf(errdefs.ErrNotFound, "cgroup %s is not there in %s", g.full(), d.Label())
		}
	}
	writes, err := plan(r, g.view())
	if err != nil {
		return err
	}
	if err := g.change(writes); err != nil {
		return err
	}
	// Last: the program is put in place of the old one in one step.
	return g.p.restrictDevices(g.name, r.Devices)
}

// view is that of a group that exists.
func (g *Group) view() view {
	v := g.p.viewNew(g.name)
	v.fresh = false
	v.now = func(controller, file string) string {
		d, ok := g.p.of(controller)
		if !ok {
			return ""
		}
		text, _ := readAt(int(d.f.Fd()), filepath.Join(g.name, file)) // a file that is missing says nothing
		return text
	}
	return v
}

// written is what a file said before a write.
type written struct {
	Write
	dir dir
	old string
}

// change writes, and undoes what it has written if one is refused.
func (g *Group) change(writes []Write) error {
	o := opened{fd: -1}
	defer o.close()
	var done []written
	for _, w := range writes {
		d, ok := g.p.of(w.Controller)
		if !ok {
			return errclass.Errorf(errdefs.ErrNotImplemented, "resource limit %s: no controller %s", w.Field, w.Controller)
		}
		old, err := g.before(d, w)
		if err == nil {
			err = o.write(d, g.name, w)
		}
		if w.Value != "" && (err == nil || errors.As(err, &errIgnored{})) {
			done = append(done, written{w, d, old}) // what is refused by the kernel has changed nothing
		}
		if err != nil {
			return errors.Join(refusal(g.full(), w, err), g.undo(done))
		}
	}
	return nil
}

// before reads what a write is about to change.
func (g *Group) before(d dir, w Write) (string, error) {
	switch {
	case w.Value == "":
		return "", nil
	case w.Controller == "devices":
		w.File = "devices.list"
	}
	return readAt(int(d.f.Fd()), filepath.Join(g.name, w.File))
}

// undo writes back what was there, last first: each step is then a state that
// the kernel has been in before.
func (g *Group) undo(done []written) error {
	var errs []error
	devices := false
	for _, w := range slices.Backward(done) {
		if w.Controller == "devices" {
			devices = true
			continue // all at once below
		}
		back := w.Write
		back.Value, back.Back, back.Rule = w.before(), "", sameText
		one := opened{fd: -1}
		err := one.write(w.dir, g.name, back)
		one.close()
		if err != nil {
			errs = append(errs, fmt.Errorf("put back %q into %s of cgroup %s: %w", back.Value, w.File, g.full(), err))
		}
	}
	if devices {
		at := slices.IndexFunc(done, func(w written) bool { return w.Controller == "devices" })
		errs = append(errs, g.undoDevices(done[at]))
	}
	return errors.Join(errs...)
}

// before is the value that makes a file, or a line of it, what it was.
func (w written) before() string {
	if w.Key == "" {
		if text := strings.TrimSpace(w.old); text != "" {
			return text
		}
		return "\n" // an empty cpuset of version 2: the group above decides
	}
	line, ok := lineOf(w.old, w.Key)
	switch {
	case !ok:
		return w.Reset
	case w.Value == w.Back: // the key is shown, but not written
		return line
	}
	return w.Key + " " + line
}

// undoDevices turns a version 1 list back into what it was.
func (g *Group) undoDevices(w written) error {
	text, err := readAt(int(w.dir.f.Fd()), filepath.Join(g.name, "devices.list"))
	if err != nil {
		return fmt.Errorf("put back devices of cgroup %s: %w", g.full(), err)
	}
	present, ok1 := parseDeviceList(text)
	before, ok2 := parseDeviceList(w.old)
	if !ok1 || !ok2 {
		return fmt.Errorf("put back devices of cgroup %s: cannot read the list %q", g.full(), w.old)
	}
	var writes []Write
	for _, r := range present.transition(before) {
		writes = append(writes, deviceWrite(r))
	}
	return g.p.writeNew(g.name, writes)
}
