package tartree

import (
	"errors"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"golang.org/x/sys/unix"
)

// maxLinks is the kernel's bound of links on the way (MAXSYMLINKS).
const maxLinks = 40

// Find opens the directory that holds a path, below root, and tells what the
// path is, without following it. The path "/" is "." in itself.
// NotFound: nothing is there.
func Find(root *os.File, name string) (dir *os.File, base string, st unix.Stat_t, err error) {
	name = path.Clean("/" + name)
	base = path.Base(name)
	if name == "/" {
		base = "."
	}
	dir, err = openIn(root, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, "", st, missing(name, err)
	}
	if err = unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		dir.Close()
		return nil, "", st, missing(name, err)
	}
	return dir, base, st, nil
}

// openIn opens a path below root, whatever links say.
func openIn(root *os.File, name string, flags int) (*os.File, error) {
	if weak.Off(weak.CopyInside) {
		fd, err := unix.Openat(int(root.Fd()), "."+name, flags|unix.O_CLOEXEC, 0)
		return os.NewFile(uintptr(fd), name), err
	}
	return linux.OpenInRoot(root, name, flags)
}

// missing gives an error about a path its class.
func missing(name string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return errclass.Errorf(errdefs.ErrNotFound, "no such file or directory: %s", name)
	}
	return classify(err)
}

// Resolve follows all links of a path below root, also the last one, and gives
// the path that is meant. What is not there stays as it is written.
func Resolve(root *os.File, name string) (string, error) {
	links := 0
	done, rest := "/", strings.Split(path.Clean("/"+name), "/")[1:]
	for len(rest) > 0 {
		next := rest[0]
		rest = rest[1:]
		switch next {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		target, err := readLink(root, done, next)
		if err != nil {
			return "", err
		}
		if target == "" {
			done = path.Join(done, next)
			continue
		}
		if links++; links > maxLinks {
			return "", errclass.Errorf(errdefs.ErrInvalidArgument, "%s: too many symbolic links", name)
		}
		if path.IsAbs(target) {
			done = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return done, nil
}

// readLink reads a link; empty where there is none.
func readLink(root *os.File, dir, name string) (string, error) {
	d, err := linux.OpenInRoot(root, dir, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", classify(err)
	}
	defer d.Close()
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(d.Fd()), name, buf)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", classify(err)
	}
	return string(buf[:n]), nil
}
