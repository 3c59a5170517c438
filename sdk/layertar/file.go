package layertar

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// makeFile makes a regular file with its content.
func (u *unpacker) makeFile(dir int, name, path string, h *tar.Header, r io.Reader) error {
	sparse := isSparse(h)
	if sparse && h.Size > maxSparseBytes {
		return fmt.Errorf("sparse file of %d bytes: %w", h.Size, errdefs.ErrInvalidArgument)
	}
	fd := -1
	err := u.replace(dir, name, func() error {
		var err error
		fd, err = openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW, 0o600)
		return err
	})
	if err != nil {
		return fmt.Errorf("make file: %w", class(err))
	}
	err = u.fill(fd, r, sparse, h.Size)
	if err == nil {
		err = u.describeFile(fd, dir, name, h)
	}
	if closeErr := unix.Close(fd); err == nil && closeErr != nil {
		err = fmt.Errorf("close file: %w", class(closeErr))
	}
	return err
}

// describeFile is describe for a file whose descriptor is open: most entries
// are such, and calls on a descriptor walk no path.
func (u *unpacker) describeFile(fd, dir int, name string, h *tar.Header) error {
	uid, gid, err := MapOwner(u.o.IDMap, h.Uid, h.Gid)
	if err != nil {
		return err
	}
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return fmt.Errorf("chown to %d:%d: %w", uid, gid, class(err))
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return fmt.Errorf("chmod to %o: %w", h.Mode&0o7777, class(err))
	}
	if err := u.setXattrs(dir, name, h); err != nil {
		return err
	}
	times := entryTimes(h.ModTime)
	if err := unix.UtimesNanoAt(dir, name, times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", class(err))
	}
	return u.mark(dir, name)
}

// isSparse reports whether archive/tar fills holes of the entry with zeros.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// fill writes the content. Of sparse files, blocks of zeros stay holes.
func (u *unpacker) fill(fd int, r io.Reader, sparse bool, size int64) error {
	for {
		n, err := fill(r, u.buf)
		if n > 0 {
			u.res.Size += int64(n)
			u.tell()
			if writeErr := writeChunk(fd, u.buf[:n], sparse); writeErr != nil {
				return fmt.Errorf("write: %w", class(writeErr))
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &readError{err}
		}
	}
	if sparse {
		if err := unix.Ftruncate(fd, size); err != nil {
			return fmt.Errorf("set size %d: %w", size, class(err))
		}
	}
	return nil
}

func writeChunk(fd int, p []byte, sparse bool) error {
	if sparse && isZero(p) {
		_, err := unix.Seek(fd, int64(len(p)), io.SeekCurrent)
		return err
	}
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
