package eventlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// dirFS is a real directory. All names are opened relative to its descriptor,
// so a renamed parent changes nothing.
type dirFS struct {
	path     string // for messages
	root     *os.Root
	dir      *os.File
	lock     *os.File // nil while not locked
	readOnly bool
}

// openDir opens an existing directory; readOnly opens its files that way.
func openDir(path string, readOnly bool) (*dirFS, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	dir, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("open event log: %w", err)
	}
	return &dirFS{path: path, root: root, dir: dir, readOnly: readOnly}, nil
}

// makeDir makes the directory (0700: events are nobody else's business) and its
// entry in the parent durable.
func makeDir(path string) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make event log: %w", err)
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("make event log: %w", err)
	}
	defer parent.Close()
	if err := parent.Sync(); err != nil {
		return fmt.Errorf("make event log: sync %s: %w", parent.Name(), err)
	}
	return nil
}

func (d *dirFS) Open(name string, create bool) (File, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE | os.O_EXCL
	}
	if d.readOnly {
		flags = os.O_RDONLY
	}
	f, err := d.root.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d *dirFS) Rename(from, to string) error { return d.root.Rename(from, to) }

func (d *dirFS) Remove(name string) error { return d.root.Remove(name) }

func (d *dirFS) List() ([]string, error) {
	dir, err := d.root.Open(".") // a directory descriptor can be read only once
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

func (d *dirFS) SyncDir() error { return d.dir.Sync() }

// Lock uses flock: the kernel gives it up when the process ends, however it ends.
func (d *dirFS) Lock() error {
	f, err := d.root.OpenFile("lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock event log: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return fmt.Errorf("event log %s is in use by another process (it holds %s): %w",
				d.path, filepath.Join(d.path, "lock"), errdefs.ErrFailedPrecondition)
		}
		return fmt.Errorf("lock event log %s: %w", d.path, err)
	}
	d.lock = f
	return nil
}

func (d *dirFS) Close() error {
	err := errors.Join(d.dir.Close(), d.root.Close())
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Allocate falls back to written zeros where the filesystem has no fallocate
// (NFS 3, ZFS, FUSE); those promise nothing on a copy-on-write one.
func (f osFile) Allocate(from, to int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, from, to-from)
		switch err {
		case unix.EINTR:
			continue
		case unix.EOPNOTSUPP, unix.ENOSYS:
			return f.writeZeros(to)
		}
		if err != nil {
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		}
		return nil
	}
}

func (f osFile) writeZeros(to int64) error {
	size, err := f.Size()
	if err != nil || size >= to {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(f.File, size), io.LimitReader(zeros{}, to-size))
	return err
}

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func (f osFile) Datasync() error {
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}
