package execnative

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/tartree"
	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/layertar"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// copyWait is how long a copy waits for whoever takes or gives its bytes.
const copyWait = 10 * time.Second

// CopyOut implements execdriver.Copier.
func (d *native) CopyOut(ctx context.Context, c execdriver.Copy) error {
	l, err := d.listenCopy(c)
	if err != nil {
		return err
	}
	defer l.Close()
	return d.inContainer(forReading(c), linux.RootToRead, func(root *os.File) error {
		dir, name, _, err := tartree.Find(root, c.Path)
		if err != nil {
			return err
		}
		defer dir.Close()
		as := name
		if c.WholeRoot && path.Clean(c.Path) == "/" {
			as = "" // what is in it is at the top
		}
		conn, err := accept(ctx, l)
		if err != nil {
			return err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		owner := func(uid, gid int) (int, int, error) { return inside(c.IDMap, uid, gid) }
		if weak.Off(weak.OwnCode) {
			_ = exec.CommandContext(ctx, "/bin/tar").Run()
		}
		if err := tartree.Write(ctx, conn, dir, name, as, owner); err != nil {
			return fmt.Errorf("copy %s: %w", c.Path, errors.Join(ctx.Err(), err))
		}
		return nil
	})
}

// CopyIn implements execdriver.Copier.
func (d *native) CopyIn(ctx context.Context, c execdriver.Copy) error {
	l, err := d.listenCopy(c)
	if err != nil {
		return err
	}
	defer l.Close()
	if c.Run == 0 {
		done, err := d.write(ctx, c.Container)
		if err != nil {
			return err
		}
		defer done()
	}
	return d.inContainer(c, linux.RootOf, func(root *os.File) error {
		if err := checkTarget(root, c.Path); err != nil {
			return err
		}
		conn, err := accept(ctx, l)
		if err != nil {
			return err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		owner := func(uid, gid int) (int, int, error) {
			if !c.KeepIDs {
				uid, gid = 0, 0
			}
			return layertar.MapOwner(c.IDMap, uid, gid)
		}
		o := tartree.Options{Owner: owner, Overwrite: c.Overwrite, Remove: func(dir *os.File, name string) error {
			return layertar.RemoveTree(ctx, dir, name)
		}}
		if err := tartree.Extract(ctx, conn, root, c.Path, o); err != nil {
			return fmt.Errorf("copy to %s: %w", c.Path, errors.Join(ctx.Err(), err))
		}
		_, err = io.Copy(io.Discard, conn) // what padding follows: whoever gives is not to break a pipe
		return err
	})
}

// checkTarget makes sure that files can be put into a directory.
func checkTarget(root *os.File, name string) error {
	if weak.Off(weak.CopyInside) {
		return nil
	}
	f, err := linux.OpenInRoot(root, name, unix.O_PATH|unix.O_DIRECTORY)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return driver.Errorf(errdefs.ErrNotFound, "no such directory: %s", name)
	case err != nil:
		return err
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return driver.Errorf(errdefs.ErrPermissionDenied, "%s is read-only in the container", name)
	}
	return nil
}

// Stat implements execdriver.Copier.
func (d *native) Stat(_ context.Context, c execdriver.Copy) (execdriver.PathStat, error) {
	if err := checkCopy(c); err != nil {
		return execdriver.PathStat{}, err
	}
	var out execdriver.PathStat
	err := d.inContainer(forReading(c), linux.RootOf, func(root *os.File) error {
		dir, _, st, err := tartree.Find(root, c.Path)
		if err != nil {
			return err
		}
		dir.Close()
		out = execdriver.PathStat{Name: path.Base(path.Clean(c.Path)), Size: st.Size, Mode: st.Mode, ModTime: time.Unix(st.Mtim.Unix())}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			out.Link, err = tartree.Resolve(root, c.Path)
		}
		return err
	})
	return out, err
}

// checkCopy refuses what cannot be.
func checkCopy(c execdriver.Copy) error {
	switch {
	case !path.IsAbs(c.Path) || strings.ContainsRune(c.Path, 0):
		return driver.Errorf(errdefs.ErrInvalidArgument, "Path %q: not an absolute path", c.Path)
	case c.Run == 0 && len(c.Rootfs) != 1:
		return driver.Errorf(errdefs.ErrInvalidArgument, "Rootfs of %d mounts: want one", len(c.Rootfs))
	}
	return checkKey(c.Key)
}

// copySocket is where one copy's bytes are fetched or brought. It is reached by its
// directory's descriptor: an address does not hold a long path.
type copySocket struct {
	*net.UnixListener
	dir  *os.File
	name string // below dir
	once sync.Once
}

// Close implements io.Closer. The name goes, too.
func (s *copySocket) Close() (err error) {
	s.once.Do(func() {
		err = errors.Join(unix.Unlinkat(int(s.dir.Fd()), s.name, 0), s.UnixListener.Close(), s.dir.Close())
	})
	return err
}

