package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// longestSocket is what a socket's address holds of a path, in bytes; longer ones
// are reached through a descriptor of their directory.
const longestSocket = 107

// dialSocket connects to a unix socket of the host's.
func dialSocket(path string, kind int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	name := path
	if len(name) > longestSocket {
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			f.Close()
			return nil, err
		}
		defer dir.Close()
		name = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		f.Close()
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return f, nil
}

// sendConsole hands a pty's master to the caller's console socket, with its name
// as runc sends it.
func sendConsole(path string, master *os.File) error {
	conn, err := dialSocket(path, unix.SOCK_STREAM)
	if err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "console socket: %w", err)
	}
	defer conn.Close()
	if err := unix.Sendmsg(int(conn.Fd()), []byte("/dev/ptmx"), unix.UnixRights(int(master.Fd())), nil, 0); err != nil {
		return fmt.Errorf("console socket: %w", err)
	}
	return nil
}

// sendListener hands a seccomp listener to the agent at a socket, with the
// container's process state (runtime specification, config-linux.md "The
// Container Process State").
func sendListener(path, metadata string, listener *os.File, state specs.State) error {
	text, err := json.Marshal(specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: state.Pid, Metadata: metadata, State: state,
	})
	if err != nil {
		return err
	}
	conn, err := dialSocket(path, unix.SOCK_STREAM)
	if err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "linux.seccomp.listenerPath: %w", err)
	}
	defer conn.Close()
	if err := unix.Sendmsg(int(conn.Fd()), text, unix.UnixRights(int(listener.Fd())), nil, 0); err != nil {
		return fmt.Errorf("linux.seccomp.listenerPath: %w", err)
	}
	return nil
}

// relay connects this process's terminal with a container's, until that is gone.
type relay struct {
	master *os.File
	before *unix.Termios // of our own terminal; nil if we have none
	done   chan struct{} // closed when all output was copied
	sizes  chan os.Signal
}

// startRelay makes our terminal raw and copies both ways.
func startRelay(master *os.File) (*relay, error) {
	r := &relay{done: make(chan struct{}), sizes: make(chan os.Signal, 1)}
	// A descriptor that the runtime's poller knows, so that reading it holds no
	// thread up for ever.
	if err := unix.SetNonblock(int(master.Fd()), true); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	fd, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	master.Close()
	r.master = os.NewFile(uintptr(fd), "console")
	if t, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		r.before = t
		if err := unix.IoctlSetTermios(0, unix.TCSETS, rawMode(*t)); err != nil {
			return nil, fmt.Errorf("own terminal: %w", err)
		}
		signal.Notify(r.sizes, syscall.SIGWINCH)
		go func() {
			for range r.sizes {
				r.resize()
			}
		}()
		r.resize()
	}
	go io.Copy(r.master, os.Stdin)
	go func() {
		defer close(r.done)
		_, err := io.Copy(os.Stdout, r.master)
		if err != nil && !errors.Is(err, syscall.EIO) { // EIO: nobody has the other end open
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return r, nil
}

// rawMode is a terminal that passes everything on (cfmakeraw(3)).
func rawMode(t unix.Termios) *unix.Termios {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return &t
}

// resize gives the container's terminal the size of ours.
func (r *relay) resize() {
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(r.master.Fd()), unix.TIOCSWINSZ, size)
	}
}

// close waits for the rest of the output and gives our terminal back.
func (r *relay) close() {
	<-r.done
	signal.Stop(r.sizes)
	close(r.sizes)
	if r.before != nil {
		_ = unix.IoctlSetTermios(0, unix.TCSETS, r.before)
	}
	r.master.Close()
}
