package plan

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newLeaving prepares a plan after which nobody stays; what the program writes
// is read from the file it returns.
func newLeaving(t *testing.T, keep ...*os.File) (*shim, *os.File) {
	t.Helper()
	s := &shim{Plan: &Plan{}, t: t, dir: t.TempDir()}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	out := s.add(w)
	l := Leave{Stdin: NoFD, Stdout: out, Stderr: out}
	for _, f := range keep {
		l.Keep = append(l.Keep, s.add(f))
	}
	s.Add(StageMonitor, l)
	t.Cleanup(func() {
		if s.init > 0 {
			syscall.Kill(s.init, syscall.SIGKILL)
			syscall.Wait4(s.init, nil, 0, nil)
		}
	})
	return s, r
}

// leave starts a plan of newLeaving.
func (s *shim) leave() *shim {
	s.t.Helper()
	if err := s.tryLeave(); err != nil {
		s.t.Fatal(err)
	}
	return s
}

func (s *shim) tryLeave() error {
	s.t.Helper()
	path := os.Getenv("GANTRY_TEST_SHIM")
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
	if os.Getenv("GANTRY_TEST_EARLY") == "early" {
		s.early(w, true)
	}
	s.conn, err = w.Leave(s.t.Context(), b, s.files)
	for _, f := range s.files {
		f.Close()
	}
	if err != nil {
		return err
	}
	s.t.Cleanup(func() { s.conn.Close() })
	return nil
}

// failure waits for the Error of a start.
func (s *shim) failure() Report {
	s.t.Helper()
	for {
		r, err := s.next()
		if err != nil || r.Kind == ReportRunning {
			s.t.Fatalf("%+v, %v; had %+v", r, err, s.seen)
		}
		if r.Kind == ReportError {
			return r
		}
	}
}

// wait reaps the program, which is this process's child.
func (s *shim) wait() syscall.WaitStatus {
	s.t.Helper()
	var w syscall.WaitStatus
	if _, err := syscall.Wait4(s.init, &w, 0, nil); err != nil {
		s.t.Fatal(err)
	}
	s.init = 0
	return w
}

func TestLeaving(t *testing.T) {
	s, out := newLeaving(t)
	s.contain(box(t), allNamespaces).Add(StageMounts, Pivot{})
	s.sh("echo pid $$; readlink /proc/self/fd/0; ls /proc/self/fd | wc -l; exit 5")
	s.leave().until(ReportRunning)
	if r, err := s.next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the exec: %+v, %v", r, err)
	}
	text, _ := io.ReadAll(out)
	// ls has one of its own.
	if string(text) != "pid 1\n/dev/null\n4\n" {
		t.Errorf("%q", text)
	}
	if w := s.wait(); w.ExitStatus() != 5 {
		t.Errorf("status %v", w)
	}
}

// TestLeavingNobodyStays: the helper is gone, and no signal of the parent's
// death is set.
func TestLeavingNobodyStays(t *testing.T) {
	s, _ := newLeaving(t)
	s.host("/bin/sleep", "100").leave().until(ReportRunning)
	if ppid := field(t, s.init, "status", "PPid:"); ppid != fmt.Sprint(os.Getpid()) {
		t.Errorf("parent %s, not %d", ppid, os.Getpid())
	}
	threads, _ := filepath.Glob("/proc/self/task/*/children")
	for _, f := range threads {
		b, _ := os.ReadFile(f)
		for pid := range strings.FieldsSeq(string(b)) {
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			if strings.HasPrefix(string(name), "gantry-shim") {
				t.Errorf("a helper has stayed: %s", pid)
			}
		}
	}
}