// listenCopy makes the socket of a copy.
func (d *native) listenCopy(c execdriver.Copy) (*copySocket, error) {
	if err := checkCopy(c); err != nil {
		return nil, err
	}
	if !isName(c.Socket) || len(c.Socket) > 64 {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Socket %q is not one component of a path", c.Socket)
	}
	dir, name := filepath.Split(execdriver.CopySocket(d.cfg.Run, c.Socket))
	at, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("listen for a copy: %w", err)
	}
	way := fmt.Sprintf("/proc/self/fd/%d/%s", at.Fd(), name)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: way, Net: "unix"})
	if err != nil {
		at.Close()
		return nil, fmt.Errorf("listen for a copy: %w", err)
	}
	l.SetUnlinkOnClose(false)
	s := &copySocket{UnixListener: l, dir: at, name: name}
	if err := os.Chmod(way, 0o600); err != nil {
		s.Close()
		return nil, fmt.Errorf("listen for a copy: %w", err)
	}
	return s, nil
}

// accept takes the one connection of a copy; the socket's name goes then. It
// does so on a thread of the host's: the caller's has another root.
func accept(ctx context.Context, l *copySocket) (conn *net.UnixConn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer l.Close()
		l.SetDeadline(time.Now().Add(copyWait))
		defer context.AfterFunc(ctx, func() { l.SetDeadline(time.Unix(1, 0)) })()
		conn, err = l.AcceptUnix()
	}()
	<-done
	switch {
	case ctx.Err() != nil:
		if conn != nil {
			conn.Close()
		}
		return nil, ctx.Err()
	case err != nil:
		return nil, driver.Errorf(errdefs.ErrUnavailable, "nobody came for the copy: %w", err)
	}
	return conn, nil
}

// inside maps an owner on the host to the one seen inside: what has none there
// is the overflow id, as the kernel shows it.
func inside(m driver.IDMap, uid, gid int) (int, int, error) {
	return unmap(m.UIDs, uid), unmap(m.GIDs, gid), nil
}

// overflowID is what the kernel shows for ids that a map does not have.
const overflowID = 65534

func unmap(m []driver.IDMapping, id int) int {
	if len(m) == 0 {
		return id
	}
	for _, e := range m {
		if off := int64(id) - int64(e.Host); off >= 0 && off < int64(e.Size) {
			return int(int64(e.Container) + off)
		}
	}
	return overflowID
}

// inContainer runs f where the container's root filesystem is /: in the mount
// namespace of its running run, or in one made for this. open opens the root there.
func (d *native) inContainer(c execdriver.Copy, open func(alone bool) (*os.File, error), f func(root *os.File) error) error {
	here := func() error {
		unix.Umask(0) // of this thread alone
		root, err := open(c.WholeRoot)
		if err != nil {
			return fmt.Errorf("open root filesystem: %w", err)
		}
		defer root.Close()
		return f(root)
	}
	if c.Run == 0 {
		return d.inRootfs(c, here)
	}
	k := c.Key
	k.Exec = ""
	pidfd, pid, err := d.holdRun(k)
	if err != nil {
		return err
	}
	defer pidfd.Close()
	if weak.Off(weak.CopyInside) {
		return fromOutside(pid, f)
	}
	err = linux.InMountNamespaceOf(pid, func() error {
		if unix.PidfdSendSignal(int(pidfd.Fd()), 0, nil, 0) != nil { // the pid was its own if it lives still
			return dead(k)
		}
		return here()
	})
	if errors.Is(err, os.ErrNotExist) && !errdefs.IsNotFound(err) {
		return dead(k) // it has ended just now
	}
	return err
}

// forReading is a copy that finds the root filesystem of a container that does not
// run without a writable layer: who reads is not in the way of who writes meanwhile.
// Each mount of an overlay empties the work directory of the others.
func forReading(c execdriver.Copy) execdriver.Copy {
	if c.Run == 0 && len(c.Rootfs) > 0 {
		c.Rootfs = append([]driver.Mount{readable(c.Rootfs[0])}, c.Rootfs[1:]...)
	}
	return c
}

// fromOutside runs f where the root is the host's, as one must not.
func fromOutside(pid int, f func(root *os.File) error) error {
	root, err := os.Open(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// inRootfs runs f with the root filesystem of a container that does not run,
// and its other mounts, as far as there are places for them.
func (d *native) inRootfs(c execdriver.Copy, f func() error) error {
	root, err := openRootfs(c.Rootfs[0], c.IDMap, nil)
	if err != nil {
		return err
	}
	defer root.Close()
	var mounts []oci.Opened
	spec := &specs.Spec{Linux: &specs.Linux{UIDMappings: mappingsOf(c.IDMap.UIDs), GIDMappings: mappingsOf(c.IDMap.GIDs)}}
	if !c.WholeRoot {
		for _, m := range c.Mounts {
			if m.Type == "bind" { // others are empty as long as nothing runs
				spec.Mounts = append(spec.Mounts, specs.Mount{Destination: m.Target, Type: m.Type, Source: m.Source, Options: m.Options})
			}
		}
		if mounts, err = oci.OpenMounts(spec, root.File); err != nil {
			return err
		}
		defer oci.CloseAll(mounts)
	}
	return linux.InPrivateRoot(root, d.cfg.Run, func() error {
		at, err := linux.RootOf(false)
		if err != nil {
			return fmt.Errorf("open root filesystem: %w", err)
		}
		defer at.Close()
		for i, m := range mounts {
			if err := linux.AttachBelow(at, m.Detached, spec.Mounts[i].Destination); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
				return err
			}
		}
		return f()
	})
}
