package plan

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gantryd/gantry/internal/stdio"
)

// binEnv names a directory of programs that are taken as they are.
const binEnv = "GANTRY_BIN"

// byMakefile makes a program of ours at a path. The Makefile is the one place
// that knows how they are compiled.
func byMakefile(out string) error {
	msg, err := exec.Command("make", "-s", "-C", "../../..", "BIN="+filepath.Dir(out), out).CombinedOutput()
	if err != nil {
		return errors.New(string(msg))
	}
	return nil
}

// buildShim compiles the real shim once.
var buildShim = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(binEnv); dir != "" {
		return filepath.Join(dir, "gantry-shim"), nil
	}
	out := filepath.Join(os.Getenv("GANTRY_TEST_BUILD"), "gantry-shim")
	if err := byMakefile(out); err != nil {
		return "", err
	}
	return out, nil
})

// TestMain gives the built shim a place. The process that TestDriverIsKilled
// starts finds it there and cannot clean up.
func TestMain(m *testing.M) {
	if os.Getenv("GANTRY_TEST_BUILD") != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "shim")
	if err != nil {
		panic(err)
	}
	os.Setenv("GANTRY_TEST_BUILD", dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// shim is a run under test.
type shim struct {
	*Plan
	t       *testing.T
	dir     string
	program string // the built shim if empty
	files   []*os.File
	record  *os.File
	conn    *Conn
	pid     int // of the shim
	init    int
	exited  Report
	seen    []Report
}

// newShim prepares a plan with all of stage 0 in a fresh run directory.
func newShim(t *testing.T, set Monitor, logMax uint64) *shim {
	t.Helper()
	return shimIn(t, t.TempDir(), set, logMax)
}

func shimIn(t *testing.T, dir string, set Monitor, logMax uint64) *shim {
	t.Helper()
	s := &shim{Plan: &Plan{}, t: t, dir: dir}
	if set.DrainMs == 0 {
		set.DrainMs = 500
	}
	lock := s.open("lock", os.O_CREATE|os.O_RDWR)
	s.record, _ = os.OpenFile(filepath.Join(s.dir, "record"), os.O_CREATE|os.O_RDWR, 0o600)
	s.record.Truncate(RecordSize)
	l, err := net.Listen("unix", s.socket())
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	lf, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s.Add(StageMonitor, set, Lock{s.add(lock)}, Record{s.add(s.record)}, Listen{s.add(lf)})
	if logMax > 0 {
		d, err := os.Open(s.dir)
		if err != nil {
			t.Fatal(err)
		}
		s.Add(StageMonitor, Log{Dir: s.add(d), Name: "log", MaxBytes: logMax, MaxFiles: 5})
	}
	t.Cleanup(s.stop)
	return s
}

func (s *shim) socket() string { return filepath.Join(s.dir, "a.sock") }

func (s *shim) open(name string, flags int) *os.File {
	s.t.Helper()
	f, err := os.OpenFile(filepath.Join(s.dir, name), flags, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// add gives a file an FD; start closes it.
func (s *shim) add(f *os.File) FD {
	s.files = append(s.files, f)
	return FD(len(s.files) - 1)
}

// host finishes the plan: no namespaces, these arguments.
func (s *shim) host(args ...string) *shim {
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageGate, Gate{})
	s.Add(StageExec, Sweep{}, Exec{Paths: args[:1], Args: args, Env: []string{"PATH=/bin:/usr/bin"}})
	return s
}

// start starts the shim and gives up the files.
func (s *shim) start() *shim {
	s.t.Helper()
	path := os.Getenv("GANTRY_TEST_SHIM") // of TestUnderSanitizers
	if s.program != "" {
		path = s.program
	}
	if path == "" {
		var err error
		if path, err = buildShim(); err != nil {
			s.t.Fatal(err)
		}
	}
	b, err := s.Encode(len(s.files))
	if err != nil {
		s.t.Fatal(err)
	}
	w, err := Spawn(path)
	if err != nil {
		s.t.Fatal(err)
	}
	mode := os.Getenv("GANTRY_TEST_EARLY") // of TestEarly and TestStandby
	if strings.Contains(mode, "standby") {
		s.standby(w)
	}
	if strings.Contains(mode, "early") {
		s.early(w, false)
	}
	s.conn, err = w.Start(s.t.Context(), b, s.files)
	for _, f := range s.files {
		if f != s.record {
			f.Close()
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return s
}

// standby has the monitor made before anything is known.
func (s *shim) standby(w *Warm) {
	s.t.Helper()
	var dir *os.File
	var tasks []*os.File
	for _, step := range s.Steps {
		if op, ok := step.Op.(ShimCgroup); ok && op.Dir {
			dir = s.files[op.FD]
		} else if ok {
			tasks = append(tasks, s.files[op.FD])
		}
	}
	if err := w.Standby(dir, tasks); err != nil {
		s.t.Fatal(err)
	}
}

// early has the init made before the plan is sent, if that may be.
func (s *shim) early(w *Warm, leave bool) {
	s.t.Helper()
	e := Early{Leave: leave}
	for _, step := range s.Steps {
		switch op := step.Op.(type) {
		case ShimCgroup:
			if op.Dir {
				e.ShimCgroup = s.files[op.FD]
			}
		case Clone:
			if e.Clone = op.Flags; op.Cgroup != NoFD {
				e.Cgroup = s.files[op.Cgroup]
			}
		}
		if step.Stage == StageJoin && leave {
			return
		}
	}
	if err := w.Early(e); err != nil {
		s.t.Fatal(err)
	}
}

// patience is how long a test waits for what must happen, on whatever machine.
const patience = time.Minute

// next waits for one report.
func (s *shim) next() (Report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := s.conn.Next(ctx)
	s.seen = append(s.seen, r)
	switch r.Kind {
	case ReportShim:
		s.pid = r.PID
	case ReportInit:
		s.init = r.PID
	case ReportExited:
		s.exited = r
	}
	return r, err
}

// until waits for a report of this kind; any other end is fatal.
func (s *shim) until(kind ReportKind) Report {
	s.t.Helper()
	for {
		r, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting for report %d: %v; had %+v", kind, err, s.seen)
		}
		if r.Kind == kind {
			return r
		}
		if r.Kind == ReportError {
			s.t.Fatalf("waiting for report %d: %v", kind, r.Err())
		}
	}
}

// stop kills what is left of the run; the init dies with its shim.
func (s *shim) stop() {
	if s.conn == nil {
		return
	}
	if s.exited.Kind == 0 && s.init > 0 && alive(s.init) {
		syscall.Kill(s.init, syscall.SIGKILL)
	}
	s.conn.Close()
}

// attach connects a client, trying until the socket answers.
func (s *shim) attach(h stdio.Hello) *stdio.Conn {
	s.t.Helper()
	c, _, err := stdio.Dial(s.t.Context(), s.socket(), h)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// collect reads a client to its trailer.
func collect(c *stdio.Conn, out, errs io.Writer) (stdio.Exit, error) {
	for {
		f, err := c.Next()
		if err != nil {
			return stdio.Exit{}, err
		}
		switch f.Type {
		case stdio.FrameStdout:
			out.Write(f.Payload)
		case stdio.FrameStderr:
			errs.Write(f.Payload)
		case stdio.FrameExit:
			return stdio.ParseExit(f.Payload)
		}
	}
}

// readLog gives both streams as they lie in the log.
func (s *shim) readLog() (string, string) {
	s.t.Helper()
	r, err := stdio.OpenLog(filepath.Join(s.dir, "log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	var text [4]strings.Builder
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return text[1].String(), text[2].String()
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if rec.Stream == stdio.Gap {
			s.t.Errorf("gap of %d bytes in the log", rec.Lost)
		}
		text[rec.Stream&3].Write(rec.Data)
	}
}

func (s *shim) readRecord() ExitRecord {
	s.t.Helper()
	b := make([]byte, RecordSize)
	if _, err := s.record.ReadAt(b, 0); err != nil {
		s.t.Fatal(err)
	}
	r, err := ParseRecord(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}
