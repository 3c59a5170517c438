package layertar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

// Whiteouts says what a whiteout of the layer becomes in the directory.
type Whiteouts int

const (
	// Overlay makes what overlayfs understands: a character device 0:0 for
	// a hidden name, trusted.overlay.opaque on a directory. The directory
	// holds this layer alone.
	Overlay Whiteouts = iota
	// Apply deletes what is hidden. The directory holds all layers below.
	Apply
)

// maxDirs bounds the memory for directories' times.
const maxDirs = 1 << 20

// maxSparseBytes bounds what a sparse file may claim to hold: a few bytes of
// archive could otherwise keep a driver busy for years.
const maxSparseBytes = 64 << 30

// Options says how a layer is unpacked.
type Options struct {
	Whiteouts Whiteouts
	IDMap     driver.IDMap // ids in the tar are the container's; zero leaves them
	Digest    string       // of the blob as stored; empty: not compared
	DiffID    string       // of the tar; empty: not compared
	Size      int64        // of the blob in bytes, for Progress; 0 if not known

	// Lowers are all layers below, top first, for Overlay: a directory that
	// the layer uses but does not describe gets the attributes it has there,
	// and a whiteout is made only of what is there.
	Lowers []*os.File

	Progress driver.Progress // of stored bytes; may be nil
}

// Result tells what was unpacked.
type Result struct {
	Size         int64     // bytes of regular files, as the tar says
	Entries      int64     // of the tar
	Digest       string    // of the blob
	DiffID       string    // of the tar
	Hides        bool      // Overlay: the layer hides something below it
	OpaqueRoot   bool      // Overlay: the layer hides all below it; overlayfs does not heed this at the root
	Dropped      []Dropped // the first 32 attributes that were not set
	DroppedCount int64     // of all of them
}

// Unpack unpacks a layer tar, plain or compressed with gzip or zstd, into
// dir. On an error dir holds half of it and is to be thrown away.
//
// DataLoss: truncated, or a digest does not match. InvalidArgument: hostile
// or not a layer, with the entry's name. ResourceExhausted: the disk is full.
// PermissionDenied: the process may not make an entry.
func Unpack(ctx context.Context, dir *os.File, blob io.Reader, o Options) (Result, error) {
	s, err := openStream(ctx, blob, o)
	if err != nil {
		return Result{}, err
	}
	defer s.close()
	u := &unpacker{
		o:        o,
		cur:      cursor{root: int(dir.Fd())},
		dirTimes: make(map[string]time.Time),
		done:     s.source.n.Load,
		buf:      make([]byte, 128<<10),
	}
	defer u.cur.cut(0)
	if o.Whiteouts == Apply {
		u.made = make(map[uint64]struct{})
	} else if err := u.inheritRoot(); err != nil {
		return Result{}, fmt.Errorf("root of the layer: %w", class(err))
	}
	if err := u.all(s, tar.NewReader(s)); err != nil {
		return Result{}, err
	}
	if err := u.setDirTimes(); err != nil {
		return Result{}, err
	}
	u.res.Digest, u.res.DiffID = s.blobHash.Digest().String(), s.tarHash.Digest().String()
	return u.res, nil
}

// unpacker is one run of Unpack.
type unpacker struct {
	o        Options
	cur      cursor
	dirTimes map[string]time.Time // set at the end: making entries changes them
	made     map[uint64]struct{}  // Apply: inodes of this layer's entries
	buf      []byte
	done     func() int64 // bytes of the blob read so far
	told     time.Time    // when progress was told last
	res      Result
}

// tell tells progress, a few times a second: a file of zeros may be long on
// the disk and short in the blob, so bytes read are no measure of when.
func (u *unpacker) tell() {
	const pause = 200 * time.Millisecond
	if u.o.Progress == nil || time.Since(u.told) < pause {
		return
	}
	u.told = time.Now()
	u.o.Progress(u.done(), u.o.Size, "unpack")
}

// all makes every entry, then verifies the blob.
func (u *unpacker) all(s *stream, r *tar.Reader) error {
	for {
		if err := s.ctx(); err != nil {
			return err
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return s.verify(u.o, nil)
		}
		if err != nil {
			return s.verify(u.o, broken(u.res.Entries, "", err))
		}
		u.res.Entries++
		u.tell()
		err = u.entry(h, r)
		var read *readError
		if errors.As(err, &read) {
			return s.verify(u.o, broken(u.res.Entries, h.Name, read.err))
		}
		if err != nil {
			return fmt.Errorf("layer entry %q: %w", clip(h.Name), err)
		}
	}
}

// broken says that the tar cannot be read on.
func broken(entry int64, name string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("layer is truncated at entry %d %q: %w: %w", entry, clip(name), err, errdefs.ErrDataLoss)
	}
	return fmt.Errorf("read layer at entry %d %q: %w: %w", entry, clip(name), err, errdefs.ErrInvalidArgument)
}

// readError is an error of the tar, not of the directory.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

