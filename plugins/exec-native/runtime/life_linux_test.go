package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestLife takes a container through its states, and looks at them from outside.
func TestLife(t *testing.T) {
	subreaper(t)
	b := newBox(t, `trap "exit 5" TERM; while :; do sleep 0.02; done`)
	b.write()
	pidFile := t.TempDir() + "/pid"
	b.must("create", "--bundle", b.bundle, "--pid-file", pidFile, b.id)
	s := b.state()
	text, _ := os.ReadFile(pidFile)
	if s.Status != specs.StateCreated || strconv.Itoa(s.PID) != string(text) || s.Bundle != b.bundle || s.ID != b.id {
		t.Fatalf("after create: %+v, pid file %q", s, text)
	}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID)); err != nil || strings.Fields(string(stat))[3] != strconv.Itoa(os.Getpid()) {
		t.Errorf("the init is not this subreaper's child: %s %v", stat, err)
	}
	if o := b.do("create", "--bundle", b.bundle, b.id); o.code != 1 || !strings.Contains(o.err, "already exists") {
		t.Errorf("a second create: %+v", o)
	}
	if o := b.do("delete", b.id); o.code != 1 || !strings.Contains(o.err, "not stopped") {
		t.Errorf("delete of a created container: %+v", o)
	}
	b.must("start", b.id)
	if o := b.do("start", b.id); o.code != 1 || !strings.Contains(o.err, "already running") {
		t.Errorf("a second start: %+v", o)
	}
	if st := b.state().Status; st != specs.StateRunning {
		t.Errorf("status %s after start", st)
	}
	b.must("pause", b.id)
	if st := b.state().Status; st != statusPaused {
		t.Errorf("status %s after pause", st)
	}
	if o := b.do("exec", b.id, "/bin/true"); o.code != execCode || !strings.Contains(o.err, "paused") {
		t.Errorf("exec in a paused container: %+v", o)
	}
	b.must("resume", b.id)
	var pids []int
	if err := json.Unmarshal([]byte(b.must("ps", "--format", "json", b.id)), &pids); err != nil || len(pids) == 0 || pids[0] != s.PID {
		t.Errorf("ps: %v %v, init %d", pids, err, s.PID)
	}
	if out := b.must("list", "-q"); strings.TrimSpace(out) != b.id {
		t.Errorf("list: %q", out)
	}
	awaitCaught(t, s.PID, unix.SIGTERM)
	b.must("kill", b.id, "TERM")
	var status unix.WaitStatus
	if _, err := unix.Wait4(s.PID, &status, unix.WNOWAIT, nil); err == nil && b.state().Status != specs.StateStopped {
		t.Error("a zombie counts as running")
	}
	b.awaitStatus(specs.StateStopped)
	if _, err := unix.Wait4(s.PID, &status, 0, nil); err != nil || status.ExitStatus() != 5 {
		t.Errorf("the exit that its parent gets: %v %v", status.ExitStatus(), err)
	}
	if o := b.do("kill", b.id, "TERM"); o.code != 1 || !strings.Contains(o.err, "not running") {
		t.Errorf("kill of a stopped container: %+v", o)
	}
	b.must("delete", b.id)
	if o := b.do("state", b.id); o.code != 1 || !strings.Contains(o.err, "does not exist") {
		t.Errorf("state after delete: %+v", o)
	}
	b.must("delete", "--force", b.id)
}

// awaitCaught waits until a process has a handler for a signal: without one the first
// of a container does not hear it.
func awaitCaught(t *testing.T, pid int, signal unix.Signal) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		_, rest, _ := strings.Cut(proc("status")(t, pid), "SigCgt:")
		word, _, _ := strings.Cut(rest, "\n")
		if caught, _ := strconv.ParseUint(strings.TrimSpace(word), 16, 64); caught&(1<<(signal-1)) != 0 {
			return
		}
	}
	t.Fatalf("process %d does not catch signal %d", pid, signal)
}

