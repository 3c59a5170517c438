package layertar

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
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

// DiffOptions says how changes are written.
type DiffOptions struct {
	IDMap driver.IDMap // owners in the tar are the container's; zero leaves them

	// SkipWhiteout reports whether the whiteout of a path, relative to the
	// root, is to be left out since the image never had it. May be nil.
	SkipWhiteout func(path string) bool

	// SkipNew reports whether something that only the upper directory has,
	// of size bytes, is to be left out. Of a directory only itself is, not
	// what is in it. May be nil.
	SkipNew func(path string, size int64) bool
}

// inode names a file of one machine.
type inode struct{ dev, ino uint64 }

// packer writes one layer tar.
type packer struct {
	ctx     func() error
	tw      *tar.Writer
	o       DiffOptions
	links   map[inode]string // files with several names: the first one written
	pending []pendingDir     // directories on the way, not yet written
	buf     []byte
}

// pendingDir is a directory that is written only when something in it is.
type pendingDir struct {
	header *tar.Header
}

func newPacker(ctx context.Context, w io.Writer, o DiffOptions) *packer {
	return &packer{ctx: ctx.Err, tw: tar.NewWriter(w), o: o, links: make(map[inode]string), buf: make([]byte, 128<<10)}
}

// WriteOverlayDiff writes the upper directory of an overlay as a layer tar,
// with its whiteouts and opaque directories in the form of the OCI image
// specification. A file that changes while it is read is written as it is
// found, with the size it had at first.
//
// FailedPrecondition: the overlay was mounted with redirect_dir or metacopy,
// so that the upper directory does not tell all. InvalidArgument: a file bears
// a whiteout's name.
func WriteOverlayDiff(ctx context.Context, w io.Writer, upper *os.File, o DiffOptions) error {
	p := newPacker(ctx, w, o)
	if err := p.upper(int(upper.Fd()), "", 0); err != nil {
		return fmt.Errorf("write diff: %w", err)
	}
	if err := p.tw.Close(); err != nil {
		return fmt.Errorf("write diff: %w", err)
	}
	return nil
}

// upper writes everything in the directory fd of an upper layer.
func (p *packer) upper(fd int, dir string, depth int) error {
	names, err := p.names(fd, dir, depth)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := p.ctx(); err != nil {
			return err
		}
		full := path.Join(dir, name)
		st, err := lstat(fd, name)
		if errors.Is(err, unix.ENOENT) {
			continue // the container removed it just now
		}
		if err == nil {
			err = p.upperEntry(fd, name, full, &st, depth)
		}
		if err != nil {
			return inEntry(full, err)
		}
	}
	return nil
}

func (p *packer) upperEntry(fd int, name, full string, st *unix.Stat_t, depth int) error {
	if isWhiteout(st) {
		if p.o.SkipWhiteout != nil && p.o.SkipWhiteout(full) {
			return nil
		}
		return p.whiteout(full)
	}
	if isDir(st) || st.Mode&unix.S_IFMT == unix.S_IFREG {
		for _, xattr := range []string{"trusted.overlay.redirect", "trusted.overlay.metacopy"} {
			if _, err := getXattr(procPath(fd, name), xattr); err == nil {
				return fmt.Errorf("has %s, its content is elsewhere: %w", xattr, errdefs.ErrFailedPrecondition)
			}
		}
	}
	ours := p.o.SkipNew != nil && p.o.SkipNew(full, contentSize(st))
	if ours && !isDir(st) {
		return nil
	}
	if ours {
		h, err := p.header(fd, name, full, st)
		if err != nil {
			return err
		}
		p.pending = append(p.pending, pendingDir{h})
		defer func() { p.pending = p.pending[:len(p.pending)-1] }()
	} else if err := p.entry(fd, name, full, st); err != nil || !isDir(st) {
		return err
	}
	child, err := openat(fd, name, dirFlags, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return class(err)
	}
	defer unix.Close(child)
	if value, err := getXattr(procPath(child, "."), opaqueXattr); err == nil && string(value) == "y" {
		if err := p.plain(path.Join(full, opaqueName)); err != nil {
			return err
		}
	}
	return p.upper(child, full, depth+1)
}

// contentSize is a file's size; directories have none.
func contentSize(st *unix.Stat_t) int64 {
	if isDir(st) {
		return 0
	}
	return st.Size
}