// entry makes one entry.
func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("the root is no directory: %w", errdefs.ErrInvalidArgument)
		}
		u.cur.cut(0)
		return u.describe(u.cur.root, ".", "", h)
	}
	for _, part := range parts[:len(parts)-1] {
		if strings.HasPrefix(part, whiteoutPrefix) && !strings.HasPrefix(part, aufsPrefix) {
			return fmt.Errorf("below a whiteout: %w", errdefs.ErrInvalidArgument)
		}
	}
	parent, name := parts[:len(parts)-1], parts[len(parts)-1]
	if slices.ContainsFunc(parts, func(p string) bool { return strings.HasPrefix(p, aufsPrefix) && p != opaqueName }) {
		return nil // bookkeeping of aufs
	}
	if strings.HasPrefix(name, whiteoutPrefix) {
		return u.whiteout(parent, name)
	}
	if err := u.cur.seek(parent, u.enter); err != nil {
		return err
	}
	return u.make(strings.Join(parts, "/"), name, h, r)
}

// make makes the entry name in the current directory.
func (u *unpacker) make(path, name string, h *tar.Header, r io.Reader) error {
	dir := u.cur.dir()
	switch h.Typeflag {
	case tar.TypeDir:
		return u.makeDir(path, name, h)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.makeFile(dir, name, path, h, r)
	case tar.TypeLink:
		return u.makeLink(name, h.Linkname, path)
	case tar.TypeSymlink:
		if h.Linkname == "" {
			return fmt.Errorf("symlink to nothing: %w", errdefs.ErrInvalidArgument)
		}
		err := u.replace(dir, name, func() error { return unix.Symlinkat(h.Linkname, dir, name) })
		if err != nil {
			return fmt.Errorf("make symlink: %w", class(err))
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if err := u.makeNode(dir, name, h); err != nil {
			return err
		}
	default:
		return fmt.Errorf("entry of type %q: %w", h.Typeflag, errdefs.ErrInvalidArgument)
	}
	return u.describe(dir, name, path, h)
}

// replace calls create, and once more after removing what is in its way.
func (u *unpacker) replace(dir int, name string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EISDIR) {
		return err
	}
	if err := u.removeAll(dir, name); err != nil {
		return err
	}
	return create()
}

// removeAll removes name in dir and all below it, of this layer or not.
func (u *unpacker) removeAll(dir int, name string) error {
	r := remover{ctx: func() error { return nil }, top: dir}
	return r.remove(dir, name, -maxDepth) // no deeper than flattenDepth, by split
}

// makeDir makes a directory or keeps the one that is there.
func (u *unpacker) makeDir(path, name string, h *tar.Header) error {
	fd, err := u.openOrMake(name)
	if err != nil {
		return fmt.Errorf("make directory: %w", class(err))
	}
	u.cur.push(name, fd)
	return u.describe(fd, ".", path, h)
}

// openOrMake returns a descriptor of the directory name in the current one.
// Whatever else has the name is replaced; a directory that takes the place of
// a whiteout or a file goes on hiding what is below.
func (u *unpacker) openOrMake(name string) (int, error) {
	dir := u.cur.dir()
	hides := false
	err := unix.Mkdirat(dir, name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		st, err := lstat(dir, name)
		if err != nil {
			return -1, err
		}
		if isDir(&st) {
			return openat(dir, name, dirFlags, 0)
		}
		hides = u.o.Whiteouts == Overlay
		if err := unix.Unlinkat(dir, name, 0); err != nil {
			return -1, err
		}
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return -1, err
		}
	} else if err != nil {
		return -1, err
	}
	fd, err := openat(dir, name, dirFlags, 0)
	if err == nil && hides {
		u.res.Hides = true
		if err = unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
			unix.Close(fd)
		}
	}
	return fd, err
}

// makeNode makes a device or a fifo.
func (u *unpacker) makeNode(dir int, name string, h *tar.Header) error {
	mode, dev := uint32(unix.S_IFIFO), uint64(0)
	if h.Typeflag != tar.TypeFifo {
		if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > 0xfff || h.Devminor > 0xfffff {
			return fmt.Errorf("device %d:%d: %w", h.Devmajor, h.Devminor, errdefs.ErrInvalidArgument)
		}
		dev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		mode = unix.S_IFBLK
		if h.Typeflag == tar.TypeChar {
			mode = unix.S_IFCHR
		}
		if mode == unix.S_IFCHR && dev == 0 {
			return fmt.Errorf("character device 0:0, which is a whiteout: %w", errdefs.ErrInvalidArgument)
		}
	}
	err := u.replace(dir, name, func() error { return unix.Mknodat(dir, name, mode|0o600, int(dev)) })
	if err != nil {
		return fmt.Errorf("make node: %w", class(err))
	}
	return nil
}

