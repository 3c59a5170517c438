package linux

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// openTries bounds repeated lookups. openat2(RESOLVE_IN_ROOT) answers EAGAIN
// when something on the way was renamed or mounted meanwhile.
const openTries = 128

// OpenInRoot opens a path as a process would whose root directory is root,
// whatever symbolic links say. Magic links of procfs are not followed, and a
// FIFO does not hold the caller up.
func OpenInRoot(root *os.File, path string, flags int) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_PATH != 0 {
		how.Flags &^= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	for range openTries {
		fd, err := unix.Openat2(int(root.Fd()), path, &how)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		default:
			return os.NewFile(uintptr(fd), path), nil
		}
	}
	return nil, &os.PathError{Op: "open", Path: path, Err: unix.EAGAIN}
}

// ErrNotRegular says that something other than a regular file was found.
var ErrNotRegular = errors.New("not a regular file")

// ErrTooLong says that a file is longer than the reader's bound.
var ErrTooLong = errors.New("file is too long")

// ReadInRoot reads a regular file of at most limit bytes below a root that
// may be hostile.
func ReadInRoot(root *os.File, path string, limit int64) ([]byte, error) {
	// First a descriptor that has not opened anything: opening a device or
	// FIFO may have effects.
	found, err := OpenInRoot(root, path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	return ReadOpened(found, path, limit)
}

// ReadOpened reads a regular file of at most limit bytes that an O_PATH
// descriptor, or the mount of a single file, names.
func ReadOpened(found *os.File, path string, limit int64) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(found.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "look at", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	if st.Size > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d: %w", path, st.Size, limit, ErrTooLong)
	}
	// The link of our own descriptor leads to the very same file, whatever
	// has become of its name.
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", found.Fd()), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: errors.Unwrap(err)}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes: %w", path, limit, ErrTooLong)
	}
	return text, nil
}
