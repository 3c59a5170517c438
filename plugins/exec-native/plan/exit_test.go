package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/stdio"
)

func TestExitCodes(t *testing.T) {
	for code := range 256 {
		s := newShim(t, Monitor{Run: uint64(code), BootID: [16]byte{1, 2, 3}}, 0).
			host("/bin/sh", "-c", fmt.Sprintf("exit %d", code)).start()
		r := s.until(ReportExited)
		rec := s.readRecord()
		if r.Code != code || r.Signal != 0 || rec.Code != code || rec.State != StateExited || rec.Run != uint64(code) {
			t.Fatalf("exit %d: report %+v, record %+v", code, r, rec)
		}
		if rec.BootID != [16]byte{1, 2, 3} || rec.Started.IsZero() || rec.Ended.Before(rec.Started) || rec.PID != s.init {
			t.Fatalf("exit %d: record %+v", code, rec)
		}
		if _, err := s.next(); err != io.EOF {
			t.Fatalf("after the exit: %v", err)
		}
	}
}

func TestExitBySignal(t *testing.T) {
	for _, sig := range []syscall.Signal{1, 2, 3, 6, 9, 11, 13, 14, 15, 25, 31, 34, 64} {
		s := newShim(t, Monitor{}, 0).host("/bin/sleep", "100").start()
		s.until(ReportRunning)
		if err := syscall.Kill(s.init, sig); err != nil {
			t.Fatal(err)
		}
		r := s.until(ReportExited)
		if r.Code != 128+int(sig) || r.Signal != int(sig) {
			t.Errorf("signal %d: %+v", sig, r)
		}
	}
}

func TestStartFailures(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	os.WriteFile(plain, []byte("x"), 0o600)
	noexec := filepath.Join(dir, "format")
	os.WriteFile(noexec, []byte("not a program"), 0o700)
	for _, c := range []struct {
		paths []string
		errno syscall.Errno
		code  int
	}{
		{[]string{"/no/such/program"}, syscall.ENOENT, 127},
		{[]string{"/etc/passwd/x"}, syscall.ENOTDIR, 127},
		{[]string{plain}, syscall.EACCES, 126},
		{[]string{dir}, syscall.EACCES, 126},
		{[]string{plain, "/no/such"}, syscall.EACCES, 126},
		{[]string{noexec}, syscall.ENOEXEC, 126},
	} {
		s := newShim(t, Monitor{}, 0)
		s.Add(StageClone, Clone{Cgroup: NoFD})
		s.Add(StageExec, Sweep{}, Exec{Paths: c.paths, Args: []string{"x"}})
		s.start()
		var r Report
		for r.Kind != ReportError {
			var err error
			if r, err = s.next(); err != nil {
				t.Fatalf("%v: %v", c.paths, err)
			}
		}
		rec := s.readRecord()
		if !errors.Is(r.Err(), c.errno) || r.Code != c.code || r.Stage != StageExec || r.Op != KindExec {
			t.Errorf("%v: %+v, %v", c.paths, r, r.Err())
		}
		if rec.State != StateFailed || rec.Errno != c.errno || rec.Code != c.code {
			t.Errorf("%v: %+v", c.paths, rec)
		}
	}
	// The second candidate is taken when the first is not there.
	s := newShim(t, Monitor{}, 0)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/no/such", "/bin/true"}, Args: []string{"true"}})
	if r := s.start().until(ReportExited); r.Code != 0 {
		t.Errorf("second candidate: %+v", r)
	}
}

func TestFailureTellsAttachedClient(t *testing.T) {
	s := newShim(t, Monitor{Flags: WaitAttach, GateMilli: never}, 0).host("/no/such").start()
	s.until(ReportGate)
	c := s.attach(stdio.Hello{Stdout: true, Lossless: true})
	e, err := collect(c, io.Discard, io.Discard)
	if err != nil || !e.Failed || e.Code != 127 || e.Errno != syscall.ENOENT || Kind(e.Op) != KindExec {
		t.Fatalf("%+v, %v", e, err)
	}
}

