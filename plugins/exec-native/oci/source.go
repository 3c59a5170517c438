package oci

import (
	"fmt"
	"os"

	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"golang.org/x/sys/unix"
)

// Source is a bind mount's that the init makes: what plan.Bind says of it.
type Source struct {
	Path         string // as the init finds it; empty for a mount that is made on this side
	Major, Minor uint32
	Inode        uint64
	Dir          bool
	Tree         bool // with the mounts below
	Attrs        []plan.Attr
}

// source opens what a bind mount is of and says how the init finds it, if it does:
// a name that leads there without links, in a namespace copied from ours. The
// file is open, so that its number is nobody else's.
func source(path string, opts options) (out Opened, err error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return out, fmt.Errorf("open source %s of the bind mount: %w", path, err)
	}
	out.Detached = linux.Detached{File: os.NewFile(uintptr(fd), path)}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE|unix.STATX_INO|mountNumber, &st); err != nil {
		out.Close()
		return out, fmt.Errorf("look at %s: %w", path, err)
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || !leadsTo(name, path, st) {
		return out, nil
	}
	if opts.propagation == unix.MS_SHARED && !out.findPeer(name, opts.tree, st) {
		return out, nil
	}
	out.Source = Source{
		Path: name, Major: st.Dev_major, Minor: st.Dev_minor, Inode: st.Ino,
		Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, Tree: opts.tree, Attrs: opts.changes(!opts.tree),
	}
	return out, nil
}

// mountNumber asks for a mount's number; the kernels that list mounts by their age
// (Linux 6.8) have ones that are never given again.
const mountNumber = unix.STATX_MNT_ID | unix.STATX_MNT_ID_UNIQUE

// findPeer clones the host's mount where the one in the container is to be its
// peer: the init's copies are slaves. It reports whether that is enough. It is not
// where mounts below are shared too; and where mounts are listed as they were
// attached nothing is gained.
func (o *Opened) findPeer(name string, tree bool, st unix.Statx_t) bool {
	top, below, err := linux.SharedAt(name)
	if err != nil || tree && below || top && st.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		return false
	}
	if top {
		o.peer, err = linux.CloneOpened(o.File, false)
	}
	return err == nil
}

// leadsTo reports whether a name of an open file, which the kernel has made up,
// leads there: not those of what is deleted, of another namespace or covered. The
// root directory does, but the container's root lies upon the init's.
func leadsTo(name, path string, st unix.Statx_t) bool {
	if name == path || name == "/" {
		return name != "/"
	}
	var at unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_INO|mountNumber, &at)
	return err == nil && name[0] == '/' && at.Mnt_id == st.Mnt_id && at.Ino == st.Ino && at.Dev_major == st.Dev_major && at.Dev_minor == st.Dev_minor
}

// Place gives what is open its place among the files that go with the plan. What a
// mount of the init's is of stays open here.
func (o Opened) Place(files *Files) (m Mount, err error) {
	switch {
	case o.File == nil:
		return Mount{FD: plan.NoFD}, nil
	case o.Source.Path != "":
		files.Hold(o.File)
		return Mount{FD: files.Add(o.peer.File), Source: o.Source, IsDir: o.Source.Dir}, nil
	}
	m.FD = files.Add(o.File)
	m.IsDir, err = o.IsDir()
	return m, err
}
