package layertar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// The kinds of changes.
const (
	Added   = "A"
	Changed = "C"
	Deleted = "D"
)

// Change is one path that differs from an image, absolute.
type Change struct {
	Kind, Path string
}

// OverlayChanges lists what the upper directory of an overlay changes of the
// layers below it, top first, by path. A directory is told when it differs
// itself or something in it does.
func OverlayChanges(ctx context.Context, upper *os.File, lowers []*os.File, o DiffOptions) ([]Change, error) {
	l := lister{newPacker(ctx, io.Discard, o)}
	dirs := make([]int, 0, len(lowers))
	defer func() { closeAll(dirs) }()
	for _, f := range lowers {
		fd, err := openat(int(f.Fd()), ".", dirFlags, 0)
		if err != nil {
			return nil, fmt.Errorf("list changes: %w", class(err))
		}
		dirs = append(dirs, fd)
	}
	out, err := l.upper(int(upper.Fd()), dirs, "", 0)
	if err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	return out, nil
}

// TreeChanges lists what differs between two directories; lower may be nil.
func TreeChanges(ctx context.Context, lower, upper *os.File, o DiffOptions) ([]Change, error) {
	l := lister{newPacker(ctx, io.Discard, o)}
	low := -1
	if lower != nil {
		low = int(lower.Fd())
	}
	out, err := l.trees(low, int(upper.Fd()), "", 0)
	if err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	return out, nil
}

// lister walks as a packer does, and writes nothing.
type lister struct{ *packer }

// upper lists one directory of an upper layer, over the merged directories below.
func (l lister) upper(fd int, below []int, dir string, depth int) ([]Change, error) {
	names, err := l.names(fd, dir, depth)
	if err != nil {
		return nil, err
	}
	var out []Change
	for _, name := range names {
		if err := l.ctx(); err != nil {
			return nil, err
		}
		full := path.Join(dir, name)
		st, err := lstat(fd, name)
		if errors.Is(err, unix.ENOENT) {
			continue // the container removed it just now
		}
		var more []Change
		if err == nil {
			more, err = l.entryOf(fd, below, name, full, &st, depth)
		}
		if err != nil {
			return nil, inEntry(full, err)
		}
		out = append(out, more...)
	}
	return out, nil
}

// entryOf lists one name of an upper layer.
func (l lister) entryOf(fd int, below []int, name, full string, st *unix.Stat_t, depth int) ([]Change, error) {
	next, _, file, err := merge(below, name)
	defer func() { closeAll(next) }()
	if err != nil {
		return nil, class(err)
	}
	exists := file || len(next) > 0
	switch {
	case isWhiteout(st):
		if !exists || l.o.SkipWhiteout != nil && l.o.SkipWhiteout(full) {
			return nil, nil
		}
		return []Change{{Deleted, "/" + full}}, nil
	case !isDir(st):
		if !exists && l.o.SkipNew != nil && l.o.SkipNew(full, st.Size) {
			return nil, nil
		}
		return []Change{{kindOf(exists), "/" + full}}, nil
	}
	child, err := openat(fd, name, dirFlags, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, class(err)
	}
	defer unix.Close(child)
	seen := next
	var gone []Change
	if isOpaque(child) {
		if gone, err = l.hidden(next, child, full); err != nil {
			return nil, err
		}
		seen = nil
	}
	inside, err := l.upper(child, seen, full, depth+1)
	if err != nil {
		return nil, err
	}
	inside = append(inside, gone...)
	slices.SortStableFunc(inside, byPath)
	told := !exists || file || len(inside) > 0 || !l.sameDir(next[0], st)
	if !exists && l.o.SkipNew != nil && l.o.SkipNew(full, 0) {
		told = false // a directory of ours; what is in it is not
	}
	if told {
		inside = append([]Change{{kindOf(exists), "/" + full}}, inside...)
	}
	return inside, nil
}

// byPath orders as a walk does: a directory before what is in it.
func byPath(a, b Change) int { return slices.Compare(pathParts(a.Path), pathParts(b.Path)) }

