package layertar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// WriteDiff writes what differs between two directories as a layer tar: what
// upper has and lower has not, or otherwise, and a whiteout for what lower has
// alone. Of files that look alike in every attribute the content is compared
// too, since a program may set a file's time back.
//
// InvalidArgument: a file bears a whiteout's name.
func WriteDiff(ctx context.Context, w io.Writer, lower, upper *os.File, o DiffOptions) error {
	p := newPacker(ctx, w, o)
	low := -1
	if lower != nil {
		low = int(lower.Fd())
	}
	if err := p.compareDirs(low, int(upper.Fd()), "", 0); err != nil {
		return fmt.Errorf("write diff: %w", err)
	}
	if err := p.tw.Close(); err != nil {
		return fmt.Errorf("write diff: %w", err)
	}
	return nil
}

// compareDirs writes what differs below two directories; lower is -1 where
// there is none.
func (p *packer) compareDirs(lower, upper int, dir string, depth int) error {
	names, err := p.names(upper, dir, depth)
	if err != nil {
		return err
	}
	if lower >= 0 {
		below, err := readNames(lower)
		if err != nil {
			return class(err)
		}
		names = slices.Compact(slices.Sorted(slices.Values(append(names, below...))))
	}
	for _, name := range names {
		if err := p.ctx(); err != nil {
			return err
		}
		full := path.Join(dir, name)
		if err := p.compare(lower, upper, name, full, depth); err != nil {
			return inEntry(full, err)
		}
	}
	return nil
}

// compare writes one name, if it differs.
func (p *packer) compare(lower, upper int, name, full string, depth int) error {
	var below *unix.Stat_t
	if lower >= 0 {
		if st, err := lstat(lower, name); err == nil {
			below = &st
		}
	}
	st, err := lstat(upper, name)
	switch {
	case err != nil && below == nil:
		return nil
	case err != nil:
		return p.whiteout(full)
	case below == nil && p.o.SkipNew != nil && !isDir(&st) && p.o.SkipNew(full, st.Size):
		return nil
	case !isDir(&st):
		same, err := p.same(lower, upper, name, below, &st)
		if err != nil || same {
			return err
		}
		return p.entry(upper, name, full, &st)
	}
	return p.compareDir(lower, upper, name, full, below, &st, depth)
}

// compareDir writes a directory if it differs itself, or as soon as something
// in it does: unpacked on its own, the layer must know its attributes.
func (p *packer) compareDir(lower, upper int, name, full string, below, st *unix.Stat_t, depth int) error {
	h, err := p.header(upper, name, full, st)
	if err != nil {
		return err
	}
	child, err := openat(upper, name, dirFlags, 0)
	if err != nil {
		return class(err)
	}
	defer unix.Close(child)
	childLower := -1
	if below != nil && isDir(below) {
		if childLower, err = openat(lower, name, dirFlags, 0); err != nil {
			return class(err)
		}
		defer unix.Close(childLower)
	}
	p.pending = append(p.pending, pendingDir{h})
	defer func() { p.pending = p.pending[:len(p.pending)-1] }()
	ours := below == nil && p.o.SkipNew != nil && p.o.SkipNew(full, 0)
	same, err := p.same(lower, upper, name, below, st)
	if err != nil {
		return err
	}
	if !same && !ours {
		if err := p.flush(); err != nil {
			return err
		}
	}
	return p.compareDirs(childLower, child, full, depth+1)
}

// same reports whether two files of the same name are alike.
func (p *packer) same(lower, upper int, name string, a, b *unix.Stat_t) (bool, error) {
	if a == nil || a.Mode != b.Mode || a.Rdev != b.Rdev || a.Mtim != b.Mtim ||
		int(a.Uid) != unmapID(p.o.IDMap.UIDs, b.Uid) || int(a.Gid) != unmapID(p.o.IDMap.GIDs, b.Gid) {
		return false, nil
	}
	kind := b.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && a.Size != b.Size {
		return false, nil
	}
	ax, err := getXattrs(lower, name)
	if err != nil {
		return false, class(err)
	}
	bx, err := getXattrs(upper, name)
	if err != nil {
		return false, class(err)
	}
	for xattr, value := range ax {
		mapped, reason := mapXattr(xattr, []byte(value), p.o.IDMap)
		if ax[xattr] = string(mapped); reason != "" {
			delete(ax, xattr) // nor did CopyTree copy it
		}
	}
	if !maps.Equal(ax, bx) {
		return false, nil
	}
	switch kind {
	case unix.S_IFREG:
		return sameContent(lower, upper, name)
	case unix.S_IFLNK:
		a, b := make([]byte, maxNameBytes+1), make([]byte, maxNameBytes+1)
		n, err := unix.Readlinkat(lower, name, a)
		if err != nil {
			return false, class(err)
		}
		m, err := unix.Readlinkat(upper, name, b)
		return err == nil && bytes.Equal(a[:n], b[:m]), class(err)
	}
	return true, nil
}

// sameContent compares two regular files of the same size.
func sameContent(lower, upper int, name string) (bool, error) {
	a, err := openFile(lower, name)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := openFile(upper, name)
	if err != nil {
		return false, err
	}
	defer b.Close()
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := fill(a, x)
		m, errB := fill(b, y)
		switch {
		case !bytes.Equal(x[:n], y[:m]):
			return false, nil
		case errors.Is(errA, io.EOF) && errors.Is(errB, io.EOF):
			return true, nil
		case errA != nil || errB != nil:
			return false, errors.Join(errA, errB)
		}
	}
}

func openFile(dir int, name string) (*os.File, error) {
	fd, err := openRegular(dir, name)
	if err != nil {
		return nil, class(err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
