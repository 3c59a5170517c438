package layertar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// flattenDepth is how deep RemoveTree goes down before it lifts what is below
// to the top: a container may make directories deeper than there are
// descriptors.
const flattenDepth = 64

// RemoveTree removes name below dir with all that is in it, and nothing that
// a link points to. What is not there is removed already. It holds at most
// 65 descriptors, however deep the tree is.
func RemoveTree(ctx context.Context, dir *os.File, name string) error {
	r := remover{ctx: ctx.Err, top: int(dir.Fd()), todo: []string{name}}
	for len(r.todo) > 0 {
		next := r.todo[len(r.todo)-1]
		r.todo = r.todo[:len(r.todo)-1]
		if err := r.remove(r.top, next, 0); err != nil {
			return fmt.Errorf("remove %s: %w", clip(name), class(err))
		}
	}
	return nil
}

type remover struct {
	ctx    func() error
	top    int      // where deep directories are lifted to
	lifted uint64   // how many were, for their names
	todo   []string // still to be removed from top
}

// remove removes name below dir, which is depth directories below the top.
func (r *remover) remove(dir int, name string, depth int) error {
	err := unix.Unlinkat(dir, name, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM):
		return err
	}
	if err := r.ctx(); err != nil {
		return err
	}
	// Most directories that are removed are not empty, but those that are
	// cost one call.
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	} else if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	if depth >= flattenDepth {
		return r.lift(dir, name)
	}
	fd, err := openat(dir, name, dirFlags, 0)
	if err != nil {
		return err
	}
	err = r.empty(fd, depth+1)
	unix.Close(fd)
	if err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// lift moves a deep directory to the top, to be removed from there later,
// when the descriptors on the way down to it are closed.
func (r *remover) lift(dir int, name string) error {
	for {
		r.lifted++
		flat := ".gantry-lifted-" + strconv.FormatUint(r.lifted, 10)
		err := unix.Renameat2(dir, name, r.top, flat, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			continue // of a removal that was cut short
		}
		if err == nil {
			r.todo = append(r.todo, flat)
		}
		return err
	}
}

// empty removes everything in the directory fd.
func (r *remover) empty(fd, depth int) error {
	names, err := readNames(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := r.remove(fd, name, depth); err != nil {
			return err
		}
	}
	return nil
}

// readNames lists the directory fd, which stays open and may be listed again.
func readNames(fd int) ([]string, error) {
	again, err := openat(fd, ".", dirFlags, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), "directory")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return names, nil
}
