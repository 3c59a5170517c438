package execnative

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/stdio"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// expect runs a script and compares what it printed.
func expect(t *testing.T, b *bench, r execdriver.Start, want string) {
	t.Helper()
	out, e := b.run(r)
	if strings.TrimSpace(out) != strings.TrimSpace(want) || e.Code != 0 {
		t.Errorf("script %q ended with %d and said\n%s\nwant\n%s", r.Process.Args, e.Code, out, want)
	}
}

func TestContainerSeesItself(t *testing.T) {
	b := newBench(t)
	expect(t, b, b.request(`id; hostname; cat /etc/hostname; pwd; echo $$; echo $HOME $HOSTNAME; env | grep ^PATH`),
		"uid=0(root) gid=0(root) groups=0(root),10(wheel)\nbox\nbox\n/\n1\n/root box\nPATH="+defaultPath)
	// Nothing of the host: its processes, links, groups.
	expect(t, b, b.request(`p=$(ps -o pid); echo "$p" | wc -l; ip -o link | wc -l; grep -v ':/$' /proc/self/cgroup; ls /sys/fs/cgroup/memory | grep -c tasks`),
		"3\n1\n1")
	// /dev is our own; standard streams are reachable by name.
	expect(t, b, b.request(`echo x > /dev/null; head -c 3 /dev/zero | wc -c; echo err > /dev/stderr; readlink /dev/fd; test -c /dev/pts/ptmx && echo ptmx`),
		"3\nerr\n/proc/self/fd\nptmx")
}

func TestMasksAndReadOnlyPaths(t *testing.T) {
	b := newBench(t)
	expect(t, b, b.request(`
		cat /proc/keys /proc/timer_list /proc/interrupts | wc -c
		ls /sys/firmware | wc -l
		for f in /proc/sys/kernel/hostname /proc/irq/default_smp_affinity /sys/kernel/mm/transparent_hugepage/enabled /sys/fs/cgroup/pids/pids.max; do
			(echo 1 > $f) 2>&1 | sed 's/.*: //'
		done
		mount -t tmpfs x /tmp 2>&1 | sed 's/.*: //'`),
		"0\n0\nRead-only file system\nRead-only file system\nRead-only file system\nRead-only file system\npermission denied (are you root?)")
}

// status greps lines of /proc/self/status.
const status = `grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp|Uid|Gid|Groups):' /proc/self/status | sed 's/[[:space:]]*$//;s/[[:space:]]+/ /g' | cat`

func TestIdentity(t *testing.T) {
	b := newBench(t)
	lines := func(uid, gid, groups, inh, prm, bnd string, nnp, seccomp int) string {
		return fmt.Sprintf("Uid:\t%s\nGid:\t%s\nGroups:\t%s\nCapInh:\t%s\nCapPrm:\t%s\nCapEff:\t%s\nCapBnd:\t%s\nCapAmb:\t%s\nNoNewPrivs:\t%d\nSeccomp:\t%d",
			uid, gid, groups, inh, prm, prm, bnd, inh, nnp, seccomp)
	}
	const none, standard = "0000000000000000", "00000000a80425fb"
	root, bob := "0\t0\t0\t0", "1000\t1000\t1000\t1000"
	own := fmt.Sprintf("%016x", b.d.facts.Bounding)

	expect(t, b, b.request(status), lines(root, root, "0 10", none, standard, standard, 0, 2))

	r := b.request(status)
	r.Process.User = "bob"
	r.Security.NoNewPrivileges = true
	expect(t, b, r, lines(bob, "1001\t1001\t1001\t1001", "10 29 1001", none, none, standard, 1, 2))

	r = b.request(status)
	r.Process.User = "1000:7"
	r.Security.CapDrop = []string{"ALL"}
	r.Security.Seccomp = "unconfined"
	expect(t, b, r, lines(bob, "7\t7\t7\t7", "7", none, none, none, 0, 0))

	r = b.request(status)
	r.Security.Privileged = true
	expect(t, b, r, lines(root, root, "0 10", none, own, own, 0, 0))

	r = b.request(`mount -t tmpfs x /tmp && echo 1 > /proc/sys/net/ipv4/ip_forward && ls /dev/$(readlink /none; echo null) && mkdir /sys/fs/cgroup/pids/sub && echo done`)
	r.Security.Privileged = true
	expect(t, b, r, "/dev/null\ndone")
}