func TestLeavingFailures(t *testing.T) {
	for _, c := range []struct {
		name  string
		add   func(s *shim)
		op    Kind
		errno syscall.Errno
	}{
		{"no program", func(s *shim) { s.host("/no/such") }, KindExec, syscall.ENOENT},
		{"a directory", func(s *shim) { s.host("/etc") }, KindExec, syscall.EACCES},
		{"join", func(s *shim) {
			f, _ := os.Open("/etc/passwd")
			s.Add(StageJoin, Join{s.add(f), unix.CLONE_NEWNET})
			s.host("/bin/true")
		}, KindJoin, syscall.EINVAL},
		{"map", func(s *shim) {
			s.Add(StageClone, Clone{Flags: unix.CLONE_NEWUSER, Cgroup: NoFD})
			s.Add(StageParent, ProcWrite{"uid_map", "nonsense"})
			s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/true"}, Args: []string{"true"}})
		}, KindProcWrite, syscall.EINVAL},
		{"clone", func(s *shim) {
			s.Add(StageClone, Clone{Flags: unix.CLONE_NEWUSER | unix.CLONE_FS, Cgroup: NoFD})
			s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/true"}, Args: []string{"true"}})
		}, KindClone, syscall.EINVAL},
	} {
		s, _ := newLeaving(t)
		c.add(s)
		if err := s.tryLeave(); err != nil {
			// An init that is made early may fail before the plan is sent.
			if c.op != KindClone || !errors.Is(err, c.errno) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if r := s.failure(); r.Op != c.op || r.Errno != c.errno {
			t.Errorf("%s: %+v", c.name, r)
		}
		if _, err := s.next(); s.init > 0 && !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", c.name, err)
		}
		if s.init > 0 {
			s.wait()
		}
	}
	s, _ := newLeaving(t)
	s.Add(StageMonitor, Deadline{1})
	s.host("/bin/true")
	if r := s.leave().failure(); r.Op != KindDeadline || r.Errno != syscall.EINVAL {
		t.Errorf("settings of a monitor that there is not: %+v", r)
	}
}

func TestLeavingUserNamespace(t *testing.T) {
	s, out := newLeaving(t)
	dir := box(t)
	os.Chown(dir, 100000, 200000)
	root := s.add(tree(t, dir))
	null := s.add(tree(t, "/dev/null"))
	s.Add(StageClone, Clone{Flags: allNamespaces | unix.CLONE_NEWUSER, Cgroup: NoFD})
	s.Add(StageParent, ProcWrite{"uid_map", "0 100000 65536\n"}, ProcWrite{"gid_map", "0 200000 65536\n"})
	s.Add(StageChild, User{})
	s.Add(StageMounts, Propagation{unix.MS_REC | unix.MS_SLAVE}, Root{FD: root, Attr: Attr{Propagation: unix.MS_PRIVATE}},
		Filesystem{Type: "proc", Target: "/proc", Create: CreateDir, Attrs: noExec},
		Filesystem{Type: "tmpfs", Target: "/dev", Create: CreateDir},
		Attach{FD: null, Target: "/dev/null", Create: CreateFile}, Pivot{})
	s.sh("id -u; cat /proc/self/uid_map").leave().until(ReportRunning)
	text, _ := io.ReadAll(out)
	if strings.Join(strings.Fields(string(text)), " ") != "0 0 100000 65536" {
		t.Errorf("%q", text)
	}
	s.wait()
}

// TestStartGate: the creator hears that all is made and goes; another opens the
// gate and hears whether the program was executed.
func TestStartGate(t *testing.T) {
	for _, program := range []string{"/bin/sh", "/no/such"} {
		s, out := newLeaving(t)
		gate, err := ListenGate(s.dir, "gate")
		if err != nil {
			t.Fatal(err)
		}
		s.contain(box(t), allNamespaces).Add(StageMounts, Pivot{})
		s.Add(StageGate, StartGate{s.add(gate)})
		s.Add(StageExec, Sweep{}, Exec{Paths: []string{program}, Args: []string{"sh", "-c", "echo started; exit 3"}})
		s.leave().until(ReportGate)
		s.conn.Close()
		time.Sleep(30 * time.Millisecond)
		if !alive(s.init) {
			t.Fatal("the init went with its creator")
		}
		// Who only looks, lets nobody go.
		fd, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(s.dir, "gate")}); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if s.conn, err = OpenGate(t.Context(), s.dir, "gate"); err != nil {
			t.Fatal(err)
		}
		if program == "/bin/sh" {
			s.until(ReportRunning)
			if text, _ := io.ReadAll(out); string(text) != "started\n" {
				t.Errorf("%q", text)
			}
		} else if r := s.failure(); r.Op != KindExec || r.Errno != syscall.ENOENT {
			t.Errorf("%+v", r)
		}
		w := s.wait()
		if want := map[string]int{"/bin/sh": 3, "/no/such": 125}[program]; w.ExitStatus() != want {
			t.Errorf("status %v", w)
		}
		if _, err := OpenGate(t.Context(), s.dir, "gate"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a second start: %v", err)
		}
	}
}

