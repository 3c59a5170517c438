package plan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"golang.org/x/sys/unix"
)

// leaver is what a Conn knows of a start without a monitor.
type leaver struct {
	helper *os.Process // to be reaped; nil once it was, or at a gate
	known  bool        // the init's pid was told
	early  []Report    // came before the pid
	final  bool        // the init has announced its exec
	failed bool        // an Error came
	ended  bool        // so has the socket's end
}

// Leave sends a plan that begins with Leave, as Start does. The init is a child
// of the calling process. It does not wait for the helper, which may hang in a
// frozen cgroup: Next and Close reap it.
func (w *Warm) Leave(ctx context.Context, plan []byte, files []*os.File) (*Conn, error) {
	if d, ok := ctx.Deadline(); ok {
		w.conn.c.SetWriteDeadline(d)
	}
	if err := w.conn.send(plan, files); err != nil {
		err = w.refused(err)
		w.helper.Wait()
		w.conn.Close()
		return nil, fmt.Errorf("hand over plan: %w", err)
	}
	w.conn.leaver = &leaver{helper: w.helper}
	return w.conn, nil
}

// ordered gives the next report: in the leaving mode the pid before all that
// the init itself says, and Running for the end that it announced.
func (c *Conn) ordered() (Report, error) {
	l := c.leaver
	if l == nil {
		return c.read()
	}
	for {
		if len(l.early) > 0 && (l.known || l.ended) {
			r := l.early[0]
			l.early = l.early[1:]
			return r, nil
		}
		if l.ended {
			return Report{}, io.EOF
		}
		r, err := c.read()
		switch {
		case errors.Is(err, io.EOF):
			l.end()
		case err != nil:
			return Report{}, err
		case r.Kind == reportFinal:
			l.final = true
		case r.Kind == ReportInit:
			l.known = true
			return r, nil
		default:
			l.failed = l.failed || r.Kind == ReportError
			l.early = append(l.early, r)
		}
	}
}

// end says what the end of the socket means when nothing else was said: the
// exec, or a death before it.
func (l *leaver) end() {
	l.reap()
	l.ended = true
	switch {
	case l.failed:
	case l.final:
		l.early = append(l.early, Report{Kind: ReportRunning, Time: time.Now()})
	default:
		l.early = append(l.early, Report{Kind: ReportError, Stage: StageChild, Errno: unix.ESRCH,
			Flags: FlagFailed, Code: startFailed, Time: time.Now()})
	}
}

// startFailed is the exit code of a container that was never one.
const startFailed = 125

func (l *leaver) reap() {
	if l.helper != nil {
		l.helper.Wait()
		l.helper = nil
	}
}

// letGo reaps the helper, which ends when the socket does if it has not yet:
// only a frozen one may stay.
func (c *Conn) letGo() {
	if l := c.leaver; l != nil && l.helper != nil {
		if l.known || l.failed || l.ended {
			l.reap()
			return
		}
		l.helper.Kill()
		go l.helper.Wait()
		l.helper = nil
	}
}

// ListenGate makes the socket of a StartGate in a directory of mode 0700.
func ListenGate(dir, name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket of the gate: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	err = atGate(dir, name, func(a *unix.SockaddrUnix) error {
		if err := unix.Bind(fd, a); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("gate in %s: %w", dir, err)
	}
	return f, nil
}

// OpenGate lets an init go on that waits at a StartGate, and gives its reports
// until the program runs. ECONNREFUSED: it is dead or was let go before.
func OpenGate(ctx context.Context, dir, name string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket to the gate: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if err := atGate(dir, name, func(a *unix.SockaddrUnix) error { return unix.Connect(fd, a) }); err != nil {
		return nil, fmt.Errorf("gate in %s: %w", dir, err)
	}
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("gate in %s: %w", dir, err)
	}
	c := &Conn{c: nc.(*net.UnixConn), leaver: &leaver{known: true}}
	if d, ok := ctx.Deadline(); ok {
		c.c.SetWriteDeadline(d)
	}
	if err := c.Continue(0); err != nil {
		c.Close()
		return nil, fmt.Errorf("open gate in %s: %w", dir, err)
	}
	return c, nil
}

// GateWaits reports whether an init waits at a StartGate; the name of one that was
// opened may be there still. It is not disturbed: a socket of another kind is turned
// away where somebody listens (unix_find_bsd, net/unix/af_unix.c).
func GateWaits(dir, name string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	err = atGate(dir, name, func(a *unix.SockaddrUnix) error { return unix.Connect(fd, a) })
	return errors.Is(err, unix.EPROTOTYPE)
}

// atGate names the socket by the directory's descriptor: a path of a socket
// holds 107 bytes at most.
func atGate(dir, name string, do func(*unix.SockaddrUnix) error) error {
	if weak.Off(weak.PathSocket) {
		return do(&unix.SockaddrUnix{Name: "@" + filepath.Base(dir) + "/" + name})
	}
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	return do(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", d, name)})
}

// How long a listener may take to be there once it was announced.
const (
	listenerTries = 20000
	listenerPause = 500 * time.Microsecond
)

// Listener fetches the seccomp listener that a ReportListener announced from
// the init that pidfd stands for. Then the init wants Continue.
func (r Report) Listener(ctx context.Context, pidfd int) (*os.File, error) {
	for i := 0; ; i++ {
		fd, err := unix.PidfdGetfd(pidfd, r.Code, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), "seccomp listener"), nil
		}
		if !errors.Is(err, unix.EBADF) || i == listenerTries {
			return nil, fmt.Errorf("fetch the seccomp listener: %w", err)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		time.Sleep(listenerPause)
	}
}