func TestWorkingDirectoryReadOnlyAndBinds(t *testing.T) {
	b := newBench(t)
	host := t.TempDir()
	if err := os.WriteFile(host+"/file", []byte("from outside\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := b.request(`pwd; cat /data/file /made/here; (echo x > /data/new) 2>&1 | sed 's/.*: //'; (echo x > /new) 2>&1 | sed 's/.*: //'; echo x > /rw/new; grep -c ' /data ' /proc/mounts`)
	r.ReadOnly = true
	r.Process.Cwd = "/made/dir"
	r.Mounts = []driver.Mount{
		{Type: "bind", Source: host, Target: "/data", Options: []string{"ro", "rbind"}},
		{Type: "bind", Source: host + "/file", Target: "/made/here", Options: []string{"ro"}},
		{Type: "bind", Source: host, Target: "/rw"},
	}
	expect(t, b, r, "/made/dir\nfrom outside\nfrom outside\nRead-only file system\nRead-only file system\n1")
	if _, err := os.Stat(host + "/new"); err != nil {
		t.Errorf("the writable bind: %v", err)
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(table), b.lower) || strings.Contains(string(table), "/made") {
		t.Errorf("mounts of the container are in the host's table (%v)", err)
	}
}

func TestProgramErrors(t *testing.T) {
	b := newBench(t)
	if err := os.WriteFile(b.lower+"/bin/plain", []byte("no program"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.lower+"/bin/garbage", []byte("\x7fELFgarbage"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.lower+"/bin/orphan", []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		program string
		class   error
		says    string
	}{
		{"nope", errdefs.ErrNotFound, `exec: "nope": executable file not found in $PATH`},
		{"/bin/nope", errdefs.ErrNotFound, `exec: "/bin/nope": stat /bin/nope: no such file or directory`},
		{"/bin/orphan", errdefs.ErrNotFound, "exec /bin/orphan: no such file or directory"},
		{"/bin/sh/x", errdefs.ErrNotFound, "not a directory"},
		{"/bin/plain", errdefs.ErrPermissionDenied, `exec: "/bin/plain": permission denied`},
		{"plain", errdefs.ErrPermissionDenied, `exec: "plain": permission denied`},
		{"/bin", errdefs.ErrPermissionDenied, "permission denied"},
		{"/bin/garbage", errdefs.ErrPermissionDenied, "exec format error"},
	} {
		r := b.request("")
		r.Process.Args = []string{c.program}
		_, err := b.d.Start(context.Background(), r)
		if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v saying %q", c.program, err, c.class, c.says)
		}
		if _, err := os.Stat(execdriver.RunDir(b.cfg.Run, r.Key)); !os.IsNotExist(err) {
			t.Errorf("%s: the run's directory is left (%v)", c.program, err)
		}
	}
	r := b.request("true")
	r.Process.User = "mallory"
	if _, err := b.d.Start(context.Background(), r); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "unable to find user mallory") {
		t.Errorf("unknown user: %v", err)
	}
	r = b.request("true")
	r.Mounts = []driver.Mount{{Type: "bind", Source: "/no/such/source", Target: "/x"}}
	if _, err := b.d.Start(context.Background(), r); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "/no/such/source") {
		t.Errorf("missing source: %v", err)
	}
	r = b.request("true")
	r.Network = netdriver.Namespace{Mode: netdriver.NamespacePath, Path: "/proc/self/ns/net", Inode: 1}
	if _, err := b.d.Start(context.Background(), r); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "another namespace") {
		t.Errorf("wrong namespace: %v", err)
	}
}

func TestExitCodesAndSignals(t *testing.T) {
	b := newBench(t)
	for script, want := range map[string]execdriver.Exit{
		"exit 0":                {},
		"exit 3":                {Code: 3},
		"(exit 200)":            {Code: 200},
		"sleep 1 & exit 5":      {Code: 5},
		"sh -c 'kill -9 $$'; :": {},
	} {
		_, e := b.run(b.request(script))
		if e.Code != want.Code || e.Signal != 0 || e.Lost || time.Since(e.Time) > time.Minute {
			t.Errorf("%q: %+v, want %+v", script, e, want)
		}
	}
	for _, c := range []struct {
		script       string
		signal       int
		code, killer int
	}{
		{"trap 'exit 44' TERM; echo up; while :; do sleep 0.01; done", 15, 44, 0},
		{"echo up; exec sleep 100", 9, 137, 9},
	} {
		r := b.request(c.script)
		s, err := b.d.Start(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		b.eventually("the program is up", func() bool { return strings.Contains(b.output(s.Log), "up") })
		if err := b.d.Signal(context.Background(), r.Key, c.signal); err != nil {
			t.Fatal(err)
		}
		if e := b.wait(r.Key); e.Code != c.code || e.Signal != c.killer {
			t.Errorf("%q after signal %d: %+v", c.script, c.signal, e)
		}
		if err := b.d.Signal(context.Background(), r.Key, 15); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("signal after the end: %v", err)
		}
	}
	if err := b.d.Signal(context.Background(), execdriver.Key{Container: "none"}, 15); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("signal to no run: %v", err)
	}
}

