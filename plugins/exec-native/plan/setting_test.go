package plan

import (
	"encoding/binary"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/gantryd/gantry/internal/stdio"
	"golang.org/x/sys/unix"
)

// TestSettings looks from outside at what the program was given.
func TestSettings(t *testing.T) {
	s, _ := newLeaving(t)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageChild, Affinity{[]byte{2}}, IOPriority{2<<13 | 6}, Scheduler{Policy: unix.SCHED_BATCH, Nice: 7}, Keyring{"_ses.test"})
	s.Add(StageIdentity, User{UID: 1234, GID: 1234})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/sleep"}, Args: []string{"sleep", "100"}})
	s.leave().until(ReportRunning)
	attr, err := unix.SchedGetAttr(s.init, 0)
	if err != nil || attr.Policy != unix.SCHED_BATCH || attr.Nice != 7 {
		t.Errorf("%+v, %v", attr, err)
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(s.init, &cpus); err != nil || cpus.Count() != 1 || !cpus.IsSet(1) {
		t.Errorf("processors %v, %v", cpus, err)
	}
	prio, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(s.init), 0)
	if errno != 0 || prio != 2<<13|6 {
		t.Errorf("io priority %#x, %v", prio, errno)
	}
	if keys, err := os.ReadFile("/proc/keys"); err == nil && !strings.Contains(string(keys), "_ses.test") {
		t.Errorf("no keyring among\n%s", keys)
	}
}

// TestDeadlineScheduler: a policy that a plan may name and this machine may
// refuse is refused by its operation.
func TestDeadlineScheduler(t *testing.T) {
	s, _ := newLeaving(t)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageIdentity, Scheduler{Policy: unix.SCHED_DEADLINE, Runtime: 2, Deadline: 1, Period: 1})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/true"}, Args: []string{"true"}})
	if r := s.leave().failure(); r.Op != KindScheduler || r.Errno == 0 {
		t.Errorf("%+v", r)
	}
	s.wait()
}

// TestMemoryPolicy: this kernel has it, or the refusal names it.
func TestMemoryPolicy(t *testing.T) {
	const bind = 2 // MPOL_BIND
	_, _, lacks := unix.Syscall(unix.SYS_SET_MEMPOLICY, 0, 0, 0)
	s, out := newLeaving(t)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageChild, MemoryPolicy{bind, []byte{1}})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/cat"}, Args: []string{"cat", "/proc/self/numa_maps"}})
	s.leave()
	if lacks == unix.ENOSYS {
		if r := s.failure(); r.Op != KindMemoryPolicy || r.Errno != syscall.ENOSYS {
			t.Errorf("%+v", r)
		}
		s.wait()
		return
	}
	s.until(ReportRunning)
	if text, _ := io.ReadAll(out); !strings.Contains(string(text), "bind:0") {
		t.Errorf("%q", text)
	}
	s.wait()
}

// TestLabels: what a kernel without the security module says comes back, from
// the right file: also where all of /proc is covered, in a user namespace.
func TestLabels(t *testing.T) {
	for _, c := range []struct {
		label Label
		none  syscall.Errno
	}{
		{Label{"exec", "nonsense"}, syscall.EINVAL},
		{Label{"apparmor/exec", "exec no-such-profile"}, syscall.EINVAL},
		{Label{"keycreate", "nonsense"}, syscall.EINVAL},
	} {
		s, _ := newLeaving(t)
		s.contain(box(t), allNamespaces).Add(StageMounts, Pivot{})
		s.Add(StageCover, Mask{Path: "/proc/interrupts", Null: NoFD})
		s.Add(StageIdentity, c.label)
		r := s.sh("true").leave().failure()
		// AppArmor itself says so of a profile that is not loaded.
		profile := strings.HasPrefix(c.label.Attr, "apparmor/")
		if _, err := os.Stat("/proc/self/attr/" + c.label.Attr); err == nil && r.Errno == syscall.ENOENT && !profile {
			t.Errorf("%v: not found, and it is there", c.label)
		}
		if r.Op != KindLabel || r.Errno == 0 {
			t.Errorf("%v: %+v", c.label, r)
		}
		s.wait()
	}
	if _, err := (&Plan{Steps: []Step{{StageIdentity, false, Label{"exec", "a\x00b"}}}}).Encode(0); err == nil {
		t.Error("a NUL was taken")
	}
	s, _ := newLeaving(t)
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageIdentity, Label{"../mem", "x"})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/true"}, Args: []string{"true"}})
	if r := s.leave().failure(); r.Op != KindLabel || r.Errno != syscall.EINVAL || r.Stage != StageMonitor {
		t.Errorf("another file of /proc: %+v", r)
	}
}