// TestExec joins a running container.
func TestExec(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.spec.Process.Env = append(b.spec.Process.Env, "OF=spec")
	b.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(50))}
	b.start()
	pid := b.state().PID
	o := b.do("exec", "--env", "MORE=1", "--cwd", "/tmp", "--user", "7:8", "--additional-gids", "9", "--cap", "CAP_CHOWN", b.id, "/bin/sh", "-c",
		`for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done; echo $OF$MORE; pwd; id; grep -i capbnd /proc/self/status; ls /proc/self/fd | wc -l; exit 6`)
	if o.code != 6 {
		t.Fatalf("%+v", o)
	}
	lines := strings.Split(o.out, "\n")
	for i, n := range []string{"pid", "net", "ipc", "uts", "mnt", "cgroup"} {
		if want, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, n)); lines[i] != want {
			t.Errorf("namespace %s: %s, the init's is %s", n, lines[i], want)
		}
	}
	for i, want := range []string{"spec1", "/tmp", "uid=7 gid=8 groups=9"} {
		if lines[6+i] != want {
			t.Errorf("line %d: %q, want %q", i, lines[6+i], want)
		}
	}
	if !strings.HasSuffix(lines[9], "20000421") { // with CAP_CHOWN
		t.Errorf("capabilities: %s", lines[9])
	}
	if lines[10] != "4" { // 0, 1, 2 and the listing's own
		t.Errorf("descriptors: %s", lines[10])
	}
	for args, code := range map[string]int{"/bin/true": 0, "/nosuch": execCode, "nosuch": execCode, "/etc": execCode} {
		if o := b.do("exec", b.id, args); o.code != code {
			t.Errorf("exec %s: %+v, want %d", args, o, code)
		}
	}
	if o := b.do("exec", b.id, "/bin/sh", "-c", "kill -9 $$"); o.code != 137 {
		t.Errorf("killed: %+v", o)
	}
	process := t.TempDir() + "/process.json"
	text, _ := json.Marshal(specs.Process{Args: []string{"/bin/sh", "-c", "echo $A; id -u"}, Cwd: "/", Env: []string{"A=file", "PATH=/bin"}, User: specs.User{UID: 3}})
	if err := os.WriteFile(process, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if o := b.do("exec", "--process", process, b.id); o.out != "file\n3\n" {
		t.Errorf("process from a file: %+v", o)
	}
	pidFile := t.TempDir() + "/pid"
	b.must("exec", "--detach", "--pid-file", pidFile, b.id, "/bin/sleep", "50")
	one, _ := os.ReadFile(pidFile)
	var pids []int
	if o := b.do("exec", "--detach", "--pid-file", "/nosuch/pid", b.id, "/bin/sleep", "51"); o.code != execCode || !strings.Contains(o.err, "pid file") {
		t.Errorf("a pid file that cannot be: %+v", o)
	}
	if err := json.Unmarshal([]byte(b.must("ps", "--format", "json", b.id)), &pids); err != nil || len(pids) != 2 {
		t.Errorf("what ran without its pid file runs on: %v %v", pids, err)
	}
	group, _ := os.ReadFile(fmt.Sprintf("/proc/%s/cgroup", one))
	if !strings.Contains(string(group), b.id) {
		t.Errorf("the detached program's cgroup: %s", group)
	}
}

func ptr[T any](v T) *T { return &v }

