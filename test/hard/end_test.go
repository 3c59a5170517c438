package hard

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/query"
)

// TestIgnoresTerm: who does not listen to SIGTERM is killed when the time is over,
// not before.
func TestIgnoresTerm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.gantry("run", "-d", "--name", "plain", patient, "busybox", "sleep", "1000") // pid 1 without a handler: ignored by the kernel
	w.gantry("run", "-d", "--name", "deaf", patient, helper(), "busybox", "/helper/ill", "ignorant", "/bin/sh", "-c", "sleep 1000 & while true; do sleep 1000; done")
	for _, name := range []string{"plain", "deaf"} {
		s := w.call("stop", "-t", "1", name)
		if s.code != 0 || s.took < time.Second {
			t.Errorf("stop -t 1 %s: code %d after %v: %s", name, s.code, s.took, s.stderr)
		}
		if e := w.ended(name); e.Code != 137 || e.Lost {
			t.Errorf("%s ended as %+v, want 137", name, e)
		}
	}
	w.over()
}

// TestStopOfPaused: a paused container is stopped and removed without being
// unpaused first; without force its removal is refused.
func TestStopOfPaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const polite = "trap 'exit 5' TERM; echo ready; while true; do sleep 0.05; done"
	for _, c := range []struct {
		name string
		act  []string
		code int
	}{
		{"stopped", []string{"stop", "-t", "20"}, 5},
		{"hurried", []string{"stop", "-t", "0"}, 137},
		{"killed", []string{"kill"}, 137},
		{"removed", []string{"rm", "-f"}, -1},
	} {
		w.gantry("run", "-d", "--name", c.name, "busybox", "sh", "-c", polite)
		w.until(c.name+" is ready", func() bool { return w.gantry("logs", c.name) == "ready" })
		w.gantry("pause", c.name)
		w.refused(1, "^gantry: .*"+c.name+".*(paused|running).*(stop|unpause|force|-f)", "rm", c.name)
		w.refused(1, "^gantry: .*paused.*unpause", "exec", c.name, "true")
		w.refused(1, "^gantry: .*already paused", "pause", c.name)
		s := w.call(append(c.act, c.name)...)
		if s.code != 0 {
			t.Errorf("%v of a paused container: code %d after %v: %s", c.act, s.code, s.took, s.stderr)
		}
		if c.code < 0 {
			continue
		}
		if e := w.ended(c.name); e.Code != c.code || e.Lost {
			t.Errorf("%v of a paused container: it ended as %+v, want %d", c.act, e, c.code)
		}
	}
	w.over()
}

// TestSharedPidNamespace: the end of the owner ends who shares its pid namespace;
// who shares takes all of its own processes along, and nobody else's.
func TestSharedPidNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.gantry("run", "-d", "--name", "owner", "busybox", "sleep", "1000")
	w.gantry("run", "-d", "--name", "guest", "--pid", "container:owner", "busybox", "sh", "-c", "sleep 2000 & sleep 1000")
	guest := w.container("guest")
	w.until("the guest has its processes", func() bool { return len(w.groupPids(&guest)) >= 2 && w.anyArgs("sleep\x002000") })
	w.gantry("run", "-d", "--name", "brief", "--pid", "container:owner", helper(), "busybox", "sh", "-c",
		"/helper/ill ignorant /bin/sleep 3000 & sleep 0.3; exit 4")
	if e := w.ended("brief"); e.Code != 4 || e.Lost {
		t.Errorf("brief ended as %+v, want 4", e)
	}
	brief := w.container("brief")
	w.until("its other processes are killed", func() bool { return len(w.groupPids(&brief)) == 0 })
	if ps := w.gantry("exec", "owner", "ps"); strings.Contains(ps, "sleep 3000") || !strings.Contains(ps, "sleep 2000") || !strings.Contains(ps, "1 root     sleep 1000") {
		t.Errorf("after the end of one that shares these are there:\n%s", ps)
	}
	if n := len(w.groupPids(&guest)); n < 2 {
		t.Errorf("the guest has %d processes", n)
	}
	w.gantry("kill", "owner")
	for _, name := range []string{"owner", "guest"} {
		if e := w.ended(name); e.Code != 137 {
			t.Errorf("%s ended as %+v, want 137", name, e)
		}
	}
	w.until("the guest's cgroup is empty", func() bool { return len(w.groupPids(&guest)) == 0 })
	w.refused(1, "^gantry: .*(owner|not running)", "start", "guest")
	w.gantry("run", "--rm", "--pid", "host", helper(), "busybox", "sh", "-c", "/helper/ill ignorant /bin/sleep 4000 & exit 0")
	w.until("no process is left of who shared the machine's", func() bool { return !w.anyArgs("sleep\x004000") })
	w.over()
}

