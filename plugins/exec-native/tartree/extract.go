package tartree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// maxDirs bounds the memory for directories' times.
const maxDirs = 1 << 20

// Options say how a tar is unpacked.
type Options struct {
	Owner     Owner // of each entry
	Overwrite bool  // a directory may take a file's place and the other way round
	// Remove removes a directory with all that is in it. The package has none
	// of its own.
	Remove func(dir *os.File, name string) error
}

// extractor unpacks one tar.
type extractor struct {
	o     Options
	root  *os.File
	dest  string
	times []dirTime
	buf   []byte
}

// dirTime is the time that a directory gets when all is in it.
type dirTime struct {
	path string
	time time.Time
}

// Extract unpacks a tar into the directory dest below root. Names are taken
// below dest, wherever they seem to lead. Directories that are there stay with
// what is in them; other files are replaced.
//
// InvalidArgument: a directory would take a file's place or the other way round.
func Extract(ctx context.Context, r io.Reader, root *os.File, dest string, o Options) error {
	x := &extractor{o: o, root: root, dest: path.Clean("/" + dest), buf: make([]byte, copySize)}
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return x.setTimes()
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := x.entry(h, tr); err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
	}
}

// place is where an entry goes: an open directory and a name in it.
type place struct {
	dir  *os.File
	fd   int
	name string
}

// entry makes one entry.
func (x *extractor) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := path.Clean("/" + h.Name)
	if name == "/" {
		return nil // dest itself, which stays as it is
	}
	full := path.Join(x.dest, name)
	dir, err := x.parent(path.Dir(full))
	if err != nil {
		return err
	}
	defer dir.Close()
	p := place{dir, int(dir.Fd()), path.Base(full)}
	uid, gid, err := x.o.Owner(h.Uid, h.Gid)
	if err != nil {
		return err
	}
	merged, err := x.clear(p, h)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if !merged {
			if err := unix.Mkdirat(p.fd, p.name, 0o700); err != nil {
				return classify(err)
			}
		}
		if len(x.times) >= maxDirs {
			return errclass.Errorf(errdefs.ErrInvalidArgument, "more than %d directories", maxDirs)
		}
		x.times = append(x.times, dirTime{full, h.ModTime})
		return x.describeDir(p, h, uid, gid)
	case tar.TypeReg:
		return x.file(p, h, r, uid, gid)
	case tar.TypeLink:
		return x.link(p, h)
	case tar.TypeSymlink:
		err = unix.Symlinkat(h.Linkname, p.fd, p.name)
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		err = makeNode(p, h)
	default:
		return errclass.Errorf(errdefs.ErrInvalidArgument, "entry of type %q", h.Typeflag)
	}
	if err != nil {
		return classify(err)
	}
	return describe(p, h, uid, gid)
}

// parent opens a directory, and makes what is missing on the way.
func (x *extractor) parent(dir string) (*os.File, error) {
	f, err := openIn(x.root, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil || !errors.Is(err, unix.ENOENT) || dir == "/" || dir == x.dest {
		return f, classify(err)
	}
	above, err := x.parent(path.Dir(dir))
	if err != nil {
		return nil, err
	}
	defer above.Close()
	uid, gid, err := x.o.Owner(0, 0)
	if err != nil {
		return nil, err
	}
	name := path.Base(dir)
	err = unix.Mkdirat(int(above.Fd()), name, 0o755)
	if err == nil {
		err = unix.Fchownat(int(above.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, classify(err)
	}
	f, err = linux.OpenInRoot(x.root, dir, unix.O_PATH|unix.O_DIRECTORY)
	return f, classify(err)
}

// clear makes room for an entry. merged: it is a directory, and one is there.
func (x *extractor) clear(p place, h *tar.Header) (merged bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(p.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, classify(err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case isDir && h.Typeflag == tar.TypeDir:
		return true, nil
	case isDir && !x.o.Overwrite:
		return false, errclass.Errorf(errdefs.ErrInvalidArgument, "cannot overwrite a directory with a file")
	case h.Typeflag == tar.TypeDir && !x.o.Overwrite:
		return false, errclass.Errorf(errdefs.ErrInvalidArgument, "cannot overwrite a file with a directory")
	case isDir:
		return false, x.o.Remove(p.dir, p.name)
	}
	return false, classify(unix.Unlinkat(p.fd, p.name, 0))
}

// file makes a regular file.
func (x *extractor) file(p place, h *tar.Header, r io.Reader, uid, gid int) error {
	fd, err := unix.Openat(p.fd, p.name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return classify(err)
	}
	f := os.NewFile(uintptr(fd), h.Name)
	defer f.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, r, x.buf); err != nil {
		return classify(err)
	}
	if err := describeOpen(f, h, uid, gid); err != nil {
		return err
	}
	return setTime(p.fd, p.name, h.ModTime)
}

// describeDir sets what a directory's entry says, but its time.
func (x *extractor) describeDir(p place, h *tar.Header, uid, gid int) error {
	fd, err := unix.Openat(p.fd, p.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return classify(err)
	}
	f := os.NewFile(uintptr(fd), h.Name)
	defer f.Close()
	return describeOpen(f, h, uid, gid)
}

// describeOpen sets owner, mode and attributes, in this order: a changed owner
// takes setuid and capabilities away.
func describeOpen(f *os.File, h *tar.Header, uid, gid int) error {
	fd := int(f.Fd())
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return classify(err)
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return classify(err)
	}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattrKey); ok && carried(name) {
			err := unix.Fsetxattr(fd, name, []byte(value), 0)
			if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("set attribute %s: %w", name, classify(err))
			}
		}
	}
	return nil
}

// link makes a hard link to another file of the tar.
func (x *extractor) link(p place, h *tar.Header) error {
	target := path.Join(x.dest, path.Clean("/"+h.Linkname))
	from, err := linux.OpenInRoot(x.root, path.Dir(target), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return classify(err)
	}
	defer from.Close()
	if err := unix.Linkat(int(from.Fd()), path.Base(target), p.fd, p.name, 0); err != nil {
		return fmt.Errorf("link to %q: %w", h.Linkname, classify(err))
	}
	return nil
}

// makeNode makes a device or a FIFO.
func makeNode(p place, h *tar.Header) error {
	mode := uint32(h.Mode) & 0o777
	switch h.Typeflag {
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	}
	return unix.Mknodat(p.fd, p.name, mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

// describe sets owner, mode and time of what cannot be opened.
func describe(p place, h *tar.Header, uid, gid int) error {
	if err := unix.Fchownat(p.fd, p.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return classify(err)
	}
	return setTime(p.fd, p.name, h.ModTime)
}

func setTime(dir int, name string, t time.Time) error {
	ts := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())} // UnixNano ends in 2262
	return classify(unix.UtimesNanoAt(dir, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// setTimes sets directories' times, now that nothing more is made in them. One
// that has gone meanwhile needs none.
func (x *extractor) setTimes() error {
	for _, d := range x.times {
		dir, err := linux.OpenInRoot(x.root, path.Dir(d.path), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			continue
		}
		err = setTime(int(dir.Fd()), path.Base(d.path), d.time)
		dir.Close()
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// classify gives an error of the kernel its class.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return errclass.Errorf(errdefs.ErrPermissionDenied, "%w", err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return errclass.Errorf(errdefs.ErrResourceExhausted, "%w", err)
	case errors.Is(err, unix.ENOENT):
		return errclass.Errorf(errdefs.ErrNotFound, "%w", err)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL):
		return errclass.Errorf(errdefs.ErrInvalidArgument, "%w", err)
	}
	return err
}
