package plan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/stdio"
)

const allNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET

const noExec = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// box is a directory with a busybox, fit to be a container's root.
func box(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("the tests of whole containers need Debian's busybox-static: %v", err)
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	for _, d := range []string{"bin", "proc", "sys", "tmp", "etc"} {
		os.Mkdir(filepath.Join(dir, d), 0o755)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"sh", "cat", "id", "hostname", "mount", "ls", "ps", "echo", "true", "stat", "wc", "readlink", "pwd", "grep", "touch", "tty", "stty", "sleep", "cut"} {
		os.Symlink("busybox", filepath.Join(dir, "bin", n))
	}
	return dir
}

// tree opens a detached clone of a directory's or file's mount.
func tree(t *testing.T, path string) *os.File {
	t.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), path)
}

// contain adds the mounts of an ordinary container up to stage 6.
func (s *shim) contain(root string, flags uint64) *shim {
	fd := s.add(tree(s.t, root))
	s.Add(StageClone, Clone{Flags: flags, Cgroup: NoFD})
	s.Add(StageMounts, Propagation{unix.MS_REC | unix.MS_SLAVE},
		Root{FD: fd, Attr: Attr{Propagation: unix.MS_PRIVATE}})
	s.ordinary()
	return s
}

func (s *shim) ordinary() {
	s.Add(StageMounts,
		Filesystem{Type: "proc", Target: "/proc", Create: CreateDir, Attrs: noExec},
		Filesystem{Type: "tmpfs", Target: "/dev", Create: CreateDir, Attrs: unix.MOUNT_ATTR_NOSUID, Params: []Param{
			{Type: ParamString, Key: "mode", Value: "755"}, {Type: ParamString, Key: "size", Value: "65536k"}}},
		Filesystem{Type: "devpts", Target: "/dev/pts", Create: CreateDir, Attrs: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, Params: []Param{
			{Type: ParamFlag, Key: "newinstance"}, {Type: ParamString, Key: "ptmxmode", Value: "0666"}, {Type: ParamString, Key: "mode", Value: "0620"}}},
		Filesystem{Type: "sysfs", Target: "/sys", Create: CreateDir, Attrs: noExec | unix.MOUNT_ATTR_RDONLY},
		Filesystem{Type: "mqueue", Target: "/dev/mqueue", Create: CreateDir, Attrs: noExec},
		Node{Path: "/dev/null", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 3},
		Node{Path: "/dev/zero", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 5},
		Symlink{"/dev/fd", "/proc/self/fd"},
		Symlink{"/dev/ptmx", "pts/ptmx"},
	)
}

// sh finishes the plan with a shell script.
func (s *shim) sh(script string) *shim {
	if s.Steps[len(s.Steps)-1].Stage <= StageGate {
		s.Add(StageGate, Gate{})
	}
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}})
	return s
}

// output runs the plan to its end and gives what it wrote.
func (s *shim) output() string {
	s.t.Helper()
	s.start().until(ReportExited)
	out, errs := s.readLog()
	if errs != "" {
		s.t.Errorf("on standard error: %s", errs)
	}
	return out
}

func TestIsolation(t *testing.T) {
	root := box(t)
	s := newShim(t, Monitor{}, 1<<20).contain(root, allNamespaces)
	s.Add(StageMounts, Pivot{})
	s.Add(StageCover,
		Hostname{"box"}, Domainname{"dom"}, LinkUp{"lo"},
		Sysctl{"net/ipv4/ip_unprivileged_port_start", "0"},
		Mask{Path: "/proc/interrupts", Null: NoFD}, Mask{Path: "/sys/firmware", Null: NoFD},
		Mask{Path: "/proc/scsi", Null: NoFD}, Mask{Path: "/no/such", Null: NoFD},
		ReadOnly{"/proc/sys"}, ReadOnly{"/no/such"},
		SetAttr{"/", Attr{Set: unix.MOUNT_ATTR_RDONLY}})
	s.Add(StageIdentity, CapBound{1}, User{UID: 1000, GID: 1001, Groups: []uint32{7, 8}, KeepCaps: true},
		CapSet{Effective: 1, Permitted: 1, Inheritable: 1, Ambient: 1}, NoNewPrivs{}, Umask{027})
	got := s.sh(`
		echo pid $$ host $(hostname); id
		cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_unprivileged_port_start
		wc -c < /proc/interrupts; ls /sys/firmware | wc -l
		grep -E 'Cap|NoNew' /proc/self/status
		(echo x > /file) 2>/dev/null || echo root is read-only
		(echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo sys is read-only
		umask; ls -1 /proc | grep -c '^[0-9]'
		ls /proc/self/fd | wc -l
		readlink /proc/1/fd/0; readlink /proc/1/cwd
		cat /proc/self/mountinfo | wc -l`).output()
	for _, want := range []string{
		"pid 1 host box\n", "uid=1000 gid=1001 groups=7,8", "dom\n0\n0\n0\n",
		"CapPrm:\t0000000000000001", "CapEff:\t0000000000000001", "CapBnd:\t0000000000000001", "CapAmb:\t0000000000000001",
		"NoNewPrivs:\t1", "root is read-only\nsys is read-only\n0027\n", "/dev/null\n/\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "gantry") {
		t.Errorf("words of ours:\n%s", got)
	}
	if _, err := os.Stat(filepath.Join(root, "dev/null")); err == nil {
		t.Error("a device was made in the image")
	}
}