// TestMoveRoot: without a pivot the host's /proc is nowhere below the new root.
func TestMoveRoot(t *testing.T) {
	s, out := newLeaving(t)
	s.contain(box(t), allNamespaces).Add(StageMounts, MoveRoot{})
	s.sh("pwd; ls /; grep -c ' - proc ' /proc/self/mountinfo; touch /tmp/x && echo made").leave().until(ReportRunning)
	text, _ := io.ReadAll(out)
	if want := "/ bin dev etc proc sys tmp 1 made"; strings.Join(strings.Fields(string(text)), " ") != want {
		t.Errorf("%q", text)
	}
	s.wait()
}

// notify is a filter that hands one system call to the listener.
func notify(number uint32) []byte {
	b := deny(number)
	binary.LittleEndian.PutUint32(b[2*8+4:], 0x7fc00000) // SECCOMP_RET_USER_NOTIF
	return b
}

// answerOnce takes one notification and answers with an errno.
func answerOnce(f *os.File, errno syscall.Errno) error {
	var in [80]byte // struct seccomp_notif
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0xc0502100, uintptr(unsafe.Pointer(&in))); e != 0 {
		return e
	}
	var out [24]byte // struct seccomp_notif_resp
	copy(out[:8], in[:8])
	binary.LittleEndian.PutUint32(out[16:], uint32(-int32(errno)))
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0xc0182101, uintptr(unsafe.Pointer(&out))); e != 0 {
		return e
	}
	return nil
}

func TestListener(t *testing.T) {
	const newListener = 1 << 3
	for _, stay := range []bool{true, false} {
		for _, stage := range []Stage{StageIdentity, StageExec} {
			var s *shim
			if stay {
				s = newShim(t, Monitor{}, 1<<20)
			} else {
				s, _ = newLeaving(t)
			}
			s.Add(StageClone, Clone{Cgroup: NoFD})
			filter := Seccomp{Flags: newListener, Filter: notify(unix.SYS_UNAME)}
			if stage == StageIdentity {
				s.Add(StageIdentity, filter)
				s.Add(StageExec, Sweep{})
			} else {
				s.Add(StageIdentity, NoNewPrivs{})
				s.Add(StageExec, Sweep{}, filter)
			}
			s.Add(StageExec, Exec{Paths: []string{"/bin/uname"}, Args: []string{"uname"}})
			if stay {
				s.start()
			} else {
				s.leave()
			}
			r := s.until(ReportListener)
			pidfd, err := unix.PidfdOpen(s.init, 0)
			if err != nil {
				t.Fatal(err)
			}
			f, err := r.Listener(t.Context(), pidfd)
			unix.Close(pidfd)
			if err != nil {
				t.Fatal(err)
			}
			s.conn.Continue(r.Point)
			s.until(ReportRunning)
			if err := answerOnce(f, syscall.EXDEV); err != nil {
				t.Error(err)
			}
			f.Close()
			if stay {
				if r := s.until(ReportExited); r.Code != 1 {
					t.Errorf("%+v", r)
				}
			} else if w := s.wait(); w.ExitStatus() != 1 {
				t.Errorf("status %v", w)
			}
		}
	}
}

// TestDeadline: a probe's whole process group goes at its time, also when the
// program has become another user; one that ends before is not touched.
func TestDeadline(t *testing.T) {
	s := newShim(t, Monitor{}, 1<<20)
	s.Add(StageMonitor, Deadline{150})
	s.Add(StageClone, Clone{Cgroup: NoFD})
	s.Add(StageIdentity, User{UID: 1234, GID: 1234})
	s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", "sleep 100 & sleep 100"}, Env: []string{"PATH=/bin"}})
	begin := time.Now()
	r := s.start().until(ReportExited)
	if took := time.Since(begin); r.Signal != 9 || r.Flags&FlagTimeout == 0 || took < 150*time.Millisecond {
		t.Errorf("%+v after %v", r, took)
	}
	if rec := s.readRecord(); rec.Flags&FlagTimeout == 0 {
		t.Errorf("%+v", rec)
	}
	s = newShim(t, Monitor{Flags: WaitAttach, GateMilli: never}, 0)
	s.Add(StageMonitor, Deadline{never})
	s.host("/bin/echo", "healthy").start().until(ReportGate)
	var out strings.Builder
	e, err := collect(s.attach(stdio.Hello{Stdout: true, Lossless: true}), &out, io.Discard)
	if err != nil || e.Code != 0 || e.Timeout || out.String() != "healthy\n" {
		t.Errorf("%+v, %v, %q", e, err, out.String())
	}
	if r := s.until(ReportExited); r.Flags&FlagTimeout != 0 {
		t.Errorf("%+v", r)
	}
}

