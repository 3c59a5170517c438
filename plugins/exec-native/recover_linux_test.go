package execnative

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// closeDriver ends the bench's first instance, which has started nothing, so
// that another one can take its place.
func (b *bench) closeDriver() { b.d.close() }

// TestRunsOutliveTheDriver: what a killed driver started goes on; a new one
// finds it, signals it, and tells its exit; an exit in between is told too.
func TestRunsOutliveTheDriver(t *testing.T) {
	b := newBench(t)
	b.closeDriver()
	long := b.request("echo before; trap 'echo after; exit 7' TERM; echo up; while :; do sleep 0.01; done")
	short := b.request("sleep 0.2; echo short; exit 9")
	b.startInChild(2, long, short)
	b.eventually("the short one has ended, and nobody was there", func() bool {
		living, err := alive(execdriver.RunDir(b.cfg.Run, short.Key))
		return err == nil && !living
	})
	b.open()

	b.eventually("one has exited, the other one's shim has answered", func() bool {
		items, err := b.d.List(context.Background())
		if err != nil || len(items) != 2 {
			t.Fatalf("list: %+v %v", items, err)
		}
		states := map[string]string{}
		for _, i := range items {
			states[i.Key] = i.State
		}
		return states[long.Container] == "running" && states[short.Container] == "exited"
	})
	if e := b.wait(short.Key); e.Code != 9 || e.Lost {
		t.Errorf("the one that ended meanwhile: %+v", e)
	}
	again, err := b.d.Start(context.Background(), long)
	if err != nil || again.PID == 0 {
		t.Errorf("asked again: %+v %v", again, err)
	}
	if err := b.d.Signal(context.Background(), long.Key, 15); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(long.Key); e.Code != 7 || e.Lost {
		t.Errorf("the one that went on: %+v", e)
	}
	if out := b.output(again.Log); out != "before\nup\nafter\n" {
		t.Errorf("log: %q", out)
	}
}

// TestSecondRunContinuesTheLog: offsets go on, nothing is written over.
func TestSecondRunContinuesTheLog(t *testing.T) {
	b := newBench(t)
	r := b.request("echo one")
	b.run(r)
	r.Run = 100
	r.Process.Args[2] = "echo two"
	if out, _ := b.run(r); out != "one\ntwo\n" {
		t.Errorf("log: %q", out)
	}
}

// shimOf is the pid of a run's shim.
func (b *bench) shimOf(k execdriver.Key) int {
	b.t.Helper()
	rec, err := readRecord(execdriver.RunDir(b.cfg.Run, k), b.d.bootID)
	if err != nil || rec.ShimPID == 0 {
		b.t.Fatalf("record: %+v %v", rec, err)
	}
	return rec.ShimPID
}