// TestDescriptors: the program has its three streams and nothing else, and its
// standard input is not the host's /dev/null.
func TestDescriptors(t *testing.T) {
	s := newShim(t, Monitor{}, 1<<20).contain(box(t), allNamespaces)
	s.Add(StageMounts, Pivot{})
	s.sh("exec sleep 100").start().until(ReportRunning)
	eventually(t, "the program", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.init))
		return strings.HasPrefix(string(b), "sleep")
	})
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.init))
	if err != nil || len(fds) != 3 {
		t.Errorf("descriptors: %v, %v", fds, err)
	}
	var in, ours, hosts unix.Stat_t
	unix.Stat(fmt.Sprintf("/proc/%d/fd/0", s.init), &in)
	unix.Stat(fmt.Sprintf("/proc/%d/root/dev/null", s.init), &ours)
	unix.Stat("/dev/null", &hosts)
	if in.Rdev != hosts.Rdev || in.Dev != ours.Dev || in.Dev == hosts.Dev {
		t.Errorf("standard input %+v, container's null %+v, host's %+v", in, ours, hosts)
	}
}

// needs skips a test where the machine lacks what it is about.
func needs(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			t.Skipf("this machine lacks it: %v", err)
		}
	}
}

func TestCgroupsV1(t *testing.T) {
	needs(t, "/sys/fs/cgroup/pids/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs")
	name := fmt.Sprintf("gantry-plan-test-%d", os.Getpid())
	s := newShim(t, Monitor{}, 1<<20)
	root := s.add(tree(t, box(t)))
	s.Add(StageClone, Clone{Flags: allNamespaces, Cgroup: NoFD})
	for _, c := range []string{"pids", "memory"} {
		dir := filepath.Join("/sys/fs/cgroup", c, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			eventually(t, "removal of "+dir, func() bool { return os.Remove(dir) == nil })
		})
		f, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.Add(StageChild, Cgroup{s.add(f)})
	}
	s.Add(StageChild, Unshare{unix.CLONE_NEWCGROUP}, Rlimit{unix.RLIMIT_NOFILE, 77, 99}, ProcWrite{"oom_score_adj", "500"})
	s.Add(StageMounts, Propagation{unix.MS_REC | unix.MS_SLAVE}, Root{FD: root, Attr: Attr{Propagation: unix.MS_PRIVATE}})
	s.ordinary()
	s.Add(StageMounts,
		Filesystem{Type: "tmpfs", Target: "/sys/fs/cgroup", Attrs: noExec},
		Filesystem{Type: "cgroup", Target: "/sys/fs/cgroup/pids", Create: CreateDir, Attrs: noExec, Params: []Param{{Type: ParamFlag, Key: "pids"}}},
		Pivot{})
	got := s.sh(`cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/cgroup.procs | grep -c '^1$'; ulimit -n; ulimit -Hn; cat /proc/1/oom_score_adj`).output()
	if !strings.Contains(got, ":pids:/\n") || !strings.Contains(got, ":memory:/\n") || strings.Contains(got, name) {
		t.Errorf("cgroup paths:\n%s", got)
	}
	if !strings.HasSuffix(got, "1\n77\n99\n500\n") {
		t.Errorf("limits:\n%s", got)
	}
}

func TestOOMIsTold(t *testing.T) {
	needs(t, "/sys/fs/cgroup/memory/memory.oom_control")
	dir := fmt.Sprintf("/sys/fs/cgroup/memory/gantry-oom-test-%d", os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eventually(t, "removal of "+dir, func() bool { return os.Remove(dir) == nil }) })
	if err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte("8388608"), 0); err != nil {
		t.Fatal(err)
	}
	s := newShim(t, Monitor{}, 0)
	counter, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		t.Fatal(err)
	}
	procs, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Add(StageMonitor, OOMCounter{s.add(counter)})
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageChild, Cgroup{s.add(procs)})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", "exec tail /dev/zero"}, Env: []string{"PATH=/bin:/usr/bin"}})
	r := s.start().until(ReportExited)
	if r.Signal != 9 || r.Flags&FlagOOM == 0 || s.readRecord().Flags&FlagOOM == 0 {
		t.Errorf("%+v", r)
	}
}