func TestPlanRefused(t *testing.T) {
	path, err := buildShim()
	if err != nil {
		t.Fatal(err)
	}
	s := newShim(t, Monitor{}, 0).host("/bin/true")
	b, err := s.Encode(len(s.files))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(b, []byte{byte(KindExec), 0, byte(StageExec), 0})
	b[at] = 250 // a kind of the future
	conn, err := Start(t.Context(), path, b, s.files)
	if err == nil {
		defer conn.Close()
		var r Report
		if r, err = conn.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		err = r.Err()
	}
	if !errors.Is(err, syscall.ENOSYS) {
		t.Fatalf("unknown operation: %v", err)
	}
}

func TestAbortAtSync(t *testing.T) {
	s := newShim(t, Monitor{}, 0)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageGate, Sync{Point: 7})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/true"}, Args: []string{"true"}})
	s.start()
	if r := s.until(ReportSync); r.Point != 7 {
		t.Fatalf("%+v", r)
	}
	if err := s.conn.Abort(); err != nil {
		t.Fatal(err)
	}
	r, err := s.next()
	if err != nil || !errors.Is(r.Err(), syscall.ECANCELED) {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := syscall.Kill(s.init, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the init after an abort: %v", err)
	}
}

func TestDriverDiesAtSync(t *testing.T) {
	s := newShim(t, Monitor{}, 0)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageGate, Sync{Point: 1})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/true"}, Args: []string{"true"}})
	s.start().until(ReportSync)
	s.conn.Close()
	eventually(t, "record of a failed start", func() bool { return s.readRecord().State == StateFailed })
}

func TestContinueAtSync(t *testing.T) {
	s := newShim(t, Monitor{}, 0)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageGate, Sync{Point: 1}, Sync{Point: 2})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/true"}, Args: []string{"true"}})
	s.start()
	for want := range uint32(2) {
		if r := s.until(ReportSync); r.Point != want+1 {
			t.Fatalf("%+v", r)
		}
		s.conn.Continue(want + 1)
	}
	s.until(ReportExited)
}

// TestLivesOnWithoutDriver closes the control socket, as the driver's death
// does, and finds the run by its socket, its lock and its record.
func TestLivesOnWithoutDriver(t *testing.T) {
	s := newShim(t, Monitor{}, 1<<20).host("/bin/sh", "-c", "read x; echo got $x; exit 5")
	s.Steps[0].Op = Monitor{Flags: OpenStdin, DrainMs: 500}
	s.start().until(ReportRunning)
	s.conn.Close()
	lock, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatalf("lock of a running shim: %v", err)
	}
	c, state, err := stdio.Dial(t.Context(), s.socket(), stdio.Hello{Control: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if state.State != stdio.StateRunning || state.PID != s.init || state.ShimPID != s.pid {
		t.Fatalf("%+v, init %d, shim %d", state, s.init, s.pid)
	}
	in := s.attach(stdio.Hello{Stdin: true, StdinOnce: true})
	io.WriteString(in, "word\n")
	e, err := collect(c, io.Discard, io.Discard)
	if err != nil || e.Code != 5 {
		t.Fatalf("%+v, %v", e, err)
	}
	if rec := s.readRecord(); rec.State != StateExited || rec.Code != 5 {
		t.Fatalf("%+v", rec)
	}
	if out, _ := s.readLog(); out != "got word\n" {
		t.Fatalf("log: %q", out)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		t.Fatalf("lock after the end: %v", err)
	}
	eventually(t, "the shim to leave", func() bool { return !alive(s.pid) })
}

func TestShimKilledTakesInitAlong(t *testing.T) {
	s := newShim(t, Monitor{}, 0).host("/bin/sleep", "100").start()
	s.until(ReportRunning)
	if err := syscall.Kill(s.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := s.next(); err != io.EOF {
		t.Errorf("control socket of a killed shim: %v", err)
	}
	eventually(t, "the init to die", func() bool { return !alive(s.init) })
}

func TestShimIgnoresSignals(t *testing.T) {
	s := newShim(t, Monitor{}, 0).host("/bin/sleep", "100").start()
	s.until(ReportRunning)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE, syscall.SIGQUIT} {
		syscall.Kill(s.pid, sig)
	}
	s.heard() // it is there
	syscall.Kill(s.init, syscall.SIGTERM)
	if r := s.until(ReportExited); r.Signal != 15 {
		t.Errorf("%+v", r)
	}
}

// alive tells whether a process runs: not gone, not a zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := bytes.LastIndexByte(b, ')')
	return err == nil && i+2 < len(b) && b[i+2] != 'Z' && b[i+2] != 'X'
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}