// TestShimKilled: everything in the container dies, and the run is told lost.
func TestShimKilled(t *testing.T) {
	b := newBench(t)
	r := b.request("sleep 100 & (trap '' TERM HUP; sleep 100) & echo up; exec sleep 100")
	s, err := b.d.Start(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	b.eventually("the program is up", func() bool { return b.output(s.Log) == "up\n" })
	if err := unix.Kill(b.shimOf(r.Key), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(r.Key); !e.Lost || e.Code != 137 || !strings.HasPrefix(e.Reason, "shim lost") {
		t.Errorf("%+v, want it lost", e)
	}
	b.eventually("the container is empty", func() bool {
		pids, err := b.d.containers.Group(groupName(r.Key)).Pids()
		return err == nil && len(pids) == 0
	})
}

// TestConnectionLost: a connection that breaks is no shim that is gone. What runs
// under it lives on, and its end is told.
func TestConnectionLost(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(nil)
	b.d.mu.Lock()
	one := b.d.runs[r.Key]
	b.d.mu.Unlock()
	b.eventually("it has its trap, and sleeps", func() bool { return b.measured(r.Key).Pids == 2 })
	b.d.connectionLost(one) // until it is connected again
	if err := b.d.Signal(t.Context(), r.Key, int(unix.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(r.Key); e.Lost || e.Code != 0 {
		t.Errorf("%+v, want its own end", e)
	}
}

// TestExecWhileKilled: a group that is frozen in order to be killed is not paused.
func TestExecWhileKilled(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(nil)
	b.d.mu.Lock()
	one := b.d.runs[r.Key]
	one.killed = true
	b.d.mu.Unlock()
	if err := b.d.group(one).Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := r.Key
	key.Exec = "e"
	_, err := b.d.Exec(t.Context(), execdriver.Exec{Key: key, Process: execdriver.Process{Args: []string{"true"}}})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "not running") {
		t.Errorf("%v", err)
	}
	if err := b.d.group(one).Thaw(); err != nil {
		t.Fatal(err)
	}
}

// TestShimKilledWithoutRecord: a run that somebody has taken the record of is lost
// with its shim like any other.
func TestShimKilledWithoutRecord(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(nil)
	pid := b.shimOf(r.Key)
	if err := os.Remove(filepath.Join(execdriver.RunDir(b.cfg.Run, r.Key), recordFile)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(r.Key); !e.Lost || e.Code != 137 {
		t.Errorf("%+v, want it lost", e)
	}
}

// TestShimKilledWithoutDriver: found by the next instance.
func TestShimKilledWithoutDriver(t *testing.T) {
	b := newBench(t)
	b.closeDriver()
	r := b.request("exec sleep 100")
	b.startInChild(1, r)
	pid := b.shimOf(r.Key)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.eventually("the shim is gone", func() bool { return unix.Kill(pid, 0) == unix.ESRCH || zombie(pid) })
	b.open()
	if e := b.wait(r.Key); !e.Lost || e.Code != 137 {
		t.Errorf("%+v, want it lost", e)
	}
}

// zombie reports a process that nobody has reaped yet.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(text), ") Z ")
}

// TestStoppedShimIsNotKilled: a shim that does not answer is waited for.
func TestStoppedShimIsNotKilled(t *testing.T) {
	b := newBench(t)
	b.closeDriver()
	r := b.request("exec sleep 100")
	b.startInChild(1, r)
	pid := b.shimOf(r.Key)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.open()
	items, err := b.d.List(context.Background())
	if err != nil || len(items) != 1 || items[0].State != "held" {
		t.Errorf("list while it is stopped: %+v %v", items, err)
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	b.eventually("it answers", func() bool {
		items, err := b.d.List(context.Background())
		return err == nil && len(items) == 1 && items[0].State == "running"
	})
	if s, err := b.d.Start(context.Background(), r); err != nil || s.PID == 0 {
		t.Errorf("asked again: %+v %v", s, err)
	}
}

// TestReleaseOfStoppedShim: one that a later driver has found not to answer does not
// keep its container for ever.
func TestReleaseOfStoppedShim(t *testing.T) {
	b := newBench(t)
	b.closeDriver()
	r := b.request("exec sleep 100")
	b.startInChild(1, r)
	if err := unix.Kill(b.shimOf(r.Key), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.open()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.d.Release(ctx, r.Key); err != nil {
		t.Error(err)
	}
}

// TestDriverKilledDuringStarts kills a driver while it starts containers: what
// a new one is asked comes to a good end, and nothing is left.
func TestDriverKilledDuringStarts(t *testing.T) {
	b := newBench(t)
	b.closeDriver()
	starts := []execdriver.Start{b.request("echo a; exec sleep 100"), b.request("echo b; exec sleep 100"), b.request("echo c; exec sleep 100")}
	starts[2].Stdio.WaitAttach = true // the driver dies while it waits at the gate
	for n := range 3 {
		b.startInChild(n, starts...)
		b.open()
		for _, r := range starts[:2] {
			s, err := b.d.Start(context.Background(), r)
			if err != nil {
				t.Fatalf("round %d: %v", n, err)
			}
			b.eventually("one output each", func() bool { return len(b.output(s.Log)) > 0 })
		}
		b.closeDriver()
	}
	b.open()
	for _, r := range starts[:2] {
		if out := b.output(filepath.Join(b.d.logDir(r.Container), logName)); len(out) != 2 {
			t.Errorf("ran more than once: %q", out)
		}
	}
}

// TestLeftoversOfDeadStarts: directories at every stage of their making.
func TestLeftoversOfDeadStarts(t *testing.T) {
	b := newBench(t)
	b.closeDriver()
	empty := filepath.Join(b.cfg.Run, "0123456789abcdef-1")
	torn := filepath.Join(b.cfg.Run, "0123456789abcdef-2")
	for _, d := range []string{empty, torn} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(torn+"/"+intentFile+".new", []byte(`{"contai`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := b.request("echo fine")
	dir := execdriver.RunDir(b.cfg.Run, r.Key)
	if err := makeIntent(dir, intent{Container: r.Container, Run: r.Run}); err != nil {
		t.Fatal(err)
	}
	files, err := makeRunFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	files.close()
	b.open()
	for _, d := range []string{empty, torn} {
		if _, err := os.Stat(d); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", d, err)
		}
	}
	items, err := b.d.List(context.Background())
	if err != nil || len(items) != 1 || items[0].State != "held" {
		t.Errorf("list: %+v %v", items, err)
	}
	if out, e := b.run(r); out != "fine\n" || e.Code != 0 {
		t.Errorf("asked again: %q %+v", out, e)
	}
}

// TestRecordOfAnotherBootIsVoid, and a damaged one counts as lost.
func TestRecords(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(dir+"/"+recordFile, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(make([]byte, plan.RecordSize))
	if rec, err := readRecord(dir, b.d.bootID); err != nil || rec.State != plan.StateNone {
		t.Errorf("zeros: %+v %v", rec, err)
	}
	write(append(make([]byte, plan.RecordSize-1), 1))
	if _, err := readRecord(dir, b.d.bootID); err == nil {
		t.Error("a damaged record was read")
	}
	r := b.request("exit 4")
	b.run(r)
	real := execdriver.RunDir(b.cfg.Run, r.Key)
	if rec, err := readRecord(real, b.d.bootID); err != nil || rec.State != plan.StateExited || rec.Code != 4 {
		t.Errorf("record: %+v %v", rec, err)
	}
	if rec, err := readRecord(real, [16]byte{1}); err != nil || rec.State != plan.StateNone {
		t.Errorf("record under another boot: %+v %v", rec, err)
	}
}

// TestTrueExitAfterReaping asks the kernel for a status that another process
// has taken (6.15 and later).
func TestTrueExitAfterReaping(t *testing.T) {
	b := newBench(t)
	r := b.request("read x; exit 23")
	r.Stdio.OpenStdin = true
	s, err := b.d.Start(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := openPidfd(s.PID, groupName(r.Key))
	if err != nil {
		t.Fatal(err)
	}
	defer pidfd.Close()
	if err := b.d.Signal(context.Background(), r.Key, 9); err != nil {
		t.Fatal(err)
	}
	b.wait(r.Key)
	code, signal, ok := trueExit(pidfd)
	release, err := kernelRelease()
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n == 2 && (major < 6 || major == 6 && minor < 15) && !ok {
		t.Skip("Linux keeps no status of what has been reaped (6.15 does):", release)
	}
	if !ok || code != 137 || signal != 9 {
		t.Errorf("%d %d %v, want 137 by signal 9", code, signal, ok)
	}
}
