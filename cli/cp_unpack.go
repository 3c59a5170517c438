package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unpacker unpacks what a container has packed, so that nothing in it is to be
// trusted: all is done through a descriptor of the directory, out of which no
// name and no symbolic link leads.
type unpacker struct {
	root *os.Root
	keep bool // owners are the archive's
	dirs []dirTime
}

// dirTime is a directory whose time is set when nothing changes it any more.
type dirTime struct {
	name string
	time time.Time
}

// unpack unpacks an archive into a directory; its entries are called by base there.
func unpack(dir string, from io.Reader, base string, keep bool) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{root: root, keep: keep}
	in := tar.NewReader(from)
	names := renamer{base: base}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if err := names.entry(h); err != nil {
			return err
		}
		if err := u.entry(h, in); err != nil {
			return fmt.Errorf("unpack %s: %w", path.Join(dir, h.Name), err)
		}
	}
	for i := len(u.dirs) - 1; i >= 0; i-- {
		if err := root.Chtimes(u.dirs[i].name, u.dirs[i].time, u.dirs[i].time); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	there, err := u.makeRoom(h)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(h, there)
	case tar.TypeReg:
		return u.file(h, content)
	case tar.TypeSymlink:
		if err := u.root.Symlink(h.Linkname, h.Name); err != nil {
			return err
		}
		return u.own(h)
	case tar.TypeLink:
		return u.root.Link(h.Linkname, h.Name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.node(h)
	}
	return fmt.Errorf("an entry of type %q is not known", h.Typeflag)
}

// makeRoom removes a file that stands where an entry goes. A directory and
// anything else do not take each other's place.
func (u *unpacker) makeRoom(h *tar.Header) (there bool, err error) {
	info, err := u.root.Lstat(h.Name)
	isDir := h.Typeflag == tar.TypeDir
	switch {
	case errors.Is(err, os.ErrNotExist):
		if parent := path.Dir(h.Name); parent != "." {
			return false, u.root.MkdirAll(parent, 0o777)
		}
		return false, nil
	case err != nil:
		return false, err
	case info.IsDir() && isDir:
		return true, nil
	case info.IsDir():
		return true, errors.New("cannot overwrite a directory with a file")
	case isDir:
		return true, errors.New("cannot overwrite a file with a directory")
	}
	return false, u.root.Remove(h.Name)
}

func (u *unpacker) directory(h *tar.Header, there bool) error {
	if !there {
		if err := u.root.Mkdir(h.Name, 0o700); err != nil {
			return err
		}
	}
	if h.Name == "." {
		return nil // the directory that was there, and stays as it was
	}
	if err := u.own(h); err != nil {
		return err
	}
	u.dirs = append(u.dirs, dirTime{h.Name, h.ModTime})
	return u.root.Chmod(h.Name, h.FileInfo().Mode())
}

func (u *unpacker) file(h *tar.Header, content io.Reader) error {
	f, err := u.root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = u.fill(f, h, content)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return u.root.Chtimes(h.Name, h.ModTime, h.ModTime)
}

// fill writes a file and gives it its owner, mode and capabilities, in this order:
// a change of owner takes the others away.
func (u *unpacker) fill(f *os.File, h *tar.Header, content io.Reader) error {
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	if u.keep {
		if err := f.Chown(h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if err := f.Chmod(h.FileInfo().Mode()); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok || strings.HasPrefix(name, "trusted.") {
			continue
		}
		err := unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	return nil
}

func (u *unpacker) own(h *tar.Header) error {
	if !u.keep {
		return nil
	}
	return u.root.Lchown(h.Name, h.Uid, h.Gid)
}

// node makes a device or a pipe.
func (u *unpacker) node(h *tar.Header) error {
	dir, err := u.root.Open(path.Dir(h.Name))
	if err != nil {
		return err
	}
	defer dir.Close()
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
	dev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	if err := unix.Mknodat(int(dir.Fd()), path.Base(h.Name), kind|uint32(h.Mode&0o777), int(dev)); err != nil {
		return err
	}
	return u.own(h)
}