func pathParts(p string) []string {
	var out []string
	for p != "/" && p != "." {
		out = append(out, path.Base(p))
		p = path.Dir(p)
	}
	slices.Reverse(out)
	return out
}

func kindOf(exists bool) string {
	if exists {
		return Changed
	}
	return Added
}

// sameDir reports whether a directory of the upper layer is as the one below.
func (l lister) sameDir(below int, st *unix.Stat_t) bool {
	var b unix.Stat_t
	if unix.Fstat(below, &b) != nil {
		return false
	}
	return b.Mode == st.Mode && b.Mtim == st.Mtim &&
		int(b.Uid) == unmapID(l.o.IDMap.UIDs, st.Uid) && int(b.Gid) == unmapID(l.o.IDMap.GIDs, st.Gid)
}

// hidden lists what an opaque directory takes away: the names below that it
// has not itself.
func (l lister) hidden(below []int, upper int, full string) ([]Change, error) {
	var out []Change
	for _, dir := range below {
		names, err := readNames(dir)
		if err != nil {
			return nil, class(err)
		}
		for _, name := range names {
			if _, err := lstat(upper, name); err == nil {
				continue
			}
			next, _, file, err := merge(below, name)
			closeAll(next)
			if err != nil {
				return nil, class(err)
			}
			if c := (Change{Deleted, "/" + path.Join(full, name)}); (file || len(next) > 0) && !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

// trees lists what differs below two directories; lower is -1 where there is
// none.
func (l lister) trees(lower, upper int, dir string, depth int) ([]Change, error) {
	names, err := l.names(upper, dir, depth)
	if err != nil {
		return nil, err
	}
	if lower >= 0 {
		below, err := readNames(lower)
		if err != nil {
			return nil, class(err)
		}
		names = slices.Compact(slices.Sorted(slices.Values(append(names, below...))))
	}
	var out []Change
	for _, name := range names {
		if err := l.ctx(); err != nil {
			return nil, err
		}
		full := path.Join(dir, name)
		more, err := l.pair(lower, upper, name, full, depth)
		if err != nil {
			return nil, inEntry(full, err)
		}
		out = append(out, more...)
	}
	return out, nil
}

// pair lists one name of two directories.
func (l lister) pair(lower, upper int, name, full string, depth int) ([]Change, error) {
	var below *unix.Stat_t
	if lower >= 0 {
		if st, err := lstat(lower, name); err == nil {
			below = &st
		}
	}
	st, err := lstat(upper, name)
	switch {
	case err != nil && below == nil:
		return nil, nil
	case err != nil:
		return []Change{{Deleted, "/" + full}}, nil
	case below == nil && !isDir(&st) && l.o.SkipNew != nil && l.o.SkipNew(full, st.Size):
		return nil, nil
	}
	same, err := l.same(lower, upper, name, below, &st)
	if err != nil {
		return nil, err
	}
	var inside []Change
	if isDir(&st) {
		if inside, err = l.below(lower, upper, name, full, below, depth); err != nil {
			return nil, err
		}
		if below == nil && l.o.SkipNew != nil && l.o.SkipNew(full, 0) {
			return inside, nil
		}
	}
	if same && len(inside) == 0 {
		return nil, nil
	}
	return append([]Change{{kindOf(below != nil), "/" + full}}, inside...), nil
}

// below lists what is in a directory of the upper tree.
func (l lister) below(lower, upper int, name, full string, below *unix.Stat_t, depth int) ([]Change, error) {
	child, err := openat(upper, name, dirFlags, 0)
	if err != nil {
		return nil, class(err)
	}
	defer unix.Close(child)
	childLower := -1
	if below != nil && isDir(below) {
		if childLower, err = openat(lower, name, dirFlags, 0); err != nil {
			return nil, class(err)
		}
		defer unix.Close(childLower)
	}
	return l.trees(childLower, child, full, depth+1)
}
