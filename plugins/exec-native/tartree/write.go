package tartree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Bounds against hostile trees.
const (
	maxDepth = 4096
	xattrKey = "SCHILY.xattr." // prefix of PAX records, as star and GNU tar write them
	copySize = 128 << 10
)

// Owner maps an owner from one side to the other.
type Owner func(uid, gid int) (int, int, error)

// writer writes one tar.
type writer struct {
	ctx   func() error
	tw    *tar.Writer
	owner Owner
	links map[inode]string // files with several names: the one written first
	buf   []byte
}

type inode struct{ dev, ino uint64 }

// Write writes what is at name in the directory parent as a tar, under the name
// as. An empty one leaves the directory itself out: its files are at the top.
// Sockets are left out, as tar(1) does. A file that changes meanwhile is
// written as it is found, with the size it had at first.
func Write(ctx context.Context, w io.Writer, parent *os.File, name, as string, owner Owner) error {
	t := &writer{ctx: ctx.Err, tw: tar.NewWriter(w), owner: owner, links: map[inode]string{}, buf: make([]byte, copySize)}
	if err := t.entry(int(parent.Fd()), name, as, 0); err != nil {
		return err
	}
	return t.tw.Close()
}

// entry writes one name, with everything below it.
func (t *writer) entry(dir int, name, as string, depth int) error {
	if err := t.ctx(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if depth > 0 && errors.Is(err, unix.ENOENT) {
			return nil // it has just gone
		}
		return &os.PathError{Op: "stat", Path: as, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return t.directory(dir, name, as, depth)
	case unix.S_IFREG:
		return t.file(dir, name, as)
	case unix.S_IFSOCK:
		return nil
	}
	h, err := t.header(as, &st)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, buf)
		if depth > 0 && errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "read link", Path: as, Err: err}
		}
		h.Linkname = string(buf[:n])
	}
	return t.tw.WriteHeader(h)
}

// header describes a file.
func (t *writer) header(as string, st *unix.Stat_t) (*tar.Header, error) {
	uid, gid, err := t.owner(int(st.Uid), int(st.Gid))
	if err != nil {
		return nil, fmt.Errorf("owner of %s: %w", as, err)
	}
	h := &tar.Header{
		Name: as, Mode: int64(st.Mode & 0o7777), Uid: uid, Gid: gid, ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(as, "/")+"/"
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return h, nil
}

// directory writes a directory and what is in it, in the order of the names.
func (t *writer) directory(dir int, name, as string, depth int) error {
	if depth > maxDepth {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "%s: more than %d directories deep", path.Base(as), maxDepth)
	}
	f, st, err := open(dir, name, as, unix.O_DIRECTORY)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	if as != "" {
		h, err := t.header(as, st)
		if err != nil {
			return err
		}
		addXattrs(h, int(f.Fd()))
		if err := t.tw.WriteHeader(h); err != nil {
			return err
		}
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list %s: %w", as, err)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := t.entry(int(f.Fd()), n, path.Join(as, n), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// open opens a directory or a regular file, and nothing else that may have come
// in its place. Nil: it has gone.
func open(dir int, name, as string, flags int) (*os.File, *unix.Stat_t, error) {
	fd, err := unix.Openat(dir, name, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: as, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, nil, &os.PathError{Op: "stat", Path: as, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFDIR {
		unix.Close(fd)
		return nil, nil, errclass.Errorf(errdefs.ErrFailedPrecondition, "%s changes its kind while it is read", as)
	}
	return os.NewFile(uintptr(fd), as), &st, nil
}

// file writes a regular file, or a link to the name under which it was written
// first.
func (t *writer) file(dir int, name, as string) error {
	f, st, err := open(dir, name, as, 0)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	h, err := t.header(as, st)
	if err != nil {
		return err
	}
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := t.links[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return t.tw.WriteHeader(h)
		}
		t.links[id] = as
	}
	addXattrs(h, int(f.Fd()))
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	return t.content(f, h.Size)
}

// content writes size bytes; what the file has lost meanwhile is zeros.
func (t *writer) content(f *os.File, size int64) error {
	for size > 0 {
		if err := t.ctx(); err != nil {
			return err
		}
		buf := t.buf[:min(int64(len(t.buf)), size)]
		n, err := f.Read(buf)
		if errors.Is(err, io.EOF) {
			clear(buf)
			n, err = len(buf), nil
		}
		if err != nil {
			return err
		}
		if _, err := t.tw.Write(buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// addXattrs adds the extended attributes of an open file, without overlayfs's
// own and others of the host's root.
func addXattrs(h *tar.Header, fd int) {
	buf := make([]byte, 4096)
	n, err := unix.Flistxattr(fd, buf)
	if err != nil || n == 0 {
		return // the filesystem has none, or too many to be worth it
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !carried(name) {
			continue
		}
		value := make([]byte, 64<<10)
		if n, err := unix.Fgetxattr(fd, name, value); err == nil {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[xattrKey+name] = string(value[:n])
		}
	}
}

// carried reports whether an attribute goes with a file.
func carried(xattr string) bool {
	return strings.HasPrefix(xattr, "user.") && !strings.HasPrefix(xattr, "user.overlay.") && !strings.Contains(xattr, "=") || xattr == "security.capability"
}
