package plan

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/stdio"
)

// TestDriverProcess is not a test: it is the driver that TestDriverIsKilled
// starts and kills.
func TestDriverProcess(t *testing.T) {
	dir := os.Getenv("GANTRY_TEST_DRIVER")
	if dir == "" {
		return
	}
	s := shimIn(t, dir, Monitor{Run: 5, Flags: OpenStdin}, 1<<20).
		host("/bin/sh", "-c", "echo first; read x; echo $x; exit 11")
	s.start().until(ReportRunning)
	fmt.Printf("PIDS %d %d\n", s.pid, s.init)
	select {}
}

// TestDriverIsKilled kills the process that started the shim, by its whole
// process group and session, and finds log, streams and record complete.
func TestDriverIsKilled(t *testing.T) {
	path, err := buildShim()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDriverProcess$")
	cmd.Env = append(os.Environ(), "GANTRY_TEST_DRIVER="+dir, "GANTRY_TEST_SHIM="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid, init int
	lines := bufio.NewScanner(out)
	for pid == 0 && lines.Scan() {
		fmt.Sscanf(lines.Text(), "PIDS %d %d", &pid, &init)
	}
	if pid == 0 {
		t.Fatal("the driver said nothing")
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait()
	if !alive(pid) || !alive(init) {
		t.Fatal("the shim died with its driver")
	}
	s := &shim{t: t, dir: dir}
	if s.record, err = os.Open(filepath.Join(dir, "record")); err != nil {
		t.Fatal(err)
	}
	defer s.record.Close()
	if rec := s.readRecord(); rec.State != StateRunning || rec.PID != init || rec.ShimPID != pid {
		t.Errorf("%+v", rec)
	}
	c := s.attach(stdio.Hello{Stdin: true, Stdout: true, Lossless: true})
	io.WriteString(c, "second\n")
	var text strings.Builder
	if e, err := collect(c, &text, io.Discard); err != nil || e.Code != 11 || !strings.HasSuffix(text.String(), "second\n") {
		t.Errorf("%+v, %q, %v", e, text.String(), err)
	}
	if rec := s.readRecord(); rec.State != StateExited || rec.Code != 11 || rec.Run != 5 {
		t.Errorf("%+v", rec)
	}
	if logged, _ := s.readLog(); logged != "first\nsecond\n" {
		t.Errorf("%q", logged)
	}
}

// TestCgroupsV2: shim and init are cloned into their cgroups.
func TestCgroupsV2(t *testing.T) {
	base := "/sys/fs/cgroup"
	if _, err := os.Stat(base + "/cgroup.procs"); err != nil {
		base += "/unified"
		needs(t, base+"/cgroup.procs")
	}
	open := func(name string) (*os.File, string) {
		dir := fmt.Sprintf("%s/gantry-plan-%s-%d", base, name, os.Getpid())
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { eventually(t, "removal of "+dir, func() bool { return os.Remove(dir) == nil }) })
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return f, "0::/" + filepath.Base(dir) + "\n"
	}
	s := newShim(t, Monitor{}, 0)
	f, shims := open("shims")
	s.Add(StageMonitor, ShimCgroup{s.add(f), true})
	f, inits := open("box")
	s.Add(StageClone, Clone{Flags: unix.CLONE_NEWCGROUP, Cgroup: s.add(f)})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/sleep"}, Args: []string{"sleep", "100"}})
	s.start().until(ReportRunning)
	for pid, want := range map[int]string{s.pid: shims, s.init: inits} {
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); !strings.Contains(string(b), want) {
			t.Errorf("process %d: not %q but\n%s", pid, want, b)
		}
	}
	syscall.Kill(s.init, syscall.SIGKILL)
	s.until(ReportExited)
}

// deny is a filter that answers EPERM to one system call.
func deny(number uint32) []byte {
	var b []byte
	for _, i := range []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: number},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},
	} {
		b = binary.LittleEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.LittleEndian.AppendUint32(b, i.K)
	}
	return b
}

func TestSeccomp(t *testing.T) {
	for _, stage := range []Stage{StageIdentity, StageExec} {
		s := newShim(t, Monitor{}, 1<<20)
		s.Add(StageClone, Clone{Cgroup: NoFD})
		filter := Seccomp{Filter: deny(unix.SYS_UNAME)}
		run := Exec{Paths: []string{"/bin/uname"}, Args: []string{"uname"}}
		if stage == StageExec {
			s.Add(StageIdentity, User{UID: 1234, GID: 1234}, NoNewPrivs{})
			s.Add(StageExec, Sweep{}, filter, run)
		} else {
			s.Add(StageIdentity, filter, User{UID: 1234, GID: 1234})
			s.Add(StageExec, Sweep{}, run)
		}
		s.start()
		if r := s.until(ReportExited); r.Code != 1 {
			t.Errorf("%v: %+v", stage, r)
		}
		if _, errs := s.readLog(); !strings.Contains(errs, "Operation not permitted") {
			t.Errorf("%v: %q", stage, errs)
		}
	}
}