// eventually waits for something that takes a moment.
func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	b.t.Fatalf("not after %v: %s", patience, what)
}

func TestLimits(t *testing.T) {
	b := newBench(t)
	r := b.request(`cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us
		for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done 2>/dev/null; echo`)
	r.Resources = execdriver.Resources{MemoryBytes: 32 << 20, NanoCPUs: 5e8, PidsLimit: 5}
	out, e := b.run(r)
	want := "5\n33554432\n67108864\n50000\n"
	if unified() { // swap alone, and the quota with its period
		want = "5\n33554432\n33554432\n50000 100000\n"
	}
	if !strings.HasPrefix(out, want) {
		t.Errorf("limits inside: %q, want %q", out, want)
	}
	if e.Code == 0 {
		t.Errorf("eight processes within a limit of five: %+v", e)
	}
	r = b.request(`x=$(dd if=/dev/zero bs=1M count=200 2>/dev/null | sed 's/x/y/g'); echo ${#x}`)
	r.Process.Args = []string{"/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"}
	r.Resources = execdriver.Resources{MemoryBytes: 16 << 20}
	if _, e := b.run(r); e.Code != 137 || !e.OOMKilled {
		t.Errorf("100 MB within 16 MB: %+v", e)
	}
}

func TestDevices(t *testing.T) {
	b := newBench(t)
	expect(t, b, b.request(`mknod /tmp/disk b 1 0 && (cat /tmp/disk 2>&1 || true) | sed 's/.*: //'; mknod /tmp/zero c 1 5 && head -c 1 /tmp/zero | wc -c`),
		"Operation not permitted\n1")
}

func TestNetworkModes(t *testing.T) {
	b := newBench(t)
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	r := b.request("readlink /proc/self/ns/net")
	r.Network.Mode = netdriver.NamespaceHost
	expect(t, b, r, host)

	// Join the namespace of a running container.
	first := b.request("exec sleep 100")
	s, err := b.d.Start(context.Background(), first)
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/%d/ns/net", s.PID)
	link, err := os.Readlink(path)
	if err != nil || link == host {
		t.Fatalf("the container's namespace is %s, the host's %s (%v)", link, host, err)
	}
	var inode uint64
	fmt.Sscanf(link, "net:[%d]", &inode)
	r = b.request("readlink /proc/self/ns/net")
	r.Network = netdriver.Namespace{Mode: netdriver.NamespacePath, Path: path, Inode: inode}
	expect(t, b, r, link)
}