// anyArgs reports whether one of the engine's processes has these arguments.
func (w *world) anyArgs(args string) bool {
	for _, pid := range w.Pids() {
		if line, _ := os.ReadFile(procFile(pid, "cmdline")); strings.Contains(string(line), args) {
			return true
		}
	}
	return false
}

// TestDiskSleep: a process in D that nothing can wake (it writes to a filesystem
// that is frozen) holds up nobody: stop and rm come back and say so, the rest
// works, and when it wakes its container is gone as it was asked.
func TestDiskSleep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	disk := mountDisk(t)
	w.gantry("run", "-d", "--name", "stuck", "-v", disk+":/disk", "busybox", "sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done; echo x > /disk/file")
	w.gantry("run", "-d", "--name", "other", "busybox", "sleep", "1000")
	thaw := freeze(t, disk)
	w.gantry("exec", "stuck", "touch", "/go")
	d := w.container("stuck")
	w.until("its program sleeps in D", func() bool { return slices.ContainsFunc(w.groupPids(&d), inDiskSleep) })

	stop := w.waits("stop", "-t", "0", "stuck")
	w.until("it is killed", func() bool { return strings.Contains(w.gantry("why", string(d.ID)), "SIGKILL was sent to it") })
	stop.leave()
	remove := w.waits("rm", "-f", "stuck")
	w.gantry("exec", "other", "true")
	w.gantry("run", "--rm", "busybox", "true")
	w.gantry("stop", "-t", "0", "other")
	w.until("ps tells of the removal", func() bool { return strings.Contains(w.gantry("ps", "-a"), "Removal In Progress") })
	if why := w.gantry("why", string(d.ID)); !strings.Contains(why, "is being removed") || !strings.Contains(why, "still ") {
		t.Errorf("why says:\n%s", why)
	}
	remove.tells("was killed and has not ended.*\nhint: .*gantry why")
	remove.leave()
	if !slices.ContainsFunc(w.groupPids(&d), inDiskSleep) {
		t.Error("the program no longer sleeps in D: the test shows nothing")
	}
	thaw()
	w.until("the stuck one is gone", func() bool {
		list, err := w.client.Containers(w.within())
		w.must(err)
		return !slices.ContainsFunc(list, func(c query.Container) bool { return c.Name == "stuck" })
	})
	w.over()
}

// waiting is a command that does not come back by itself.
type waiting struct {
	w     *world
	what  string
	cmd   *exec.Cmd
	lines chan string // of its complaints
}

func (w *world) waits(args ...string) *waiting {
	w.t.Helper()
	p := &waiting{w: w, what: strings.Join(args, " "), cmd: w.CLI(w.within(), args...), lines: make(chan string, 100)}
	complaints, err := p.cmd.StderrPipe()
	w.must(err)
	w.must(p.cmd.Start())
	go func() {
		for lines := bufio.NewScanner(complaints); lines.Scan(); {
			p.lines <- lines.Text()
		}
		close(p.lines)
	}()
	return p
}

// tells waits for a complaint that fits, over two lines.
func (p *waiting) tells(pattern string) {
	p.w.t.Helper()
	fits := regexp.MustCompile(pattern)
	last := ""
	for end := time.After(limit); ; {
		select {
		case line, more := <-p.lines:
			if fits.MatchString(last + "\n" + line) {
				return
			}
			if !more {
				p.w.t.Errorf("gantry %s is at its end and has not said %q, but %q", p.what, pattern, last)
				return
			}
			last = line
		case <-end:
			p.w.t.Errorf("gantry %s never says %q, but %q", p.what, pattern, last)
			return
		}
	}
}

