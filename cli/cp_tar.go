package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// writeCounter counts what is written.
type writeCounter struct {
	w io.Writer
	n int64
}

func (c *writeCounter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// isHangup: the other side has gone.
func isHangup(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF)
}

// renamer puts another name in the place of the first one of an archive's
// entries, which all others stand below.
type renamer struct {
	base string
	old  string
	seen bool
}

// rename gives the new name of an entry, slash at the end of directories' left away.
func (r *renamer) rename(name string) (string, error) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if !r.seen {
		r.old, r.seen = name, true
	}
	rest, ok := strings.CutPrefix(name, r.old)
	if !ok || r.old != "" && rest != "" && rest[0] != '/' {
		return "", fmt.Errorf("the archive has %q, which does not stand below its first entry %q", name, r.old)
	}
	return path.Join(r.base, rest), nil
}

// entry renames what an entry is called, and what it is a hard link to.
func (r *renamer) entry(h *tar.Header) error {
	name, err := r.rename(h.Name)
	if err != nil {
		return err
	}
	h.Name = name
	if h.Typeflag == tar.TypeLink {
		h.Linkname, err = r.rename(h.Linkname)
	}
	return err
}

// copyTar passes an archive on with its entries called by base.
func copyTar(w io.Writer, from io.Reader, base string) error {
	in, out := tar.NewReader(from), tar.NewWriter(w)
	names := renamer{base: base}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out.Close()
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if err := names.entry(h); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		h.Format = tar.FormatUnknown // the one that the new name needs
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("write the archive: %w", err)
		}
		if _, err := io.Copy(out, in); err != nil {
			return fmt.Errorf("write the archive: %w", err)
		}
	}
}

// pack writes what is at a path of ours as an archive whose entries are called by base.
func pack(w io.Writer, root, base string) error {
	out := tar.NewWriter(w)
	links := make(map[[2]uint64]string) // names of files with several, by device and inode
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		return packEntry(out, name, path.Join(base, rel), e, links)
	})
	if err != nil {
		return err
	}
	return out.Close()
}

func packEntry(out *tar.Writer, name, as string, e fs.DirEntry, links map[[2]uint64]string) error {
	info, err := e.Info()
	if err != nil || info.Mode()&os.ModeSocket != 0 {
		return err // an archive has no sockets
	}
	link := ""
	if info.Mode()&os.ModeSymlink != 0 {
		if link, err = os.Readlink(name); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	h.Name, h.Uname, h.Gname, h.Format = as, "", "", tar.FormatPAX // whose names are another system's
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	if info.IsDir() {
		h.Name += "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 && info.Mode().IsRegular() {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := links[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			links[key] = as
		}
	}
	if h.Typeflag != tar.TypeReg {
		return out.WriteHeader(h)
	}
	return packFile(out, name, h)
}

func packFile(out *tar.Writer, name string, h *tar.Header) error {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const capability = "security.capability"
	value := make([]byte, 64)
	if n, err := unix.Fgetxattr(int(f.Fd()), capability, value); err == nil {
		h.PAXRecords = map[string]string{paxXattr + capability: string(value[:n])}
	}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	if n, err := io.CopyN(out, f, h.Size); err != nil {
		return fmt.Errorf("pack %s: it became shorter, %d of %d bytes: %w", name, n, h.Size, err)
	}
	return nil
}

const paxXattr = "SCHILY.xattr."