// inEntry names the entry an error is about, once.
func inEntry(name string, err error) error {
	var e *entryError
	if errors.As(err, &e) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &entryError{name, err}
}

type entryError struct {
	name string
	err  error
}

func (e *entryError) Error() string { return fmt.Sprintf("%q: %v", clip(e.name), e.err) }
func (e *entryError) Unwrap() error { return e.err }

// names lists a directory, sorted so that a diff of the same files is the
// same tar.
func (p *packer) names(fd int, dir string, depth int) ([]string, error) {
	if depth > maxDepth || len(dir) > maxNameBytes {
		return nil, fmt.Errorf("%d directories deep: %w", depth, errdefs.ErrFailedPrecondition)
	}
	names, err := readNames(fd)
	if err != nil {
		return nil, class(err)
	}
	slices.Sort(names)
	return names, nil
}

func (p *packer) whiteout(full string) error {
	dir, name := path.Split(full)
	return p.plain(dir + whiteoutPrefix + name)
}

// plain writes an empty file.
func (p *packer) plain(name string) error {
	if err := p.flush(); err != nil {
		return err
	}
	return p.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(0, 0), Mode: 0o600, Format: tar.FormatPAX})
}

// flush writes the directories on the way that were not written yet.
func (p *packer) flush() error {
	for _, d := range p.pending {
		if d.header == nil {
			continue
		}
		if err := p.tw.WriteHeader(d.header); err != nil {
			return err
		}
	}
	for i := range p.pending {
		p.pending[i].header = nil
	}
	return nil
}

// header describes a file. nil: a tar cannot hold such a thing (a socket).
func (p *packer) header(fd int, name, full string, st *unix.Stat_t) (*tar.Header, error) {
	h := &tar.Header{
		Name: full, Mode: int64(st.Mode & 0o7777), Format: tar.FormatPAX,
		Uid: unmapID(p.o.IDMap.UIDs, st.Uid), Gid: unmapID(p.o.IDMap.GIDs, st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, full+"/"
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		buf := make([]byte, maxNameBytes+1)
		n, err := unix.Readlinkat(fd, name, buf)
		if err != nil {
			return nil, class(err)
		}
		h.Linkname = string(buf[:n])
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return nil, nil
	}
	xattrs, err := getXattrs(fd, name)
	if err != nil {
		return nil, fmt.Errorf("read attributes: %w", class(err))
	}
	for xattr, value := range xattrs {
		if strings.ContainsRune(xattr, '=') {
			continue // a PAX record's key ends at "="
		}
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords[xattrRecord+xattr] = unmapXattr(xattr, value, p.o.IDMap)
	}
	return h, nil
}

// entry writes one file with its content, or a link to the name under which
// it was written first.
func (p *packer) entry(fd int, name, full string, st *unix.Stat_t) error {
	if strings.HasPrefix(name, whiteoutPrefix) {
		return fmt.Errorf("the name is reserved for whiteouts: %w", errdefs.ErrInvalidArgument)
	}
	if !isDir(st) && st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := p.links[id]; ok {
			if err := p.flush(); err != nil {
				return err
			}
			return p.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: full, Linkname: first,
				Mode: int64(st.Mode & 0o7777), ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX})
		}
	}
	h, err := p.header(fd, name, full, st)
	if errors.Is(err, unix.ENOENT) || h == nil && err == nil {
		return nil
	}
	if err != nil {
		return err
	}
	if !isDir(st) && st.Nlink > 1 {
		p.links[inode{st.Dev, st.Ino}] = full
	}
	if h.Typeflag != tar.TypeReg {
		if err := p.flush(); err != nil {
			return err
		}
		return p.tw.WriteHeader(h)
	}
	file, err := openRegular(fd, name)
	if err != nil {
		return class(err)
	}
	defer unix.Close(file)
	if err := p.flush(); err != nil {
		return err
	}
	if err := p.tw.WriteHeader(h); err != nil {
		return err
	}
	return p.content(file, h.Size)
}

// content writes size bytes of a file; what it has lost meanwhile is zeros.
func (p *packer) content(fd int, size int64) error {
	for size > 0 {
		if err := p.ctx(); err != nil {
			return err
		}
		buf := p.buf[:min(int64(len(p.buf)), size)]
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return class(err)
		}
		if n == 0 {
			clear(buf)
			n = len(buf)
		}
		if _, err := p.tw.Write(buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}
