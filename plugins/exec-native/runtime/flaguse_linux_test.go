package runtime

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

// TestExecMoreFlags: those of exec that are about rights, a pause and a terminal.
func TestExecMoreFlags(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.spec.Process.NoNewPrivileges = false
	b.start()
	for flag, want := range map[string]string{"": "NoNewPrivs:\t0\n", "--no-new-privs": "NoNewPrivs:\t1\n"} {
		args := []string{"exec", b.id, "/bin/grep", "NoNewPrivs", "/proc/self/status"}
		if flag != "" {
			args = append([]string{"exec", flag}, args[1:]...)
		}
		if o := b.do(args...); o.out != want {
			t.Errorf("%q: %+v", flag, o)
		}
	}
	for _, flag := range []string{"--apparmor", "--process-label"} {
		if o := b.do("exec", flag, "some", b.id, "/bin/true"); o.code != execCode || !strings.Contains(o.err, `"some"`) {
			t.Errorf("%s: %+v", flag, o)
		}
	}
	path := filepath.Join(t.TempDir(), "console")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() { got <- readConsole(l) }()
	b.must("exec", "--tty", "--detach", "--console-socket", path, b.id, "/bin/tty")
	if out := <-got; !strings.Contains(out, "/dev/pts/") {
		t.Errorf("terminal: %q", out)
	}
	b.must("pause", b.id)
	ended := make(chan outcome, 1)
	go func() { ended <- b.do("exec", "--ignore-paused", b.id, "/bin/echo", "late") }()
	select {
	case o := <-ended:
		t.Errorf("a program ran in a paused container: %+v", o)
	case <-time.After(300 * time.Millisecond):
	}
	b.must("resume", b.id)
	if o := <-ended; o.out != "late\n" {
		t.Errorf("%+v", o)
	}
}

// TestKeyring: a session keyring of the container's own, unless it is not wanted.
func TestKeyring(t *testing.T) {
	for flag, want := range map[string]bool{"": true, "--no-new-keyring": false} {
		b := newBox(t, "cat /proc/keys")
		b.spec.Linux.MaskedPaths, b.spec.Process.User.UID = nil, 0
		var flags []string
		if flag != "" {
			flags = []string{flag}
		}
		if o := b.run(flags...); strings.Contains(o.out, "_ses."+b.id+":") != want {
			t.Errorf("%q: %+v", flag, o)
		}
	}
}

// TestTelling: what the commands that tell something tell.
func TestTelling(t *testing.T) {
	b := newBox(t, "sleep 100 & sleep 100 & wait")
	b.start()
	pid := strconv.Itoa(b.state().PID)
	var list []struct {
		ID, Status, Bundle string
		PID                int
	}
	if err := json.Unmarshal([]byte(b.must("list", "--format", "json")), &list); err != nil || len(list) != 1 || list[0].ID != b.id || strconv.Itoa(list[0].PID) != pid {
		t.Errorf("list: %+v %v", list, err)
	}
	if out := b.must("list"); !strings.HasPrefix(out, "ID ") || !strings.Contains(out, b.id) {
		t.Errorf("list: %s", out)
	}
	if out := b.must("ps", b.id); !strings.Contains(out, pid) || strings.Count(out, "sleep") < 2 {
		t.Errorf("ps: %s", out)
	}
	if out := b.must("ps", b.id, "-o", "pid,comm"); !strings.Contains(out, "COMMAND") || !strings.Contains(out, pid) {
		t.Errorf("ps -o: %s", out)
	}
	var f features.Features
	if err := json.Unmarshal([]byte(b.must("features")), &f); err != nil || f.OCIVersionMax != specs.Version || len(f.Hooks) != 6 {
		t.Errorf("features: %+v %v", f, err)
	}
	log := filepath.Join(t.TempDir(), "log")
	b.do("--log", log, "--log-format", "json", "state", "nosuch")
	var line struct{ Level, Msg, Time string }
	text, _ := os.ReadFile(log)
	if err := json.Unmarshal(text, &line); err != nil || line.Level != "error" || !strings.Contains(line.Msg, "does not exist") || line.Time == "" {
		t.Errorf("log: %s %v", text, err)
	}
	for _, flags := range [][]string{{"--rootless", "maybe"}, {"--log-format", "xml"}} {
		if o := b.do(append(flags, "list")...); o.code != exitUsage || !strings.Contains(o.err, flags[1]) {
			t.Errorf("%v: %+v", flags, o)
		}
	}
	dir := t.TempDir()
	b.must("spec", "--bundle", dir)
	if o := b.do("spec", "--bundle", dir); o.code != exitFailed || !strings.Contains(o.err, "exists") {
		t.Errorf("a second spec: %+v", o)
	}
	b.must("kill", "--all", b.id, "KILL")
	b.awaitStatus(specs.StateStopped)
}