// TestRepeatedAndConcurrentStarts: one run has one process, whoever asks.
func TestRepeatedAndConcurrentStarts(t *testing.T) {
	b := newBench(t)
	r := b.request("echo once; exec sleep 100")
	type answer struct {
		s   execdriver.Started
		err error
	}
	answers := make(chan answer, 8)
	for range 8 {
		go func() {
			s, err := b.d.Start(context.Background(), r)
			answers <- answer{s, err}
		}()
	}
	first := <-answers
	for range 7 {
		if a := <-answers; a != first || a.err != nil {
			t.Errorf("%+v and %+v", a, first)
		}
	}
	b.eventually("output", func() bool { return b.output(first.s.Log) == "once\n" })
	if err := b.d.Signal(context.Background(), r.Key, 9); err != nil {
		t.Fatal(err)
	}
	b.wait(r.Key)
	if s, err := b.d.Start(context.Background(), r); err != nil || s != first.s {
		t.Errorf("asked again after the end: %+v %v", s, err)
	}
	items, err := b.d.List(context.Background())
	if err != nil || len(items) != 1 || items[0].State != "exited" {
		t.Errorf("list: %+v %v", items, err)
	}
	for range 2 {
		if err := b.d.Release(context.Background(), r.Key); err != nil {
			t.Errorf("release: %v", err)
		}
	}
	if _, err := os.Stat(first.s.Log); err != nil {
		t.Errorf("the log went with the release: %v", err)
	}
	for range 2 {
		if err := b.d.RemoveLog(context.Background(), r.Container); err != nil {
			t.Errorf("remove log: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Dir(first.s.Log)); !os.IsNotExist(err) {
		t.Errorf("the log is left: %v", err)
	}
}

// TestReleaseEndsEverything also in nested groups and while frozen.
func TestReleaseEndsEverything(t *testing.T) {
	b := newBench(t)
	r := b.request("mkdir /sys/fs/cgroup/pids/a /sys/fs/cgroup/pids/a/b; sleep 100 & echo $! > /sys/fs/cgroup/pids/a/b/tasks; trap '' TERM; sleep 100 & echo up; sleep 100")
	r.Security.Privileged = true
	s, err := b.d.Start(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	b.eventually("the program is up", func() bool { return strings.Contains(b.output(s.Log), "up") })
	group := b.d.containers.Group(groupName(r.Key))
	if err := group.Freeze(context.Background()); err != nil {
		t.Fatal(err)
	}
	if pids, err := group.Pids(); err != nil || len(pids) < 3 {
		t.Errorf("processes %v (%v)", pids, err)
	}
	if err := b.d.Release(context.Background(), r.Key); err != nil {
		t.Fatal(err)
	}
	if pids, _ := group.Pids(); len(pids) > 0 {
		t.Errorf("still running: %v", pids)
	}
}

// TestCancelledAtGate gives up a start that waits for a client.
func TestCancelledAtGate(t *testing.T) {
	b := newBench(t)
	r := b.request("echo never")
	r.Stdio.WaitAttach = true
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := b.d.Start(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the deadline", err)
	}
	b.eventually("nothing is left", func() bool {
		items, err := b.d.List(context.Background())
		return err == nil && len(items) == 0
	})
	if out := b.output(filepath.Join(b.d.logDir(r.Container), logName)); out != "" {
		t.Errorf("the program ran: %q", out)
	}
}

// TestLateStart: who has no time left is told that, wherever the start was when it
// found out.
func TestLateStart(t *testing.T) {
	b := newBench(t)
	r := b.request("echo never")
	for range 10 {
		ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
		_, err := b.d.Start(ctx, r)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v, want the deadline", err)
		}
	}
}

// TestJoinedStartIsTakenOver: who asks for a start that is under way is not told that
// whoever asked first has left, but takes its place.
func TestJoinedStartIsTakenOver(t *testing.T) {
	b := newBench(t)
	r := b.request("echo up")
	r.Stdio.WaitAttach = true
	first, leave := context.WithCancel(t.Context())
	answers := []chan error{make(chan error, 1), make(chan error, 1)}
	start := func(ctx context.Context, answer chan error) {
		_, err := b.d.Start(ctx, r)
		answer <- err
	}
	go start(first, answers[0])
	b.eventually("the start is under way", func() bool { return b.d.begun(r.Container) })
	go start(t.Context(), answers[1])
	b.eventually("the second call waits", func() bool {
		return slices.ContainsFunc(stacks(), func(s string) bool {
			return strings.Contains(s, "[select") && strings.Contains(s, ".startOnce(") && !strings.Contains(s, ".begin(")
		})
	})
	leave()
	if err := <-answers[0]; !errors.Is(err, context.Canceled) {
		t.Errorf("who has left: %v", err)
	}
	client, end := context.WithCancel(t.Context())
	defer end()
	go func() { // to whichever shim there is
		for ; client.Err() == nil; time.Sleep(time.Millisecond) {
			c, _, err := stdio.Dial(client, execdriver.SocketPath(b.cfg.Run, r.Key), stdio.Hello{Stdout: true})
			for err == nil {
				_, err = c.Next()
			}
		}
	}()
	if err := <-answers[1]; err != nil {
		t.Errorf("who has stayed: %v", err)
	}
}

// stacks are those of all goroutines, each with its state.
func stacks() []string {
	buf := make([]byte, 1<<20)
	return strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
}

// TestGivenUpRunsOnce: a start that its caller leaves at any moment, and asks for
// again, has run the program once.
func TestGivenUpRunsOnce(t *testing.T) {
	b := newBench(t)
	began := time.Now()
	b.run(b.request("true"))
	step := time.Since(began) / 30
	late := 0
	for patience := time.Duration(0); late < 10; patience += step {
		r := b.request("echo begun; sleep 0.01")
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		_, err := b.d.Start(ctx, r)
		cancel()
		if err == nil {
			late++
		} else if _, err = b.d.Start(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		b.wait(r.Key)
		if out := b.output(filepath.Join(b.d.logDir(r.Container), logName)); out != "begun\n" {
			t.Fatalf("given up after %v: %q", patience, out)
		}
		if err := b.d.Release(context.Background(), r.Key); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShownCgroups: a container looks at its own groups as if they were the
// root, at the place where programs look.
func TestShownCgroups(t *testing.T) {
	b := newBench(t)
	expect(t, b, b.request(`grep -c ' / /sys/fs/cgroup/pids ro' /proc/self/mountinfo; cat /sys/fs/cgroup/pids/tasks | head -1
		mkdir /sys/fs/cgroup/pids/x 2>&1 | sed 's/.*: //'; ls /sys/fs/cgroup/pids/.. | grep -c gantry; true`),
		"1\n1\nRead-only file system\n0")
}