// leave interrupts it: who waits may go at any time.
func (p *waiting) leave() {
	p.w.t.Helper()
	p.w.must(p.cmd.Process.Signal(syscall.SIGINT))
	for range p.lines { // to its end
	}
	var exit *exec.ExitError
	err := p.cmd.Wait()
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT { // 130 in a shell
		p.w.t.Errorf("gantry %s ended with %v when it was interrupted", p.what, err)
	}
}

// TestBorrowedMemory: a process that waits in D for its child is ended by what
// ends all.
func TestBorrowedMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, act := range [][]string{{"stop", "-t", "0"}, {"kill"}, {"pause"}} {
		name := "borrower-" + act[0]
		w.gantry("run", "-d", "--name", name, patient, helper(), "busybox", "/helper/ill", "borrowed")
		d := w.container(name)
		w.until("its program sleeps in D", func() bool { return slices.ContainsFunc(w.groupPids(&d), inDiskSleep) })
		s := w.call(append(act, name)...)
		if act[0] == "pause" {
			t.Logf("pause of one in D: code %d after %v: %s", s.code, s.took, s.stderr) // it may fail, not wait for ever
			s = w.call("stop", "-t", "0", name)
		}
		if s.code != 0 {
			t.Errorf("%v: code %d after %v: %s", act, s.code, s.took, s.stderr)
		}
		if e := w.ended(name); e.Code != 137 || e.Lost {
			t.Errorf("%v: it ended as %+v, want 137", act, e)
		}
	}
	w.over()
}

func inDiskSleep(pid int) bool {
	text, _ := os.ReadFile(procFile(pid, "stat")) // it may be gone
	_, after, ok := strings.Cut(string(text), ") ")
	return ok && strings.HasPrefix(after, "D")
}

// mountDisk mounts a filesystem of its own that can be frozen.
func mountDisk(t *testing.T) string {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "mounted")
	for _, args := range [][]string{
		{"truncate", "-s", "16M", image}, {"mkfs.ext4", "-q", "-F", "-O", "^has_journal", image},
		{"mkdir", dir}, {"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the disk: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH) // second best
		}
	})
	return dir
}

// freeze stops all writes to a filesystem until it is thawed.
func freeze(t *testing.T, dir string) (thaw func()) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	const fiFreeze, fiThaw = 0xc0045877, 0xc0045878 // linux/fs.h
	if err := unix.IoctlSetInt(int(f.Fd()), fiFreeze, 0); err != nil {
		t.Fatalf("freeze %s: %v", dir, err)
	}
	thawed := false
	thaw = func() {
		if !thawed {
			thawed = true
			if err := unix.IoctlSetInt(int(f.Fd()), fiThaw, 0); err != nil {
				t.Errorf("thaw %s: %v", dir, err)
			}
			_ = f.Close() // it was only asked
		}
	}
	t.Cleanup(thaw)
	return thaw
}

// TestShimKilled: a shim that is killed by force takes its whole container along,
// whatever that has done to itself, and the cause is told.
func TestShimKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for name, program := range map[string][]string{
		"plain":  {"sh", "-c", "sleep 1001 & sleep 1000"},
		"undead": {"/helper/ill", "undying", "/bin/sh", "-c", "/helper/ill ignorant /bin/sleep 1001 & while true; do sleep 1000; done"},
	} {
		for _, pid := range []string{"", "host"} {
			full := name + pid
			w.gantry(append([]string{"run", "-d", "--name", full, "--pid", pid, helper(), "busybox"}, program...)...)
			d := w.container(full)
			w.until("it has all its processes", func() bool { return len(w.groupPids(&d)) >= 2 })
			shim := w.shimOf(&d)
			w.must(syscall.Kill(shim, syscall.SIGKILL))
			w.lost(full, &d, 137)
		}
	}
	w.over()
}

// shimOf is the parent of a container's first process.
func (w *world) shimOf(d *query.ContainerDetail) int {
	w.t.Helper()
	text, err := os.ReadFile(procFile(d.PID, "status"))
	w.must(err)
	_, after, _ := strings.Cut(string(text), "\nPPid:")
	pid, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]))
	w.must(err)
	if !slices.Contains(w.ShimPids(), pid) {
		w.t.Fatalf("the parent %d of %d is no shim: %v", pid, d.PID, w.ShimPids())
	}
	return pid
}

