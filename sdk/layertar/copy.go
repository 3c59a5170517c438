package layertar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

// copier is one run of CopyTree.
type copier struct {
	ctx     func() error
	m       driver.IDMap
	beat    func(done int64)
	bytes   int64
	links   map[inode]string // files with several names: the first copied, from the root
	root    int              // of the copy
	buf     []byte
	noClone bool // the filesystem does not share blocks between files
}

// CopyTree copies the directory from with all below it into the empty
// directory to: owners (mapped from the container's to the host's by m), modes,
// times, extended attributes, devices and hard links. Blocks are shared where
// the filesystem can (FICLONE). It follows no link. beat is told the bytes
// copied so far, now and then; it may be nil. It returns the bytes of regular
// files.
//
// ResourceExhausted: the disk is full. InvalidArgument: an owner is not in m.
func CopyTree(ctx context.Context, from, to *os.File, m driver.IDMap, beat func(done int64)) (int64, error) {
	c := &copier{ctx: ctx.Err, m: m, beat: beat, links: make(map[inode]string), root: int(to.Fd()), buf: make([]byte, 128<<10)}
	if err := c.dir(int(from.Fd()), c.root, "", 0); err != nil {
		return 0, fmt.Errorf("copy tree: %w", err)
	}
	return c.bytes, nil
}

// dir copies what is in from, then describes to as from is.
func (c *copier) dir(from, to int, full string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%q: %d directories deep: %w", clip(full), depth, errdefs.ErrInvalidArgument)
	}
	names, err := readNames(from)
	if err != nil {
		return class(err)
	}
	for _, name := range names {
		if err := c.ctx(); err != nil {
			return err
		}
		child := path.Join(full, name)
		if err := c.entry(from, to, name, child, depth); err != nil {
			return inEntry(child, err)
		}
	}
	return c.describe(from, ".", to, ".")
}

func (c *copier) entry(from, to int, name, full string, depth int) error {
	st, err := lstat(from, name)
	if err != nil {
		return class(err)
	}
	if isDir(&st) {
		return c.subdir(from, to, name, full, depth)
	}
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := c.links[id]; ok {
			return class(c.link(first, to, name))
		}
		c.links[id] = full
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = c.file(from, to, name, &st)
	case unix.S_IFLNK:
		buf := make([]byte, maxNameBytes+1)
		var n int
		if n, err = unix.Readlinkat(from, name, buf); err == nil {
			err = unix.Symlinkat(string(buf[:n]), to, name)
		}
	case unix.S_IFSOCK:
		return nil // nobody listens on a copy
	default:
		err = unix.Mknodat(to, name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
	}
	if err != nil {
		return class(err)
	}
	return c.describe(from, name, to, name)
}

func (c *copier) subdir(from, to int, name, full string, depth int) error {
	src, err := openat(from, name, dirFlags, 0)
	if err != nil {
		return class(err)
	}
	defer unix.Close(src)
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return class(err)
	}
	dst, err := openat(to, name, dirFlags, 0)
	if err != nil {
		return class(err)
	}
	defer unix.Close(dst)
	return c.dir(src, dst, full, depth+1)
}

// link makes a further name of the file first, a path in the copy, which
// nobody but the copier has touched.
func (c *copier) link(first string, to int, name string) error {
	dir, base := path.Split(first)
	fd, err := openBeneath(c.root, dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Linkat(fd, base, to, name, 0)
}

// openBeneath opens a directory below root, through no link.
func openBeneath(root int, name string) (int, error) {
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{Flags: dirFlags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
	return unix.Openat2(root, name, &how)
}

// file copies a regular file's content: by sharing its blocks, else within
// the kernel, else by reading and writing.
func (c *copier) file(from, to int, name string, st *unix.Stat_t) error {
	src, err := openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := openat(to, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	defer c.tell(st.Size)
	if st.Size == 0 {
		return nil
	}
	if !c.noClone {
		if err := unix.IoctlFileClone(dst, src); err == nil {
			return nil
		}
		c.noClone = true // this filesystem cannot; do not ask for each file
	}
	return c.extents(src, dst, st.Size)
}

// extents copies data and leaves holes holes.
func (c *copier) extents(src, dst int, size int64) error {
	for at := int64(0); at < size; {
		data, err := unix.Seek(src, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // nothing but a hole up to the end
		}
		if err != nil {
			data = at // the filesystem tells no holes
		}
		hole, err := unix.Seek(src, data, unix.SEEK_HOLE)
		if err != nil {
			hole = size
		}
		if err := c.bytesOf(src, dst, data, min(hole, size)); err != nil {
			return err
		}
		at = hole
	}
	return unix.Ftruncate(dst, size)
}

// bytesOf copies the bytes from at to end.
func (c *copier) bytesOf(src, dst int, at, end int64) error {
	for at < end {
		if err := c.ctx(); err != nil {
			return err
		}
		in, out := at, at
		n, err := unix.CopyFileRange(src, &in, dst, &out, int(min(end-at, 16<<20)), 0)
		if err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			n, err = c.readWrite(src, dst, at, end)
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF // it shrank under our hands
		}
		at += int64(n)
		if c.beat != nil {
			c.beat(c.bytes + at)
		}
	}
	return nil
}

func (c *copier) readWrite(src, dst int, at, end int64) (int, error) {
	n, err := unix.Pread(src, c.buf[:min(int64(len(c.buf)), end-at)], at)
	if err != nil || n == 0 {
		return n, err
	}
	return unix.Pwrite(dst, c.buf[:n], at)
}

func (c *copier) tell(size int64) {
	c.bytes += size
	if c.beat != nil {
		c.beat(c.bytes)
	}
}

// describe gives the copy owner, mode, attributes and times, in this order.
func (c *copier) describe(from int, name string, to int, copied string) error {
	st, err := lstat(from, name)
	if err != nil {
		return class(err)
	}
	uid, gid, err := MapOwner(c.m, int(st.Uid), int(st.Gid))
	if err != nil {
		return err
	}
	if err := unix.Fchownat(to, copied, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown to %d:%d: %w", uid, gid, class(err))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(to, copied, st.Mode&0o7777, 0); err != nil {
			return fmt.Errorf("chmod: %w", class(err))
		}
	}
	xattrs, err := getXattrs(from, name)
	if err != nil {
		return fmt.Errorf("read attributes: %w", class(err))
	}
	for xattr, value := range xattrs {
		if mapped, reason := mapXattr(xattr, []byte(value), c.m); reason == "" {
			if _, err := setXattr(to, copied, xattr, mapped); err != nil {
				return fmt.Errorf("set attribute %q: %w", xattr, class(err))
			}
		}
	}
	times := [2]unix.Timespec{st.Mtim, st.Mtim}
	if err := unix.UtimesNanoAt(to, copied, times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", class(err))
	}
	return nil
}
