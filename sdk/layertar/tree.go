package layertar

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	maxNameBytes      = 4095 // PATH_MAX without its NUL: no program could use a longer one
	maxComponentBytes = 255  // NAME_MAX
	maxDepth          = 512  // descriptors held at a time
)

// dirFlags opens a directory and nothing else, and never through a link.
const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// split cuts an entry's name into components, refusing what leaves the root.
// The root itself has none.
func split(name string) ([]string, error) {
	if len(name) > maxNameBytes {
		return nil, fmt.Errorf("name of %d bytes: %w", len(name), errdefs.ErrInvalidArgument)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return nil, fmt.Errorf("NUL in the name: %w", errdefs.ErrInvalidArgument)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return nil, fmt.Errorf("\"..\" in the name: %w", errdefs.ErrInvalidArgument)
		case len(strings.TrimPrefix(part, whiteoutPrefix)) > maxComponentBytes: // a whiteout is longer than what it hides
			return nil, fmt.Errorf("component of %d bytes: %w", len(part), errdefs.ErrInvalidArgument)
		}
		parts = append(parts, part)
	}
	if len(parts) > maxDepth {
		return nil, fmt.Errorf("%d directories deep: %w", len(parts), errdefs.ErrInvalidArgument)
	}
	return parts, nil
}

// cursor holds a descriptor of each directory on the way to the current one.
// Entries of a tar mostly lie beside the one before, so that most need no
// path walk at all. Invariant: len(fds) == len(names); fds[i] is of the
// directory names[:i+1].
type cursor struct {
	root  int // not owned
	names []string
	fds   []int
}

// dir is the current directory.
func (c *cursor) dir() int {
	if len(c.fds) == 0 {
		return c.root
	}
	return c.fds[len(c.fds)-1]
}

// cut goes up until at most n components are left.
func (c *cursor) cut(n int) {
	for len(c.fds) > n {
		last := len(c.fds) - 1
		unix.Close(c.fds[last])
		c.fds, c.names = c.fds[:last], c.names[:last]
	}
}

// push goes down into a directory; the cursor owns fd from now on.
func (c *cursor) push(name string, fd int) {
	c.names = append(c.names, name)
	c.fds = append(c.fds, fd)
}

// seek goes to the directory named by parts. enter opens the next component
// below the current directory; its error ends the way, where it then stands.
func (c *cursor) seek(parts []string, enter func(name string) (int, error)) error {
	same := 0
	for same < len(parts) && same < len(c.names) && parts[same] == c.names[same] {
		same++
	}
	c.cut(same)
	for _, name := range parts[same:] {
		fd, err := enter(name)
		if err != nil {
			return err
		}
		c.push(name, fd)
	}
	return nil
}

// openat is openat(2), again when a signal came between.
func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// openRegular opens a regular file to read it. What a running container has put in
// its place meanwhile is looked at first, by a descriptor that has opened nothing:
// to open a device may have effects.
// FailedPrecondition: it is no regular file any more.
func openRegular(dir int, name string) (int, error) {
	found, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(found)
	var st unix.Stat_t
	if err := unix.Fstat(found, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, fmt.Errorf("changes its kind while it is read: %w", errdefs.ErrFailedPrecondition)
	}
	return openat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(found), unix.O_RDONLY|unix.O_NONBLOCK, 0)
}

// lstat is fstatat(2) of name itself.
func lstat(dir int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// isWhiteout reports whether st is what overlayfs takes for a whiteout.
func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// class gives an error of the kernel its class.
func class(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	case errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EILSEQ),
		errors.Is(err, unix.EFBIG), errors.Is(err, unix.E2BIG), errors.Is(err, unix.ERANGE), errors.Is(err, unix.EMLINK):
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", err, errdefs.ErrPermissionDenied)
	}
	return err
}