// makeLink makes a hard link to an earlier entry of this layer.
func (u *unpacker) makeLink(name, target, path string) error {
	parts, err := split(target)
	if err != nil {
		return fmt.Errorf("link to %q: %w", clip(target), err)
	}
	refuse := func(why string) error {
		return fmt.Errorf("link to %q, %s: %w", clip(target), why, errdefs.ErrInvalidArgument)
	}
	if len(parts) == 0 {
		return refuse("the root")
	}
	if strings.Join(parts, "/") == path {
		return refuse("itself")
	}
	from, err := u.openExisting(parts[:len(parts)-1])
	if err != nil {
		return refuse("which is not in the layer")
	}
	defer unix.Close(from)
	last := parts[len(parts)-1]
	st, err := lstat(from, last)
	switch {
	case err != nil, !u.isMade(&st) && !isDir(&st):
		return refuse("which is not in the layer")
	case isDir(&st):
		return refuse("a directory")
	case isWhiteout(&st):
		return refuse("a whiteout")
	}
	dir := u.cur.dir()
	err = u.replace(dir, name, func() error { return unix.Linkat(from, last, dir, name, 0) })
	if errors.Is(err, unix.ENOENT) {
		return refuse("which this entry replaces") // it was below a directory of this name
	}
	if err != nil {
		return fmt.Errorf("link to %q: %w", clip(target), class(err))
	}
	return nil
}

// openExisting opens a directory below the root without making anything.
func (u *unpacker) openExisting(parts []string) (int, error) {
	fd, err := openat(u.cur.root, ".", dirFlags, 0)
	for _, part := range parts {
		if err != nil {
			return -1, err
		}
		var next int
		next, err = openat(fd, part, dirFlags, 0)
		unix.Close(fd)
		fd = next
	}
	return fd, err
}

// describe sets owner, mode, attributes and times, in this order: a changed
// owner takes setuid and capabilities away.
func (u *unpacker) describe(dir int, name, path string, h *tar.Header) error {
	uid, gid, err := MapOwner(u.o.IDMap, h.Uid, h.Gid)
	if err != nil {
		return err
	}
	if err := unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown to %d:%d: %w", uid, gid, class(err))
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(dir, name, uint32(h.Mode)&0o7777, 0); err != nil {
			return fmt.Errorf("chmod to %o: %w", h.Mode&0o7777, class(err))
		}
	}
	if err := u.setXattrs(dir, name, h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		if len(u.dirTimes) >= maxDirs {
			return fmt.Errorf("more than %d directories: %w", maxDirs, errdefs.ErrInvalidArgument)
		}
		u.dirTimes[path] = h.ModTime
		return u.mark(dir, name)
	}
	times := entryTimes(h.ModTime)
	if err := unix.UtimesNanoAt(dir, name, times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", class(err))
	}
	return u.mark(dir, name)
}

func entryTimes(t time.Time) [2]unix.Timespec {
	ts := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	return [2]unix.Timespec{ts, ts}
}

// setXattrs sets the attributes that the entry's PAX records hold.
func (u *unpacker) setXattrs(dir int, name string, h *tar.Header) error {
	for key, value := range h.PAXRecords {
		xattr, ok := strings.CutPrefix(key, xattrRecord)
		if !ok {
			continue
		}
		mapped, reason := mapXattr(xattr, []byte(value), u.o.IDMap)
		if reason == "" {
			var err error
			if reason, err = setXattr(dir, name, xattr, mapped); err != nil {
				return fmt.Errorf("set attribute %q: %w", clip(xattr), class(err))
			}
		}
		if reason != "" {
			u.drop(Dropped{Entry: clip(h.Name), Xattr: clip(xattr), Reason: reason})
		}
	}
	return nil
}

func (u *unpacker) drop(d Dropped) {
	const told = 32
	u.res.DroppedCount++
	if len(u.res.Dropped) < told {
		u.res.Dropped = append(u.res.Dropped, d)
	}
}

// mark remembers an inode as one of this layer.
func (u *unpacker) mark(dir int, name string) error {
	if u.made == nil {
		return nil
	}
	st, err := lstat(dir, name)
	if err == nil {
		u.made[st.Ino] = struct{}{}
	}
	return err
}

// isMade reports whether an inode is one of this layer's entries.
func (u *unpacker) isMade(st *unix.Stat_t) bool {
	if u.made == nil {
		return true // the directory holds nothing else
	}
	_, ok := u.made[st.Ino]
	return ok
}

// setDirTimes sets directories' times, now that nothing more is made in them.
// One that a later entry has replaced is passed over.
func (u *unpacker) setDirTimes() error {
	for path, t := range u.dirTimes {
		times := entryTimes(t)
		name := path
		if name == "" {
			name = "."
		}
		how := unix.OpenHow{Flags: dirFlags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
		fd, err := unix.Openat2(u.cur.root, name, &how)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return fmt.Errorf("layer entry %q: open: %w", clip(path), class(err))
		}
		err = unix.UtimesNanoAt(fd, ".", times[:], 0)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("layer entry %q: set times: %w", clip(path), class(err))
		}
	}
	return nil
}