// TestCreatorDies: a creator that goes before the gate takes the init along.
func TestCreatorDies(t *testing.T) {
	s, _ := newLeaving(t)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageGate, Sync{1})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/sleep"}, Args: []string{"sleep", "100"}})
	s.leave().until(ReportSync)
	s.conn.Close()
	if w := s.wait(); w.ExitStatus() != 125 {
		t.Errorf("status %v", w)
	}
}

// TestLeavingTerminal: the master comes to the driver; a joining program gets a
// pty of its own, without /dev/console.
func TestLeavingTerminal(t *testing.T) {
	first, _ := newLeaving(t)
	first.contain(box(t), allNamespaces)
	first.Add(StageMounts, Console{Rows: 20, Cols: 50}, Pivot{})
	first.sh("tty; stty size; [ -c /dev/console ] && echo console; exec sleep 100")
	r := first.leave().until(ReportConsole)
	if r.File == nil {
		t.Fatal("no master")
	}
	defer r.File.Close()
	first.until(ReportRunning)
	expect(t, r.File, "/dev/pts/0 20 50 console")
	fd, err := unix.PidfdOpen(first.init, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := newLeaving(t)
	s.Add(StageJoin, Join{s.add(os.NewFile(uintptr(fd), "init")), allNamespaces})
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageChild, Pty{Rows: 30, Cols: 60})
	s.sh("tty; stty size; echo over")
	second := s.leave().until(ReportConsole).File
	defer second.Close()
	s.until(ReportRunning)
	expect(t, second, "/dev/pts/1 30 60 over")
	s.wait()
}

// expect reads words from a terminal.
func expect(t *testing.T, f *os.File, want string) {
	t.Helper()
	var text strings.Builder
	b := make([]byte, 256)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		n, err := f.Read(b)
		text.Write(b[:n])
		if strings.Join(strings.Fields(text.String()), " ") == want {
			return
		}
		if err != nil {
			break
		}
	}
	t.Errorf("%q, not %q", text.String(), want)
}

func TestKeptDescriptors(t *testing.T) {
	a, _ := os.Open("/etc/hostname")
	b, _ := os.Open("/etc/passwd")
	s, out := newLeaving(t, b, a)
	s.host("/bin/sh", "-c", "readlink /proc/self/fd/3 /proc/self/fd/4; ls /proc/self/fd | wc -l").leave().until(ReportRunning)
	text, _ := io.ReadAll(out)
	if string(text) != "/etc/passwd\n/etc/hostname\n6\n" {
		t.Errorf("%q", text)
	}
	s.wait()
}

// TestExecWithoutMonitor is what a runtime's exec does, in a container with a
// monitor.
func TestExecWithoutMonitor(t *testing.T) {
	first := newShim(t, Monitor{}, 0).contain(box(t), allNamespaces)
	first.Add(StageMounts, Pivot{})
	first.Add(StageCover, Hostname{"joined"})
	first.sh("sleep 100").start().until(ReportRunning)
	fd, err := unix.PidfdOpen(first.init, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, out := newLeaving(t)
	s.Add(StageJoin, Affinity{[]byte{1}}, Join{s.add(os.NewFile(uintptr(fd), "init")), allNamespaces})
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageIdentity, Chdir{Path: "/made", Create: true, UID: 7, GID: 8}, CapBound{0}, User{UID: 7, GID: 8}, NoNewPrivs{})
	s.sh("hostname; id -u; pwd; grep -E 'CapBnd|Cpus_allowed:' /proc/self/status").leave().until(ReportRunning)
	text, _ := io.ReadAll(out)
	if want := "joined 7 /made CapBnd: 0000000000000000 Cpus_allowed: 1"; strings.Join(strings.Fields(string(text)), " ") != want {
		t.Errorf("%q", text)
	}
	s.wait()
}