// TestStdinOnce: whatever a client's hello says, its leaving ends the input;
// detaching does not.
func TestStdinOnce(t *testing.T) {
	s := newShim(t, Monitor{Flags: OpenStdin | StdinOnce}, 1<<20).host("/bin/cat")
	s.start().until(ReportRunning)
	c := s.attach(stdio.Hello{Stdin: true})
	c.Write([]byte("one "))
	eventually(t, "the first", func() bool { out, _ := s.readLog(); return out == "one " })
	c.Detach()
	s.heard()
	c = s.attach(stdio.Hello{Stdin: true})
	c.Write([]byte("two"))
	c.Close()
	s.until(ReportExited)
	if out, _ := s.readLog(); out != "one two" {
		t.Errorf("%q", out)
	}
}

// TestSweepUnderFilter: a filter that refuses close_range leaves nothing of the
// host's open all the same: not for the program, and not for the path it is
// named by.
func TestSweepUnderFilter(t *testing.T) {
	for _, program := range []string{"/bin/sh", "/proc/self/fd/4/bin/sh", "/proc/self/fd/5/bin/sh", "/proc/self/fd/6/bin/sh", "/proc/self/fd/7/bin/sh"} {
		s, out := newLeaving(t)
		s.contain(box(t), allNamespaces)
		s.Add(StageMounts, Attach{FD: s.add(tree(t, t.TempDir())), Target: "/a", Create: CreateDir}, Pivot{})
		s.Add(StageCover, Mask{Path: "/proc/acpi", Null: NoFD})
		s.Add(StageIdentity, Seccomp{Filter: deny(unix.SYS_CLOSE_RANGE)})
		s.Add(StageExec, Sweep{}, Exec{Paths: []string{program}, Args: []string{"sh", "-c", "ls /proc/self/fd | wc -l"}, Env: []string{"PATH=/bin"}})
		s.leave()
		if program != "/bin/sh" {
			if r := s.failure(); r.Op != KindExec {
				t.Errorf("%s: %+v", program, r)
			}
			s.wait()
			continue
		}
		s.until(ReportRunning)
		if text, _ := io.ReadAll(out); string(text) != "4\n" {
			t.Errorf("%q", text)
		}
		s.wait()
	}
}

// TestOwner: the pipes belong to whom they were given, also in a user namespace.
func TestOwner(t *testing.T) {
	s := newShim(t, Monitor{}, 1<<20)
	s.Add(StageMonitor, Owner{100000, 200000})
	dir := box(t)
	os.Chown(dir, 100000, 200000)
	root, null := s.add(tree(t, dir)), s.add(tree(t, "/dev/null"))
	s.Add(StageClone, Clone{Flags: allNamespaces | unix.CLONE_NEWUSER, Cgroup: NoFD})
	s.Add(StageParent, ProcWrite{"uid_map", "0 100000 65536\n"}, ProcWrite{"gid_map", "0 200000 65536\n"})
	s.Add(StageChild, User{})
	s.Add(StageMounts, Propagation{unix.MS_REC | unix.MS_SLAVE}, Root{FD: root, Attr: Attr{Propagation: unix.MS_PRIVATE}},
		Filesystem{Type: "proc", Target: "/proc", Create: CreateDir, Attrs: noExec},
		Filesystem{Type: "tmpfs", Target: "/dev", Create: CreateDir},
		Attach{FD: null, Target: "/dev/null", Create: CreateFile}, Pivot{})
	if got := s.sh("echo by name > /proc/self/fd/1").output(); got != "by name\n" {
		t.Errorf("%q", got)
	}
}
