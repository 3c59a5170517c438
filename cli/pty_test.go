package cli_test

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/test/rig"
)

// console is a terminal that the gantry command runs on, for a test.
type console struct {
	t *testing.T
	*rig.Console
}

// openConsole runs gantry on a new terminal of that size.
func openConsole(t *testing.T, w *world, rows, cols uint16, args ...string) *console {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "GANTRY_HOST=unix://"+filepath.Join(w.dir, "run", bus.ControlSocket))
	cmd.Args[0] = "gantry"
	c := &console{t: t}
	if c.Console, err = rig.OpenConsole(cmd, rows, cols); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (c *console) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// until waits until the terminal has shown something.
func (c *console) until(want string) { c.t.Helper(); c.must(c.Until(want)) }

func (c *console) typing(keys string) { c.t.Helper(); c.must(c.Type(keys)) }

func (c *console) resize(rows, cols uint16) { c.t.Helper(); c.must(c.Resize(rows, cols)) }

// signalled sends the command a signal, and waits for its end.
func (c *console) signalled(s os.Signal) (code int) {
	c.t.Helper()
	c.must(c.Signal(s))
	code, err := c.Wait()
	c.must(err)
	return code
}

// ends waits for the end of the command.
func (c *console) ends(code int) {
	c.t.Helper()
	got, err := c.Wait()
	c.must(err)
	if got != code {
		c.t.Errorf("it ended with %d, want %d; it showed %q", got, code, c.Text())
	}
	c.Close()
}

// canonical says whether the terminal edits lines: a raw one does not.
func (c *console) canonical() bool {
	c.t.Helper()
	yes, err := c.Canonical()
	c.must(err)
	return yes
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
	c = openConsole(t, w, 24, 80, "start", "tty") // ends when the log has the start, which the output may be quicker than
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
	c := openConsole(t, w, 24, 80, "run", "-dit", "--name", "tty", "busybox", "keys")
	c.ends(0) // it runs, also by the log
	c = openConsole(t, w, 24, 80, "attach", "tty")
	c.until("<24x80>")
	x := openConsole(t, w, 24, 80, "exec", "-it", "tty", "keys")
	x.until("<24x80>")
	if x.canonical() {
		t.Error("the terminal still edits lines")
	}
	if got := x.signalled(unix.SIGTERM); got != 128+15 {
		t.Errorf("exec ended with %d", got)
	}
	if !x.canonical() {
		t.Error("the terminal is left raw")
	}
	c.typing("q")
	c.ends(5)
}

// TestHangUp: whoever's terminal is gone does not stay for a program that does
// not mind; nohup is obeyed.
func TestHangUp(t *testing.T) {
	w := terminalWorld(t)
	heed := make(chan os.Signal, 1)
	signal.Notify(heed, unix.SIGHUP) // also where the test itself runs under nohup
	defer signal.Reset(unix.SIGHUP)
	c := openConsole(t, w, 24, 80, "run", "-it", "--name", "one", "busybox", "trap")
	c.until("ready")
	stuck := time.AfterFunc(time.Minute, func() { _ = c.Signal(unix.SIGKILL) })
	if got := c.signalled(unix.SIGHUP); got != 128+1 {
		t.Errorf("it ended with %d", got)
	}
	stuck.Stop()
	c = openConsole(t, w, 24, 80, "logs", "-f", "one")
	c.until("got signal 1")
	c.Close()

	signal.Ignore(unix.SIGHUP)
	c = openConsole(t, w, 24, 80, "run", "-it", "--name", "two", "busybox", "trap")
	c.until("ready")
	c.must(c.Signal(unix.SIGHUP))
	c.must(c.Signal(unix.SIGTERM))
	c.until("got signal 15")
	c.ends(7)
	if strings.Count(c.Text(), "got signal 1") > 1 { // 15 is one
		t.Error("a signal that is ignored was handed on")
	}
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
	c.signalled(unix.SIGINT)
}