// TestUserNamespace: maps are written by the monitor while the init waits.
func TestUserNamespace(t *testing.T) {
	s := newShim(t, Monitor{}, 1<<20)
	dir := box(t)
	os.Chown(dir, 100000, 200000)
	root := s.add(tree(t, dir))
	s.Add(StageClone, Clone{Flags: allNamespaces | unix.CLONE_NEWUSER, Cgroup: NoFD})
	s.Add(StageParent, ProcWrite{"uid_map", "0 100000 65536\n"}, ProcWrite{"gid_map", "0 200000 65536\n"})
	s.Add(StageChild, User{UID: 0, GID: 0})
	s.Add(StageMounts, Propagation{unix.MS_REC | unix.MS_SLAVE}, Root{FD: root, Attr: Attr{Propagation: unix.MS_PRIVATE}},
		Filesystem{Type: "proc", Target: "/proc", Create: CreateDir, Attrs: noExec},
		Filesystem{Type: "tmpfs", Target: "/dev", Create: CreateDir})
	null := s.add(tree(t, "/dev/null"))
	s.Add(StageMounts, Attach{FD: null, Target: "/dev/null", Create: CreateFile}, Pivot{})
	s.Add(StageCover, Sysctl{"net/ipv4/ip_forward", "1"}, Mask{Path: "/proc/interrupts", Null: null}, LinkUp{"lo"})
	got := s.sh("id -u; cat /proc/self/uid_map /proc/self/gid_map /proc/sys/net/ipv4/ip_forward; wc -c < /proc/interrupts").output()
	if f := strings.Fields(got); strings.Join(f, " ") != "0 0 100000 65536 0 200000 65536 1 0" {
		t.Errorf("%q", got)
	}
}

// TestJoin: namespaces of another container are entered before the clone.
func TestJoin(t *testing.T) {
	first := newShim(t, Monitor{}, 0).contain(box(t), allNamespaces)
	first.Add(StageMounts, Pivot{})
	first.Add(StageCover, Hostname{"joined"})
	first.sh("exec sleep 100").start().until(ReportRunning)
	eventually(t, "the program", func() bool { // in the middle of an exec there is no command line
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", first.init))
		return string(text) == "sleep\x00100\x00"
	})
	fd, err := unix.PidfdOpen(first.init, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := newShim(t, Monitor{}, 1<<20)
	target := s.add(os.NewFile(uintptr(fd), "init"))
	s.Add(StageJoin, Join{target, allNamespaces})
	s.Add(StageClone, Clone{Cgroup: NoFD})
	if got := s.sh("hostname; cat /proc/1/cmdline; [ $$ != 1 ] && echo second").output(); got != "joined\nsleep\x00100\x00second\n" {
		t.Errorf("%q", got)
	}
	// A namespace that is not there: the failure names the join.
	bad := newShim(t, Monitor{}, 0)
	f, _ := os.Open("/etc/passwd")
	bad.Add(StageJoin, Join{bad.add(f), unix.CLONE_NEWNET})
	bad.host("/bin/true").start()
	for {
		r, err := bad.next()
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == ReportError {
			if !errors.Is(r.Err(), syscall.EINVAL) || r.Op != KindJoin || r.Stage != StageJoin {
				t.Errorf("%+v", r)
			}
			return
		}
	}
}

// TestHostileTargets: links of the image lead nowhere but into the image.
func TestHostileTargets(t *testing.T) {
	root, outside := box(t), t.TempDir()
	os.Symlink(outside, filepath.Join(root, "absolute"))
	os.Symlink("../../../../../../../.."+outside, filepath.Join(root, "relative"))
	os.Symlink("/tmp", filepath.Join(root, "inside"))
	os.Symlink("/proc/self/fd/0", filepath.Join(root, "magic"))
	made := func(dir string) Op { return Filesystem{Type: "tmpfs", Target: dir, Create: CreateDir} }
	for _, c := range []struct {
		op    Op
		errno syscall.Errno
	}{
		{made("/absolute/made"), 0},
		{made("/relative/made"), 0},
		{Node{Path: "/absolute", Mode: unix.S_IFREG | 0o644}, syscall.EEXIST},
		{made("/inside/made"), 0},
		{made("/magic/made"), syscall.ELOOP},
	} {
		s := newShim(t, Monitor{}, 1<<20).contain(root, allNamespaces)
		s.Add(StageMounts, c.op, Pivot{})
		s.sh("true").start()
		for {
			r, err := s.next()
			if err != nil {
				t.Fatal(err)
			}
			if r.Kind == ReportError && errors.Is(r.Err(), c.errno) || r.Kind == ReportExited && c.errno == 0 {
				break
			}
			// A dangling link in the place of a directory is refused as well.
			if r.Kind == ReportError && c.errno == 0 && (r.Errno == syscall.ENOTDIR || r.Errno == syscall.ELOOP) {
				break
			}
			if r.Kind == ReportError || r.Kind == ReportExited {
				t.Errorf("%+v: %+v, %v", c.op, r, r.Err())
				break
			}
		}
	}
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("made outside: %v", left)
	}
	if _, err := os.Stat(filepath.Join(root, "tmp/made")); err != nil {
		t.Errorf("made inside through a link: %v", err)
	}
}