// lost waits for the end, with one of these codes, of a container whose shim is gone.
func (w *world) lost(name string, d *query.ContainerDetail, codes ...int) int {
	w.t.Helper()
	e := w.ended(name)
	if !e.Lost || !slices.Contains(codes, e.Code) || !strings.HasPrefix(e.Reason, "shim lost") {
		w.t.Errorf("%s ended as %+v, want %d and shim lost", name, e, codes)
	}
	w.until("nothing of it runs", func() bool { return len(w.groupPids(d)) == 0 })
	if s := w.gantry("inspect", "-f", "{{.State.Error}}", name); !strings.Contains(s, "shim lost") {
		w.t.Errorf("inspect of %s does not tell the cause: %q", name, s)
	}
	if s := w.gantry("log", "--container", name); !strings.Contains(s, "shim lost") {
		w.t.Errorf("the log of %s does not tell the cause:\n%s", name, s)
	}
	return e.Code
}

// TestShimKilledWithoutDriver: the driver, or the engine with all drivers, is dead
// when the shim is killed; whoever comes next finds it out.
func TestShimKilledWithoutDriver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	run := func(name string) query.ContainerDetail {
		w.gantry("run", "-d", "--name", name, helper(), "busybox", "/helper/ill", "undying", "/bin/sh", "-c",
			"/helper/ill ignorant /bin/sleep 1001 & while true; do sleep 1000; done")
		d := w.container(name)
		w.until("it has all its processes", func() bool { return len(w.groupPids(&d)) >= 2 })
		return d
	}
	d := run("driverless")
	shim := w.shimOf(&d)
	w.signalDriver(syscall.SIGSTOP) // so that it cannot see it
	w.must(syscall.Kill(shim, syscall.SIGKILL))
	w.signalDriver(syscall.SIGKILL)
	w.lost("driverless", &d, 137)

	d = run("engineless")
	shim = w.shimOf(&d)
	w.pulse.end()
	w.must(w.Kill())
	w.signalDriver(syscall.SIGKILL)
	w.must(syscall.Kill(shim, syscall.SIGKILL))
	w.must(w.Start())
	w.connect()
	w.pulse = watch(t, w.Engine)
	w.lost("engineless", &d, 137)
	w.over()
}

// signalDriver sends a signal to all processes of the driver: what it has just made
// may have gone by then, and the driver with its host.
func (w *world) signalDriver(s syscall.Signal) {
	w.t.Helper()
	for _, pid := range w.DriverPids("exec-native") {
		if err := syscall.Kill(pid, s); !errors.Is(err, syscall.ESRCH) {
			w.must(err)
		}
	}
}

// TestTrueCode: the code of a program whose shim was killed before it could tell is
// known by the pidfd that the driver holds.
func TestTrueCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.gantry("run", "-d", "--name", "honest", "busybox", "sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done; exit 7")
	d := w.container("honest")
	shim := w.shimOf(&d)
	w.must(syscall.Kill(shim, syscall.SIGSTOP)) // it will not tell
	w.must(os.WriteFile(procFile(d.PID, "root/go"), nil, 0o600))
	w.until("the program has ended", func() bool {
		text, err := os.ReadFile(procFile(d.PID, "stat"))
		return err != nil || strings.Contains(string(text), ") Z ")
	})
	w.must(syscall.Kill(shim, syscall.SIGKILL))
	codes := []int{7}
	if !keepsStatus(t) {
		codes = append(codes, 137) // if whoever takes the dead in was quicker than the driver
	}
	code := w.lost("honest", &d, codes...)
	w.over()
	if code == 137 {
		t.Skip("Linux keeps no status of what has been reaped (6.15 does)")
	}
}

// keepsStatus reports whether a pidfd tells how a process ended that somebody
// else has reaped (PIDFD_INFO_EXIT, Linux 6.15).
func keepsStatus(t *testing.T) bool {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(release), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 6 || major == 6 && minor >= 15
}
