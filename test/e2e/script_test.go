package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/test/rig"
)

// TestScripts tells the stories. Each has an engine of its own; at its end the
// machine must hold what the list of containers says, the log must verify, and
// after the last container nothing may be left.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": status, "until": until, "engine": engine, "settled": settled, "mangle": mangle, "secretless": secretless,
			"console": console,
		},
		Condition: condition,
		Setup:     setup,
	})
}

// engineKey is where a script's engine is kept.
type engineKey struct{}

func setup(env *testscript.Env) error {
	e, err := rig.New(rig.Options{})
	if err != nil {
		return err
	}
	t := env.T()
	env.Defer(func() {
		if err := e.Close(); err != nil {
			t.Fatal("take the engine away: ", err)
		}
	})
	env.Defer(func() {
		if err := atEnd(e); err != nil {
			t.Log(e.Said())
			t.Fatal("at the end: ", err)
		}
	})
	env.Values[engineKey{}] = e
	root, err := rig.Module()
	if err != nil {
		return err
	}
	env.Setenv("EXAMPLES", filepath.Join(root, "examples"))
	env.Setenv("PATH", e.Bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	for name, value := range map[string]string{
		"GANTRY_HOST": e.Host(), "ROOT": e.Root, "RUN": e.Run, "NAME": e.Name, "BIN": e.Bin, "NETNS": e.NetworkNamespace(),
		"LOGFILE": e.LogFile(), imagesEnv: os.Getenv(imagesEnv), "TZ": "UTC",
	} {
		env.Setenv(name, value)
	}
	return e.Start()
}

// atEnd checks what holds at the end of every story.
func atEnd(e *rig.Engine) error {
	if e.Pid() == 0 {
		if err := e.Start(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := e.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Agrees(ctx, e); err != nil {
		return err
	}
	list, err := c.Containers(ctx)
	if err != nil {
		return err
	}
	for _, k := range list {
		if err := c.Do(ctx, &core.RemoveContainer{ID: k.ID, Force: true}); err != nil {
			return err
		}
	}
	return c.Agrees(ctx, e)
}

// condition says what kind of kernel this is: v1 (of cgroups; else v2), weights (of
// disks can be set).
func condition(cond string) (bool, error) {
	patterns, known := map[string][]string{
		"v1":      {"/sys/fs/cgroup/memory/memory.limit_in_bytes"},
		"weights": {"/sys/fs/cgroup/blkio/*/blkio.weight", "/sys/fs/cgroup/blkio/*/blkio.bfq.weight", "/sys/fs/cgroup/*/io.weight", "/sys/fs/cgroup/*/io.bfq.weight"},
	}[cond]
	if !known {
		return false, fmt.Errorf("condition %q is not known", cond)
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		found, err := filepath.Glob(p)
		return err == nil && len(found) > 0
	}), nil
}

func engineOf(ts *testscript.TestScript) *rig.Engine { return ts.Value(engineKey{}).(*rig.Engine) }

// status runs a command and wants its exit code: status CODE COMMAND ARG...
func status(ts *testscript.TestScript, _ bool, args []string) {
	code, err := codeOf(ts.Exec(args[1], args[2:]...))
	ts.Check(err)
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("it ended with %d, want %s\n%s%s", code, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func codeOf(err error) (int, error) {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// until runs a command until its output fits: until PATTERN COMMAND ARG...
func until(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err := ts.Exec(args[1], args[2:]...); err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("%s never fits %q:\n%s%s", strings.Join(args[1:], " "), args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
}

// engine does something to gantryd: start, stop, kill, reboot (with its machine),
// path DIRECTORY (of drivers), flags FLAG... (both from the next start on).
func engine(ts *testscript.TestScript, _ bool, args []string) {
	e := engineOf(ts)
	switch args[0] {
	case "start":
		ts.Check(e.Start())
	case "stop":
		ts.Check(e.Stop())
	case "kill":
		ts.Check(e.Kill())
	case "reboot":
		ts.Check(e.Reboot())
	case "path":
		e.SetDriverPath(args[1])
	case "flags":
		e.SetFlags(args[1:])
	default:
		ts.Fatalf("engine %s: no such act", args[0])
	}
}

// settled waits until nothing is owed, and holds list, log and machine against
// each other.
func settled(ts *testscript.TestScript, _ bool, _ []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	e := engineOf(ts)
	c, err := e.Dial(ctx)
	ts.Check(err)
	defer c.Close()
	ts.Check(c.Agrees(ctx, e))
}

// mangle spoils a file: mangle truncate FILE BYTES, mangle flip FILE OFFSET.
func mangle(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[2], 0, 64)
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[1]), os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	switch args[0] {
	case "truncate":
		ts.Check(f.Truncate(n))
	case "flip":
		b := make([]byte, 1)
		_, err := f.ReadAt(b, n)
		ts.Check(err)
		b[0] ^= 0x10
		_, err = f.WriteAt(b, n)
		ts.Check(err)
	default:
		ts.Fatalf("mangle %s: no such act", args[0])
	}
}

// secretless looks for values in everything that the engine keeps: they must not
// be there. secretless VALUE...
func secretless(ts *testscript.TestScript, _ bool, args []string) {
	e := engineOf(ts)
	files := 0
	for _, dir := range []string{filepath.Join(e.Root, "log"), filepath.Join(e.Root, "stream"), e.LogFile(), e.Run} {
		ts.Check(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil // what goes away while it is looked for is not kept
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			files++
			for _, value := range args {
				if strings.Contains(string(data), value) {
					return fmt.Errorf("%s holds %q", path, value)
				}
			}
			return nil
		}))
	}
	if files < 4 {
		ts.Fatalf("only %d files were looked at", files)
	}
}