// TestEventsStream: figures at an interval, until the container has ended.
func TestEventsStream(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.start()
	cmd := b.command("events", "--interval", "50ms", b.id)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	lines := bufio.NewScanner(out)
	for n := range 3 {
		if !lines.Scan() || !strings.Contains(lines.Text(), `"stats"`) {
			t.Fatalf("figures %d: %q %v", n, lines.Text(), lines.Err())
		}
	}
	b.must("kill", b.id, "KILL")
	for lines.Scan() { // to its end, which is the container's
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestRunFlags: --keep leaves the container there, --detach its program running.
func TestRunFlags(t *testing.T) {
	subreaper(t)
	b := newBox(t, "sleep 100")
	b.write()
	pidFile := filepath.Join(t.TempDir(), "pid")
	b.must("run", "--detach", "--pid-file", pidFile, "--bundle", b.bundle, b.id)
	text, _ := os.ReadFile(pidFile)
	if st := b.state(); st.Status != specs.StateRunning || strconv.Itoa(st.PID) != string(text) {
		t.Errorf("%+v, pid file %s", st, text)
	}
	b.must("delete", "--force", b.id)
	var status unix.WaitStatus
	pid, _ := strconv.Atoi(string(text))
	_, _ = unix.Wait4(pid, &status, 0, nil)
	b.spec.Process.Args = []string{"/bin/true"}
	b.write()
	b.must("run", "--keep", "--bundle", b.bundle, b.id)
	if st := b.state(); st.Status != specs.StateStopped {
		t.Errorf("%+v", st)
	}
}

// TestUpdateFlags sees each limit that update sets where the host has it.
func TestUpdateFlags(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.start()
	at := map[string]string{} // controller -> directory
	for line := range strings.Lines(proc("cgroup")(t, b.state().PID)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 {
			at[f[1]] = filepath.Join("/sys/fs/cgroup", f[1], f[2])
		}
	}
	if at["memory"] == "" || at["cpu"] == "" {
		t.Skip("the files that are looked at are of cgroup version 1, which is not here")
	}
	for _, c := range []struct{ args, controller, file, want string }{
		{"--memory 64m --memory-swap 96m", "memory", "memory.limit_in_bytes", "67108864"},
		{"--memory-swap 128m", "memory", "memory.memsw.limit_in_bytes", "134217728"},
		{"--memory-reservation 32m", "memory", "memory.soft_limit_in_bytes", "33554432"},
		{"--pids-limit 77", "pids", "pids.max", "77"},
		{"--cpu-share 512", "cpu", "cpu.shares", "512"},
		{"--cpu-period 50000 --cpu-quota 25000", "cpu", "cpu.cfs_quota_us", "25000"},
		{"--cpu-quota -1", "cpu", "cpu.cfs_quota_us", "-1"},
		{"--cpuset-cpus 0", "cpuset", "cpuset.cpus", "0"},
		{"--cpuset-mems 0", "cpuset", "cpuset.mems", "0"},
		{"--kernel-memory-tcp 1m", "memory", "memory.kmem.tcp.limit_in_bytes", "1048576"},
		{"--cpu-rt-period 500000", "cpu", "cpu.rt_period_us", "500000"},
		{"--cpu-rt-runtime 1000", "cpu", "cpu.rt_runtime_us", "1000"},
		{"--cpu-idle 1", "cpu", "cpu.idle", "1"},
		{"--cpu-burst 1000", "cpu", "cpu.cfs_burst_us", "1000"},
	} {
		file := filepath.Join(at[c.controller], c.file)
		if _, err := os.Stat(file); err != nil {
			t.Logf("%s: this kernel has no %s", c.args, c.file)
			continue
		}
		if c.file == "cpu.cfs_burst_us" { // no more than the quota, which must be there
			b.must("update", "--cpu-quota", "25000", b.id)
		}
		if o := b.do(append(append([]string{"update"}, strings.Fields(c.args)...), b.id)...); o.code != 0 {
			t.Errorf("update %s: %+v", c.args, o)
		}
		if text, err := os.ReadFile(file); strings.TrimSpace(string(text)) != c.want {
			t.Errorf("update %s: %s is %s %v, want %s", c.args, c.file, text, err, c.want)
		}
	}
}

// flagTests names for each command and flag the test that uses it.
func flagTests() map[string]string {
	return map[string]string{
		"bundle": "TestLife", "console-socket": "TestConsoleSocket", "pid-file": "TestRunFlags", "no-pivot": "TestNoPivot",
		"no-new-keyring": "TestKeyring", "preserve-fds": "TestPreserveFDs", "no-subreaper": "TestNoEffect", "detach": "TestRunFlags", "keep": "TestRunFlags",
		"exec process": "TestExec", "exec tty": "TestExecMoreFlags", "exec user": "TestExec", "exec additional-gids": "TestExec", "exec env": "TestExec",
		"exec cwd": "TestExec", "exec cap": "TestExec", "exec no-new-privs": "TestExecMoreFlags", "exec apparmor": "TestExecMoreFlags",
		"exec process-label": "TestExecMoreFlags", "exec pid-file": "TestExec", "exec detach": "TestExec", "exec console-socket": "TestExecMoreFlags",
		"exec cgroup": "TestExecCgroup", "exec ignore-paused": "TestExecMoreFlags",
		"kill all": "TestTelling", "delete force": "TestLife", "ps format": "TestLife", "list format": "TestTelling", "list quiet": "TestLife",
		"events stats": "TestUpdateAndEvents", "events interval": "TestEventsStream", "spec bundle": "TestTelling", "spec rootless": "TestRootless",
		"update resources": "TestUpdateAndEvents", "update blkio-weight": "TestUpdateAndEvents", "update kernel-memory": "TestUpdateAndEvents",
		"update l3-cache-schema": "TestUpdateAndEvents", "update mem-bw-schema": "TestUpdateAndEvents",
		"update": "TestUpdateFlags", // all others
	}
}

// TestEveryFlagIsSeen holds each flag to its test.
func TestEveryFlagIsSeen(t *testing.T) {
	b, all := newBox(t, "true"), flagTests()
	for _, c := range commands() {
		if c.name == "checkpoint" || c.name == "restore" {
			continue
		}
		for _, f := range longFlags(b.do(c.name, "--help").out, "-") {
			test := all[c.name+" "+f]
			if test == "" {
				test = all[f]
			}
			if test == "" {
				test = all[c.name]
			}
			if test == "" || !hasTest(t, test) {
				t.Errorf("%s --%s: no test uses it: %q", c.name, f, test)
			}
		}
	}
}

// TestNoEffect: a flag that changes nothing here is taken, commands that are not
// served are refused by their name.
func TestNoEffect(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.write()
	b.must("run", "--no-subreaper", "--detach", "--bundle", b.bundle, b.id)
	b.must("exec", "--no-subreaper", b.id, "/bin/true")
	for _, c := range []string{"checkpoint", "restore"} {
		if o := b.do(c, b.id); o.code == 0 || !strings.Contains(o.err, c) {
			t.Errorf("%s: %+v", c, o)
		}
	}
}