func TestWorkingDirectory(t *testing.T) {
	root := box(t)
	s := newShim(t, Monitor{}, 1<<20).contain(root, allNamespaces)
	s.Add(StageMounts, Pivot{})
	s.Add(StageIdentity, Chdir{Path: "/data/deep", Create: true, UID: 5, GID: 6})
	if got := s.sh("pwd; stat -c %u:%g:%a .").output(); got != "/data/deep\n5:6:755\n" {
		t.Errorf("%q", got)
	}
	s = newShim(t, Monitor{}, 1<<20).contain(box(t), allNamespaces)
	s.Add(StageMounts, Pivot{})
	s.Add(StageIdentity, Chdir{Path: "/proc/self/fd/9"})
	s.sh("pwd").start()
	for {
		r, err := s.next()
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == ReportExited {
			t.Error("a working directory among descriptors was taken")
		}
		if r.Kind == ReportError || r.Kind == ReportExited {
			break
		}
	}
}

func TestTerminal(t *testing.T) {
	s := newShim(t, Monitor{Flags: WaitAttach | OpenStdin | Terminal, GateMilli: never}, 1<<20).contain(box(t), allNamespaces)
	s.Add(StageMounts, Console{Rows: 33, Cols: 99}, Pivot{})
	s.sh("tty; stty size; read x; stty size; echo got $x; [ -c /dev/console ] && exit 8").start().until(ReportGate)
	c := s.attach(stdio.Hello{Stdout: true, Stdin: true, Lossless: true})
	var out strings.Builder
	until := func(text string) {
		t.Helper()
		for !strings.Contains(out.String(), text) {
			f, err := c.Next()
			if err != nil {
				t.Fatalf("%v after %q", err, out.String())
			}
			if f.Type == stdio.FrameStdout {
				out.Write(f.Payload)
			}
		}
	}
	until("33 99\r\n") // what is typed before is echoed in between
	c.Resize(stdio.Size{Rows: 40, Cols: 120})
	c.Write([]byte("word\r"))
	until("got word")
	e, err := collect(c, &out, &out)
	got := strings.ReplaceAll(out.String(), "\r", "")
	if err != nil || e.Code != 8 || got != "/dev/pts/0\n33 99\nword\n40 120\ngot word\n" {
		t.Errorf("%+v, %q, %v", e, got, err)
	}
}

func TestOptionalFailureIsWarned(t *testing.T) {
	s := newShim(t, Monitor{}, 0)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.AddOptional(StageChild, ProcWrite{"no-such-file", "1"})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/true"}, Args: []string{"true"}})
	r := s.start().until(ReportWarning)
	if !errors.Is(r.Err(), syscall.ENOENT) || r.Op != KindProcWrite {
		t.Errorf("%+v", r)
	}
	s.until(ReportExited)
}

// TestMountsStayInside: nothing that a container mounts is seen outside, and
// its detached mounts are gone with it.
func TestMountsStayInside(t *testing.T) {
	root := box(t)
	s := newShim(t, Monitor{}, 1<<20).contain(root, allNamespaces)
	s.Add(StageMounts, Attach{FD: s.add(tree(t, t.TempDir())), Target: "/a/b/c", Create: CreateDir, Attr: Attr{Set: unix.MOUNT_ATTR_RDONLY}}, Pivot{})
	if got := s.sh("touch /a/b/c/x 2>/dev/null || echo read-only; grep -c . /proc/mounts").output(); !strings.HasPrefix(got, "read-only\n7\n") {
		t.Errorf("%q", got)
	}
	after, _ := os.ReadFile("/proc/self/mountinfo")
	for l := range strings.SplitSeq(string(after), "\n") {
		if strings.Contains(l, root) || strings.Contains(l, s.dir) {
			t.Errorf("a mount outside: %s", l)
		}
	}
}
