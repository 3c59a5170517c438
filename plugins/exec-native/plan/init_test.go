package plan

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// buildInit makes gantry-init.
func buildInit(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "gantry-init")
	if err := byMakefile(out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestInitTellsTheCode(t *testing.T) {
	program := buildInit(t)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"sh", "-c", "echo out; exit 3"}, 3, "out\n"},
		{[]string{"--", "true"}, 0, ""},
		{[]string{"--", "sh", "-c", "kill -9 $$"}, 137, ""},
		{[]string{"--", "no-such"}, 127, "gantry-init: execute no-such: no such file or directory\n"},
		{[]string{"/etc"}, 126, "gantry-init: execute /etc: permission denied\n"},
		{[]string{"--"}, 125, "gantry-init: no program was named\n"},
		{[]string{"--", "--"}, 127, "gantry-init: execute --: no such file or directory\n"},
	} {
		cmd := exec.Command(program, c.args...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.Run()
		if cmd.ProcessState.ExitCode() != c.code || out.String() != c.says {
			t.Errorf("%q: %d, %q", c.args, cmd.ProcessState.ExitCode(), out.String())
		}
	}
}

// inBox starts the program as first process of a container.
func inBox(t *testing.T, script string) *shim {
	t.Helper()
	root := box(t)
	b, err := os.ReadFile(buildInit(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "init"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	s := newShim(t, Monitor{}, 1<<20).contain(root, allNamespaces)
	s.Add(StageMounts, Pivot{})
	s.Add(StageGate, Gate{})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/init"}, Args: []string{"init", "--", "sh", "-c", script}, Env: []string{"PATH=/bin"}})
	s.start().until(ReportRunning)
	return s
}

// TestInitForwardsSignals: as first process the program alone would ignore a
// signal that it does not handle.
func TestInitForwardsSignals(t *testing.T) {
	s := inBox(t, "trap 'echo usr; exit 9' USR1; echo ready; while :; do sleep 0.05; done")
	eventually(t, "the program", func() bool { out, _ := s.readLog(); return out == "ready\n" })
	syscall.Kill(s.init, syscall.SIGUSR1)
	if r := s.until(ReportExited); r.Code != 9 {
		t.Errorf("%+v", r)
	}
	s = inBox(t, "exec sleep 100")
	eventually(t, "the program", func() bool { return len(children(s.init)) == 1 })
	syscall.Kill(s.init, syscall.SIGTERM)
	if r := s.until(ReportExited); r.Code != 143 {
		t.Errorf("%+v", r)
	}
}

func children(pid int) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	return strings.Fields(string(b))
}

// TestInitTakesOrphans: a process that has lost its parent leaves no zombie.
func TestInitTakesOrphans(t *testing.T) {
	s := inBox(t, "i=0; while [ $i -lt 20 ]; do (sleep 0.01 &); i=$((i+1)); done; echo made; exec sleep 100")
	eventually(t, "the orphans", func() bool { out, _ := s.readLog(); return out == "made\n" })
	eventually(t, "all orphans to be taken in", func() bool { return len(children(s.init)) == 1 })
	syscall.Kill(s.init, syscall.SIGKILL)
	s.until(ReportExited)
}

// TestInitGivesTheTerminal: the program is in its foreground.
func TestInitGivesTheTerminal(t *testing.T) {
	root := box(t)
	b, _ := os.ReadFile(buildInit(t))
	os.WriteFile(filepath.Join(root, "init"), b, 0o755)
	s, _ := newLeaving(t)
	s.contain(root, allNamespaces).Add(StageMounts, Console{Rows: 10, Cols: 20}, Pivot{})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/init"}, Args: []string{"init", "--", "sh", "-c", "read x; echo got $x"}, Env: []string{"PATH=/bin"}})
	master := s.leave().until(ReportConsole).File
	defer master.Close()
	s.until(ReportRunning)
	eventually(t, "the program", func() bool { return len(children(s.init)) == 1 })
	var pgrp int
	eventually(t, "the foreground", func() bool {
		pgrp, _ = unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPGRP)
		return pgrp > 0 && fmt.Sprint(pgrp) == children(s.init)[0]
	})
	master.WriteString("word\n")
	expect(t, master, "word got word")
	s.wait()
}
