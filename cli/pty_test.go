package cli_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bus"
)

// console is a terminal that somebody sits at: the gantry command runs on it.
type console struct {
	t    *testing.T
	pty  *os.File
	cmd  *exec.Cmd
	done chan struct{}

	mu    sync.Mutex // guards shown
	shown strings.Builder
}

// openConsole runs gantry on a new terminal of that size.
func openConsole(t *testing.T, w *world, rows, cols uint16, args ...string) *console {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(pty.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that Close ends a Read
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	c := &console{t: t, pty: os.NewFile(uintptr(dup(t, fd)), "pty"), done: make(chan struct{})}
	_ = pty.Close() // its copy goes on
	c.resize(rows, cols)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.Command(self, args...)
	c.cmd.Env = append(os.Environ(), "GANTRY_HOST=unix://"+filepath.Join(w.dir, "run", bus.ControlSocket))
	c.cmd.Args[0] = "gantry"
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = tty, tty, tty
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // of a test that has failed; otherwise it has ended
		_ = c.pty.Close()
	})
	go func() {
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
	}()
	return c
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (c *console) resize(rows, cols uint16) {
	c.t.Helper()
	if err := unix.IoctlSetWinsize(int(c.pty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		c.t.Fatal(err)
	}
	if err := unix.SetNonblock(int(c.pty.Fd()), true); err != nil {
		c.t.Fatal(err)
	}
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown.String()
}

// until waits until the terminal has shown something.
func (c *console) until(want string) {
	c.t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(c.text(), want); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("the terminal never shows %q, only %q", want, c.text())
		}
	}
}

func (c *console) typing(keys string) {
	c.t.Helper()
	if _, err := c.pty.WriteString(keys); err != nil {
		c.t.Fatal(err)
	}
}

// ends waits for the end of the command.
func (c *console) ends(code int) {
	c.t.Helper()
	err := c.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Errorf("it ended with %d, want %d; it showed %q", got, code, c.text())
	}
	_ = c.pty.Close() // ends the reader
	<-c.done
}

// canonical says whether the terminal edits lines: a raw one does not.
func (c *console) canonical() bool {
	c.t.Helper()
	attr, err := unix.IoctlGetTermios(int(c.pty.Fd()), unix.TCGETS)
	if err != nil {
		c.t.Fatal(err)
	}
	return attr.Lflag&unix.ICANON != 0
}

func terminalWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "gcli") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, dir)
	t.Cleanup(func() {
		w.close()
		_ = os.RemoveAll(dir) // left behind, it does no harm
	})
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, []byte("docker.io/library/busybox:latest\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openConsole(t, w, 24, 80, "load", "-i", image)
	c.until("Loaded image")
	c.ends(0)
	return w
}

// TestTerminal: keys, sizes and exit codes of run -it, exec -it, attach and start -ai.
func TestTerminal(t *testing.T) {
	w := terminalWorld(t)
	c := openConsole(t, w, 33, 111, "run", "--name", "tty", "-it", "busybox", "keys")
	c.until("<33x111>")
	if c.canonical() {
		t.Error("the terminal still edits lines")
	}
	c.typing("a\x03") // ctrl-c is the program's
	c.until("A\x03")
	c.resize(20, 60)
	c.until("<20x60>")
	c.typing("\x10") // it may become the keys that detach
	c.typing("b")    // and does not
	c.until("\x10B")
	c.typing("\x10\x11")
	c.ends(0)

	c = openConsole(t, w, 24, 80, "attach", "--detach-keys", "ctrl-a,x", "tty")
	c.until("<24x80>")
	c.typing("\x10\x11c")
	c.until("\x10\x11C")
	c.typing("\x01x")
	c.until("gantry: read escape sequence\r\n")
	c.ends(1)

	c = openConsole(t, w, 24, 80, "exec", "-it", "tty", "keys")
	c.until("<24x80>")
	c.typing("q")
	c.until("Q")
	c.ends(5)

	c = openConsole(t, w, 24, 80, "attach", "tty")
	c.until("<24x80>")
	c.typing("q")
	c.ends(5)

	c = openConsole(t, w, 24, 80, "start", "-ai", "tty")
	c.until("<24x80>")
	c.typing("q")
	c.ends(5)
}

// TestTerminalRestored: however the command ends, the terminal edits lines again.
func TestTerminalRestored(t *testing.T) {
	w := terminalWorld(t)
	c := openConsole(t, w, 24, 80, "run", "-it", "--name", "tty", "busybox", "keys")
	c.until("<24x80>")
	x := openConsole(t, w, 24, 80, "exec", "-it", "tty", "keys")
	x.until("<24x80>")
	if x.canonical() {
		t.Error("the terminal still edits lines")
	}
	if err := x.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = x.cmd.Wait() // 143, as ends would say
	if got := x.cmd.ProcessState.ExitCode(); got != 128+15 {
		t.Errorf("exec ended with %d", got)
	}
	if !x.canonical() {
		t.Error("the terminal is left raw")
	}
	_ = x.pty.Close() // ends the reader
	c.typing("q")
	c.ends(5)
}

// TestTerminalWithoutInput: -t alone leaves the keys to the terminal.
func TestTerminalWithoutInput(t *testing.T) {
	w := terminalWorld(t)
	c := openConsole(t, w, 24, 80, "run", "--rm", "-t", "busybox", "echo", "hello")
	c.until("hello")
	c.ends(0)
}

// TestStatsRedraw: on a terminal the table is drawn over itself.
func TestStatsRedraw(t *testing.T) {
	w := terminalWorld(t)
	c := openConsole(t, w, 24, 80, "run", "-d", "--name", "web", "busybox", "sleep")
	c.ends(0)
	c = openConsole(t, w, 24, 80, "stats")
	c.until("\x1b[2J\x1b[HCONTAINER ID")
	c.until("--") // no rate yet
	c.until("\x1b[J\x1b[HCONTAINER ID")
	c.until("50.00%")
	if err := c.cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait()  // of the signal
	_ = c.pty.Close() // ends the reader
}
