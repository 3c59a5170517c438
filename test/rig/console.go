package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shownWithin bounds the wait for what a terminal is to show.
const shownWithin = 20 * time.Second

// Console is a terminal that somebody sits at: a command runs on it. Its methods
// are for one goroutine.
type Console struct {
	cmd  *exec.Cmd
	pty  *os.File
	done chan struct{} // closed when nothing more is shown

	mu    sync.Mutex // guards shown
	shown strings.Builder
}

// OpenConsole runs a command on a new terminal of that size, as the leader of the
// terminal's session.
func OpenConsole(cmd *exec.Cmd, rows, cols uint16) (*Console, error) {
	pty, tty, err := openTerminal()
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	defer tty.Close()
	c := &Console{cmd: cmd, pty: pty, done: make(chan struct{})}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = c.Resize(rows, cols)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = pty.Close() // nobody has used it
		return nil, err
	}
	go c.show()
	return c, nil
}

// openTerminal makes both ends of one. The outer end can be closed while it is read.
func openTerminal() (pty, tty *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	pty = os.NewFile(uintptr(fd), "pty")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		_ = pty.Close() // nobody has used it
		return nil, nil, err
	}
	return pty, tty, nil
}

// show keeps what is written to the terminal.
func (c *Console) show() {
	defer close(c.done)
	buf := make([]byte, 4096)
	for {
		n, err := c.pty.Read(buf)
		c.mu.Lock()
		c.shown.Write(buf[:n])
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// ioctl does something to the terminal itself.
func (c *Console) ioctl(do func(fd int) error) error {
	raw, err := c.pty.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	if err := raw.Control(func(fd uintptr) { done = do(int(fd)) }); err != nil {
		return err
	}
	return done
}

// Resize gives the terminal another size.
func (c *Console) Resize(rows, cols uint16) error {
	return c.ioctl(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

// Canonical says whether the terminal edits lines: a raw one does not.
func (c *Console) Canonical() (yes bool, err error) {
	err = c.ioctl(func(fd int) error {
		attr, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			yes = attr.Lflag&unix.ICANON != 0
		}
		return err
	})
	return yes, err
}

// Text is what it has shown.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown.String()
}

// Until waits until it has shown something.
func (c *Console) Until(want string) error {
	for end := time.Now().Add(shownWithin); !strings.Contains(c.Text(), want); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("the terminal never shows %q, only %q", want, c.Text())
		}
	}
	return nil
}

// Type types keys.
func (c *Console) Type(keys string) error {
	_, err := c.pty.WriteString(keys)
	return err
}

// Signal sends the command a signal.
func (c *Console) Signal(s os.Signal) error { return c.cmd.Process.Signal(s) }

// Wait waits for the end of the command, and tells its exit code.
func (c *Console) Wait() (code int, err error) {
	var exit *exec.ExitError
	if err := c.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return c.cmd.ProcessState.ExitCode(), nil
}

// Close ends the command, if it still runs, and the terminal.
func (c *Console) Close() {
	_ = c.cmd.Process.Kill() // it has ended, or should have
	_ = c.pty.Close()        // ends the reader
	<-c.done
}
