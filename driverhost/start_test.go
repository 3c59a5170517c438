package driverhost

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
)

// A driver that does not start is told with its own last word, in a sentence.
func TestDoesNotStart(t *testing.T) {
	for mode, words := range map[string][]string{
		"failing":      {"exit status 1", "open the driver: the moon is full"},
		"crashing":     {"exit status 2", "panic: all is lost"},
		"mute":         {"does not shake hands in time", "thinking"},
		"garbage":      {"does not speak", "hello, I am no driver"},
		"hung-info":    {"ask who it is"},
		"misnamed":     {`it says that it is driver "other"`},
		"hung-list":    {"ask for what it holds"},
		"failing-list": {"the book is burnt"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			var r *rig
			f := patiently(mode, words, func(start time.Duration) bus.Finish {
				r = newRig(t, "gantry-net-fake")
				r.p.start = start
				r.begin()
				r.be("net/fake", mode)
				return r.run(r.network("ok"))
			})
			r.fails(f, "unavailable", append(words, "start driver net/fake", r.bin)...)
			if f.Instance != "" {
				t.Errorf("an instance that never served: %q", f.Instance)
			}
			if left := r.host.cage.pids("net-fake.0"); len(left) != 0 {
				t.Errorf("processes are left: %v", left)
			}
			r.host.patience.start = quick().start
			r.be("net/fake", "")
			r.good(r.network("ok"))
		})
	}
}

// patiently starts a driver that hangs with little patience, and with more if it did
// not come so far as to hang there: the machine is slow. Any other has all the time.
func patiently(mode string, words []string, try func(start time.Duration) bus.Finish) bus.Finish {
	if mode != "mute" && !strings.HasPrefix(mode, "hung") {
		return try(quick().start)
	}
	for start := 2 * time.Second; ; start *= 2 {
		f := try(start)
		hung := f.Error != nil
		for _, w := range words {
			hung = hung && strings.Contains(f.Error.Message, w)
		}
		if hung || start > 10*time.Second {
			return f
		}
	}
}

func TestNotExecutable(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(r.bin, "gantry-net-fake")
	if err := os.MkdirAll(r.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.begin()
	r.bad(r.network("ok"), "unavailable", path, "exec format error")
}

// A driver that ends again and again is started less and less often; steps do
// not hang meanwhile, and say why.
func TestBackoff(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	r.be("net/fake", "failing")
	for range 11 {
		r.bad(r.network("ok"), "unavailable", "the moon is full")
	}
	r.until("a step that does not wait for its return", func() bool {
		r.bus.mu.Unlock()
		defer r.bus.mu.Lock()
		f := r.bad(r.network("ok"), "unavailable", "the moon is full")
		return strings.Contains(f.Error.Message, "it is tried again in")
	})
	if n := r.noted("net/fake", "starts"); n < 3 {
		t.Errorf("it was started %d times", n)
	}
	r.be("net/fake", "")
	r.until("its return", func() bool {
		r.bus.mu.Unlock()
		defer r.bus.mu.Lock()
		time.Sleep(50 * time.Millisecond)
		return r.run(r.network("ok")).Error == nil
	})
}

func TestPauseBounded(t *testing.T) {
	p := usual()
	if p.pauseAfter(1) != 0 || p.pauseAfter(2) != p.backoff || p.pauseAfter(3) != 2*p.backoff || p.pauseAfter(1000) != p.longest {
		t.Error(p.pauseAfter(1), p.pauseAfter(2), p.pauseAfter(3), p.pauseAfter(1000))
	}
}

// A flood on stderr neither stops the driver nor fills the log.
func TestFlood(t *testing.T) {
	r := newRig(t, "gantry-net-fake").begin()
	r.be("net/fake", "flooding")
	r.good(r.network("ok"))
	r.until("the end of the flood", func() bool { return strings.Contains(r.log.String(), "lines_dropped") })
	out := r.log.String()
	if n := strings.Count(out, "\n"); n < 100 || n > 2000 || !strings.Contains(out, "lines_dropped") || len(out) > 200_000 {
		t.Errorf("%d lines of log, %d bytes", n, len(out))
	}
}

// status reads a line of /proc/PID/status.
func status(t *testing.T, pid int, key string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func TestConfined(t *testing.T) {
	t.Setenv("SECRET_OF_THE_HOST", "x")
	r := newRig(t, "gantry-net-null", "gantry-net-fake", "gantry-exec-fake").begin()
	mine := status(t, os.Getpid(), "CapBnd")
	for id, want := range map[string]func(uint64) bool{
		"net/null": func(c uint64) bool { return c == 0 },
		"net/fake": func(c uint64) bool {
			return c&(1<<unix.CAP_NET_ADMIN) != 0 && c&(1<<unix.CAP_SYS_MODULE|1<<unix.CAP_SYS_BOOT|1<<unix.CAP_SETUID) == 0
		},
		"exec/fake": func(c uint64) bool { return fmt.Sprintf("%016x", c) == mine },
	} {
		st := core.Step(&core.CreateNetwork{Name: "ok"})
		if id == "exec/fake" {
			st = &core.ReleaseProcess{Container: "c", Run: 1}
		}
		r.good(r.step(id, st))
		pid := r.pid()
		for _, set := range []string{"CapBnd", "CapPrm", "CapEff"} {
			c, err := strconv.ParseUint(status(t, pid, set), 16, 64)
			if err != nil || !want(c) {
				t.Errorf("%s: %s is %016x", id, set, c)
			}
		}
		if id != "exec/fake" && (status(t, pid, "CapInh") != strings.Repeat("0", 16) || status(t, pid, "CapAmb") != strings.Repeat("0", 16)) {
			t.Errorf("%s inherits capabilities", id)
		}
		checkSurroundings(t, r, id, pid)
	}
	if status(t, os.Getpid(), "CapBnd") != mine {
		t.Error("the host has lost capabilities of its own")
	}
}

// checkSurroundings: own environment, stdin, session, and sockets in a directory
// of mode 0700.
func checkSurroundings(t *testing.T, r *rig, id string, pid int) {
	t.Helper()
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for v := range strings.SplitSeq(strings.Trim(string(environ), "\x00"), "\x00") {
		name, _, _ := strings.Cut(v, "=")
		if name != "PATH" && !strings.HasPrefix(name, "GANTRY_") && !strings.HasPrefix(name, "PLUGIN_") {
			t.Errorf("%s has the variable %s", id, v)
		}
	}
	if in, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", pid)); err != nil || in != os.DevNull {
		t.Errorf("%s reads %s, %v", id, in, err)
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("%s is in session %d, %v", id, sid, err)
	}
	dir := filepath.Join(r.o.Config.Run, strings.ReplaceAll(id, "/", "-"), "plugin.0")
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Fatalf("%v, %v", st, err)
	}
	sockets, _ := filepath.Glob(filepath.Join(dir, "plugin[0-9]*"))
	if len(sockets) != 1 {
		t.Errorf("%s has its sockets elsewhere: %v", id, sockets)
	}
}