func TestAbortWithoutMonitor(t *testing.T) {
	s, _ := newLeaving(t)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageGate, Sync{1})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/true"}, Args: []string{"true"}})
	s.leave().until(ReportSync)
	s.conn.Abort()
	if r := s.failure(); r.Errno != syscall.ECANCELED {
		t.Errorf("%+v", r)
	}
	s.wait()
	s, _ = newLeaving(t)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageChild, Sync{7})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/true"}, Args: []string{"true"}})
	if r := s.leave().until(ReportSync); r.Point != 7 {
		t.Errorf("%+v", r)
	}
	s.conn.Continue(7)
	s.until(ReportRunning)
	s.wait()
}

// openFiles names what a process has open beyond its standard streams, by kind.
func openFiles(t *testing.T, pid int) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, fd := range fds {
		link, _ := os.Readlink(filepath.Join(dir, fd.Name()))
		if len(fd.Name()) > 1 || fd.Name() > "2" {
			kind, _, _ := strings.Cut(link, ":")
			names = append(names, kind)
		}
	}
	return names
}

// TestNothingOpenAtGate: programs may be run in a container that is made and
// not started; they must find no file of the host's in its init.
func TestNothingOpenAtGate(t *testing.T) {
	s, _ := newLeaving(t)
	gate, err := ListenGate(s.dir, "gate")
	if err != nil {
		t.Fatal(err)
	}
	s.contain(box(t), allNamespaces)
	s.Add(StageMounts, Attach{FD: s.add(tree(t, t.TempDir())), Target: "/a", Create: CreateDir}, Pivot{})
	s.Add(StageCover, Mask{Path: "/proc/acpi", Null: NoFD}, Mask{Path: "/proc/bus", Null: NoFD})
	s.Add(StageGate, StartGate{s.add(gate)})
	s.sh("true").leave().until(ReportGate)
	s.conn.Close()
	// The gate, and the program's output. All else is closed behind the report.
	eventually(t, "the files to be closed", func() bool {
		names := openFiles(t, s.init)
		slices.Sort(names)
		return strings.Join(names, " ") == "pipe socket"
	})
}

// TestNothingOpenAfterJoining: a process that has joined a container is seen by
// its programs before it is one of them.
func TestNothingOpenAfterJoining(t *testing.T) {
	first := newShim(t, Monitor{}, 0).contain(box(t), allNamespaces)
	first.Add(StageMounts, Pivot{})
	first.sh("sleep 100").start().until(ReportRunning)
	for _, stay := range []bool{false, true} {
		fd, err := unix.PidfdOpen(first.init, 0)
		if err != nil {
			t.Fatal(err)
		}
		var s *shim
		if stay {
			s = newShim(t, Monitor{}, 1<<20)
		} else {
			s, _ = newLeaving(t)
		}
		s.Add(StageJoin, Join{s.add(os.NewFile(uintptr(fd), "init")), allNamespaces})
		s.Add(StageClone, Clone{Cgroup: NoFD})
		s.Add(StageChild, Sync{1})
		s.sh("true")
		if stay {
			s.start()
		} else {
			s.leave()
		}
		s.until(ReportSync)
		want := map[bool]string{false: "pipe socket", true: "pipe pipe socket"}[stay]
		names := openFiles(t, s.init)
		slices.Sort(names)
		if strings.Join(names, " ") != want {
			t.Errorf("open after the join: %v, not %s", names, want)
		}
		s.conn.Close()
	}
}