// TestUpdateAndEvents changes limits while the container runs, and reads figures.
func TestUpdateAndEvents(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.start()
	b.must("update", "--memory", "64m", "--pids-limit", "33", b.id)
	var e event
	if err := json.Unmarshal([]byte(b.must("events", "--stats", b.id)), &e); err != nil {
		t.Fatal(err)
	}
	if e.Type != "stats" || e.ID != b.id || e.Data.Memory.Usage.Limit != 64<<20 || e.Data.Pids.Limit != 33 || e.Data.Pids.Current == 0 {
		t.Errorf("%+v", e.Data)
	}
	file := t.TempDir() + "/r.json"
	if err := os.WriteFile(file, []byte(`{"pids":{"limit":44}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.must("update", "-r", file, b.id)
	if err := json.Unmarshal([]byte(b.must("events", "--stats", b.id)), &e); err != nil || e.Data.Pids.Limit != 44 {
		t.Errorf("%+v %v", e.Data, err)
	}
	for _, args := range [][]string{
		{"--memory", "x"}, {"--memory", "9999999t"}, {"--kernel-memory", "1m"}, {"--memory", "1g", "extra"},
		{"--blkio-weight", "65546"}, {"--blkio-weight", "-5"}, {"--cpu-share", "-1"}, {"--cpu-period", "5k"}, {"--pids-limit", "1m"},
		{"--l3-cache-schema", "L3:0=f"}, {"--mem-bw-schema", "MB:0=20"},
	} {
		o := b.do(append(append([]string{"update"}, args...), b.id)...)
		if o.code == 0 || !strings.Contains(o.err, strings.TrimPrefix(args[0], "--")) && len(args) == 2 && args[0] != "--kernel-memory" {
			t.Errorf("update %v: %+v", args, o)
		}
	}
}

// TestEnvironment: of several values of a variable the last is the program's, and it
// has a home.
func TestEnvironment(t *testing.T) {
	b := newBox(t, "env; echo end; sleep 100")
	if err := os.WriteFile(b.bundle+"/rootfs/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:7:7::/home/user:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.spec.Process.Env = []string{"PATH=/nosuch", "A=1", "B=2", "A=3", "PATH=/bin"}
	inside := b.start()
	awaitText(t, inside, "end\n")
	text, _ := os.ReadFile(inside)
	exec := b.must("exec", "--user", "7", "--env", "B=4", "--env", "C=5", "--env", "C=6", b.id, "env")
	for where, c := range map[string]struct{ got, want string }{
		"first": {strings.TrimSuffix(string(text), "end\n"), "A=3 B=2 HOME=/root PATH=/bin"}, "exec": {exec, "A=3 B=4 C=6 HOME=/home/user PATH=/bin"},
	} {
		var lines []string
		for _, line := range strings.Fields(c.got) {
			if !strings.HasPrefix(line, "PWD=") && !strings.HasPrefix(line, "SHLVL=") { // of the shell
				lines = append(lines, line)
			}
		}
		slices.Sort(lines)
		if got := strings.Join(lines, " "); got != c.want {
			t.Errorf("%s: %s, want %s", where, got, c.want)
		}
	}
}

// TestPlaces: places in the container may be spelled otherwise, those that are none
// are refused by name.
func TestPlaces(t *testing.T) {
	for _, dev := range []string{"/dev/", "dev", "/dev/../dev", "//dev"} {
		b := newBox(t, "test -c /dev/null && test -d /dev/shm && ls /dev | wc -l; cat /proc/keys")
		for i, m := range b.spec.Mounts {
			if m.Destination == "/dev" {
				b.spec.Mounts[i].Destination = dev
			}
		}
		b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev//null", Type: "c", Major: 1, Minor: 3}, {Path: "dev/extra", Type: "c", Major: 1, Minor: 5}}
		if o := b.run(); o.out != "16\n" || o.err != "" {
			t.Errorf("%s: %+v", dev, o)
		}
		if left, _ := os.ReadDir(b.bundle + "/rootfs/dev"); len(left) > 0 {
			t.Errorf("%s: nodes in the image: %v", dev, left)
		}
	}
	for says, spoil := range map[string]func(*specs.Spec){
		"mounts[7].destination is missing":  func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs"}) },
		"mounts[7].destination is the cont": func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Destination: "/x/.."}) },
		"/x: type is missing":               func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x"}) },
		"linux.devices[0].path":             func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Type: "c"}} },
		`linux.maskedPaths: "proc/keys"`:    func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc/keys"} },
		`linux.readonlyPaths: ""`:           func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{""} },
	} {
		b := newBox(t, "true")
		spoil(b.spec)
		if o := b.run(); o.code != exitFailed || !strings.Contains(o.err, says) {
			t.Errorf("%s: %+v", says, o)
		}
	}
}

// TestFailedCreationLeavesNothing: the check is newBox's.
func TestFailedCreationLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*specs.Spec)
		says  string
	}{
		"no program":     {func(s *specs.Spec) { s.Process.Args = []string{"/nosuch"} }, "no such file or directory"},
		"directory":      {func(s *specs.Spec) { s.Process.Args = []string{"/etc"} }, "is a directory"},
		"not executable": {func(s *specs.Spec) { s.Process.Args = []string{"/etc/passwd"} }, "permission denied"},
		"no root":        {func(s *specs.Spec) { s.Root.Path = "nosuch" }, "root.path"},
		"bind source": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/nosuch"})
		}, "/nosuch"},
		"file system": {func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs"}) }, "nosuchfs"},
		"rlimit": {func(s *specs.Spec) {
			s.Process.Rlimits[0] = specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 1 << 40, Hard: 1 << 40}
		}, "RLIMIT_NOFILE"},
		"hook": {func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}} }, "createRuntime[0]"},
		//lint:ignore SA1019 a deprecated limit is refused by its name
		"limit": {func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{Kernel: ptr(int64(1 << 20))} }, "memory.kernel"},
		"memory": {func(s *specs.Spec) {
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(4096)), Swap: ptr(int64(4096))}
		}, "memory.limit is too small"},
		"rdt": {func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }, "linux.intelRdt"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "true")
			c.spoil(b.spec)
			if o := b.run(); o.code != exitFailed || !strings.Contains(o.err, c.says) {
				t.Errorf("%+v, want %q", o, c.says)
			}
		})
	}
}