// A second host cannot start an instance while a process of the first one's
// holds the lock.
func TestFence(t *testing.T) {
	r := newRig(t, "gantry-net-fake")
	r.p.fence = 300 * time.Millisecond
	r.begin()
	dir := filepath.Join(r.o.Config.Run, "net-fake")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	holder := exec.Command("flock", filepath.Join(dir, "lock.1"), "sleep", "100")
	holder.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { _ = unix.Kill(-holder.Process.Pid, unix.SIGKILL); _ = holder.Wait() }
	defer kill()
	r.until("the lock in other hands", func() bool { return locked(t, filepath.Join(dir, "lock.1")) })
	r.bad(r.network("ok"), "unavailable", "an earlier instance of driver net/fake does not end", "holds its lock")
	if r.noted("net/fake", "starts") != 0 {
		t.Error("it was started all the same")
	}
	kill()
	r.until("its start", func() bool {
		r.bus.mu.Unlock()
		defer r.bus.mu.Lock()
		return r.run(r.network("ok")).Error == nil
	})
}

// locked reports whether somebody else has the lock of a file.
func locked(t *testing.T, path string) bool {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// loneHost is a host in a process of its own; its driver's pid is told on stdout.
func loneHost() {
	b := &fakeBus{handlers: map[string]bus.StepHandlers{}}
	o := options(os.Args[1], filepath.Base(os.Args[1]), b, slog.New(slog.DiscardHandler))
	h, err := Start(o)
	if err != nil {
		fmt.Println(err)
		return
	}
	h.Need("net", "fake", "")
	for {
		time.Sleep(5 * time.Millisecond)
		b.mu.Lock()
		all := b.drivers(false)
		b.mu.Unlock()
		if len(all) > 0 {
			fmt.Println(all[0].PID)
			time.Sleep(time.Hour)
		}
	}
}

// A driver outlives a host that is killed; the next host ends it before anything.
func TestHostKilled(t *testing.T) {
	r := newRig(t, "gantry-net-fake")
	lone := exec.Command(r.program("other", "lone-host"), filepath.Dir(r.bin))
	out, err := lone.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := lone.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscan(out, &pid)
	_ = lone.Process.Kill()
	_ = lone.Wait()
	if err != nil || !alive(pid) {
		t.Fatalf("the driver %d: %v", pid, err)
	}
	time.Sleep(100 * time.Millisecond)
	if !alive(pid) {
		t.Fatal("the driver died with its host: nothing is to be proved")
	}
	r.begin()
	for end := time.Now().Add(20 * time.Second); alive(pid) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if alive(pid) {
		t.Error("the driver of the killed host lives on")
	}
	r.good(r.network("ok"))
}
