package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gantryd/gantry/test/rig"
)

// console runs a command on a terminal and does to it what a file says, a line for
// each act: console FILE COMMAND ARG...
//
//	show TEXT         wait until the terminal has shown it; quoted as in Go
//	type KEYS         quoted as in Go
//	size ROWS COLUMNS
//	lines edited|raw  whether the terminal edits lines
//	send SIGNAL       to the command, by its number
//	do COMMAND ARG... beside it; must succeed
//	ends CODE         wait for its end
func console(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.Command(filepath.Join(ts.Getenv("BIN"), args[1]), args[2:]...)
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = append(os.Environ(), "GANTRY_HOST="+ts.Getenv("GANTRY_HOST"), "TERM=xterm")
	c, err := rig.OpenConsole(cmd, 24, 80)
	ts.Check(err)
	defer c.Close()
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		act, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if act == "" || strings.HasPrefix(act, "#") {
			continue
		}
		if err := sit(ts, c, act, rest); err != nil {
			ts.Fatalf("console %s: %s: %v\n%s", strings.Join(args, " "), strings.TrimSpace(line), err, c.Text())
		}
	}
}

// sit does one act at a terminal.
func sit(ts *testscript.TestScript, c *rig.Console, act, rest string) error {
	switch act {
	case "show", "type":
		text, err := strconv.Unquote(rest)
		if err != nil {
			return err
		}
		if act == "show" {
			return c.Until(text)
		}
		return c.Type(text)
	case "size":
		var rows, columns uint16
		if _, err := fmt.Sscan(rest, &rows, &columns); err != nil {
			return err
		}
		return c.Resize(rows, columns)
	case "lines":
		edited, err := c.Canonical()
		if err == nil && edited != (rest == "edited") {
			err = fmt.Errorf("lines are edited: %v", edited)
		}
		return err
	case "send":
		n, err := strconv.Atoi(rest)
		if err != nil {
			return err
		}
		return c.Signal(syscall.Signal(n))
	case "do":
		f := strings.Fields(rest)
		return ts.Exec(f[0], f[1:]...)
	case "ends":
		code, err := c.Wait()
		if err == nil && strconv.Itoa(code) != rest {
			err = fmt.Errorf("it ended with %d", code)
		}
		return err
	}
	return fmt.Errorf("there is no such act")
}