// TestTimeNamespace: offsets are written between unshare and clone.
func TestTimeNamespace(t *testing.T) {
	s := newShim(t, Monitor{}, 1<<20)
	s.Add(StageJoin, Unshare{unix.CLONE_NEWTIME}, ProcWrite{"timens_offsets", "boottime 100000000 0\n"})
	s.host("/bin/cut", "-d.", "-f1", "/proc/uptime")
	s.start().until(ReportExited)
	out, errs := s.readLog()
	var up int
	if fmt.Sscan(out, &up); up < 100000000 {
		t.Errorf("up for %q, %q", out, errs)
	}
}

// TestJoinUserNamespace enters all namespaces of a container by its pidfd.
func TestJoinUserNamespace(t *testing.T) {
	first := newShim(t, Monitor{}, 0)
	dir := box(t)
	os.Chown(dir, 100000, 100000)
	root := first.add(tree(t, dir))
	first.Add(StageClone, Clone{Flags: allNamespaces | unix.CLONE_NEWUSER, Cgroup: NoFD})
	first.Add(StageParent, ProcWrite{"uid_map", "0 100000 65536\n"}, ProcWrite{"gid_map", "0 100000 65536\n"})
	first.Add(StageChild, User{})
	null := first.add(tree(t, "/dev/null"))
	first.Add(StageMounts, Propagation{unix.MS_REC | unix.MS_SLAVE}, Root{FD: root, Attr: Attr{Propagation: unix.MS_PRIVATE}},
		Filesystem{Type: "proc", Target: "/proc", Create: CreateDir, Attrs: noExec},
		Attach{FD: null, Target: "/dev/null", Create: CreateFile}, Pivot{})
	first.Add(StageCover, Hostname{"mapped"})
	first.sh("sleep 100; true").start().until(ReportRunning)
	fd, err := unix.PidfdOpen(first.init, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := newShim(t, Monitor{}, 1<<20)
	target := s.add(os.NewFile(uintptr(fd), "init"))
	s.Add(StageJoin, Join{target, allNamespaces | unix.CLONE_NEWUSER})
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageChild, User{UID: 3, GID: 4})
	s.Add(StageIdentity, Chdir{Path: "/"})
	begin := time.Now()
	if got := s.sh("id -u; id -g; hostname; pwd").output(); got != "3\n4\nmapped\n/\n" {
		t.Errorf("%q after %v", got, time.Since(begin))
	}
}

// TestAbortOfFrozenJoiner: a joiner that hangs in a frozen cgroup keeps
// neither driver nor shim.
func TestAbortOfFrozenJoiner(t *testing.T) {
	needs(t, "/sys/fs/cgroup/freezer/cgroup.procs")
	dir := fmt.Sprintf("/sys/fs/cgroup/freezer/gantry-plan-test-%d", os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	state := func(s string) {
		if err := os.WriteFile(dir+"/freezer.state", []byte(s), 0); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		state("THAWED")
		eventually(t, "removal of "+dir, func() bool { return os.Remove(dir) == nil })
	})
	state("FROZEN")
	procs, err := os.OpenFile(dir+"/cgroup.procs", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := newShim(t, Monitor{}, 0)
	s.Add(StageJoin, Cgroup{s.add(procs)}, Unshare{unix.CLONE_NEWTIME})
	s.host("/bin/true").start().until(ReportShim)
	time.Sleep(50 * time.Millisecond)
	if err := s.conn.Abort(); err != nil {
		t.Fatal(err)
	}
	r, err := s.next()
	if err != nil || r.Kind != ReportError || !errors.Is(r.Err(), syscall.ECANCELED) {
		t.Fatalf("%+v, %v", r, err)
	}
	eventually(t, "the shim to leave", func() bool { return !alive(s.pid) })
}

// TestUntilItsEnd: an end that the kernel tells too early hides no message.
func TestUntilItsEnd(t *testing.T) {
	reset, broken := syscall.ECONNRESET, errors.New("broken")
	for _, c := range []struct {
		name  string
		reads []error // nil is a message
		want  error
	}{
		{"a message", []error{nil}, nil},
		{"the end", []error{io.EOF, io.EOF, io.EOF, nil}, io.EOF},
		{"a message behind an early end", []error{io.EOF, nil}, nil},
		{"a message behind a reset", []error{reset, nil}, nil},
		{"a message behind an early end and a reset", []error{io.EOF, reset, nil}, nil},
		{"a reset behind an early end", []error{io.EOF, reset, io.EOF}, io.EOF},
		{"another error", []error{broken, nil}, broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := untilItsEnd(func() (int, error) {
				err := c.reads[0]
				c.reads = c.reads[1:]
				if err != nil {
					return 0, err
				}
				return 7, nil
			})
			if err != c.want || (n == 7) != (c.want == nil) {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
}
