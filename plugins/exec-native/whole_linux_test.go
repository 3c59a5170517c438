package execnative

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// links names further programs of busybox.
func (b *bench) links(names ...string) {
	b.t.Helper()
	for _, n := range names {
		if err := os.Symlink("busybox", b.lower+"/bin/"+n); err != nil && !os.IsExist(err) {
			b.t.Fatal(err)
		}
	}
}

// namespaceOf is a namespace of a process, from outside.
func namespaceOf(t *testing.T, pid any, kind string) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%v/ns/%s", pid, kind))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// TestSharedNamespaces of the host, and of another container.
func TestSharedNamespaces(t *testing.T) {
	b := newBench(t)
	b.links("tee", "sort")
	first, s := b.idle(func(r *execdriver.Start) { r.ShmBytes = 1 << 20 })
	for _, mode := range []string{execdriver.ShareNone, execdriver.ShareHost, execdriver.ShareContainer} {
		r := b.request("sleep 1000")
		share := execdriver.Share{Mode: mode}
		if mode == execdriver.ShareContainer {
			share.With = first.Key
		}
		r.Namespaces = execdriver.Namespaces{PID: share, IPC: share, UTS: share, Cgroup: share}
		got, err := b.d.Start(context.Background(), r)
		if err != nil {
			t.Fatalf("%q: %v", mode, err)
		}
		for _, kind := range []string{"pid", "ipc", "uts", "cgroup"} {
			own, host, other := namespaceOf(t, got.PID, kind), namespaceOf(t, "self", kind), namespaceOf(t, s.PID, kind)
			ok := map[string]bool{execdriver.ShareNone: own != host && own != other, execdriver.ShareHost: own == host, execdriver.ShareContainer: own == other}
			if !ok[mode] {
				t.Errorf("%q: %s namespace %s, of the host %s, of the other %s", mode, kind, own, host, other)
			}
		}
		if namespaceOf(t, got.PID, "mnt") == namespaceOf(t, "self", "mnt") {
			t.Errorf("%q: the host's mount namespace", mode)
		}
		// The processes of one that has no pid namespace of its own end with its first.
		x := execRequest(r.Key, "sleep 1001 & sleep 1000")
		x.Stdio.WaitAttach = false
		if _, err := b.d.Exec(context.Background(), x); err != nil {
			t.Fatalf("%q: exec: %v", mode, err)
		}
		if err := b.d.Signal(context.Background(), r.Key, 9); err != nil {
			t.Fatal(err)
		}
		b.wait(r.Key)
		b.eventually("all have ended", func() bool {
			pids, err := b.d.containers.Group(groupName(r.Key)).Pids()
			return err == nil && len(pids) == 0
		})
		b.wait(x.Key)
	}
	if pids, _ := b.d.containers.Group(groupName(first.Key)).Pids(); len(pids) == 0 {
		t.Error("the first container has ended with the one that joined it")
	}
	// Shared memory comes with the IPC namespace.
	if out, _ := b.exec(execRequest(first.Key, "echo shared > /dev/shm/f; grep /dev/shm /proc/mounts | grep -c size=1024k"), ""); out != "1\n" {
		t.Errorf("size of /dev/shm: %q", out)
	}
	r := b.request("cat /dev/shm/f; hostname")
	r.Namespaces.IPC = execdriver.Share{Mode: execdriver.ShareContainer, With: first.Key}
	expect(t, b, r, "shared\nbox")
	r = b.request("ls /dev/shm 2>&1 | grep -c 'No such'; grep -c shm /proc/mounts; true")
	r.Namespaces.IPC = execdriver.Share{Off: true}
	expect(t, b, r, "1\n0")
	r = b.request("true")
	r.Namespaces.PID = execdriver.Share{Mode: execdriver.ShareContainer, With: execdriver.Key{Container: "none", Run: 1}}
	if _, err := b.d.Start(context.Background(), r); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a container that does not run: %v", err)
	}
}

// TestDevicesAskedFor by name, by directory, by rule.
func TestDevicesAskedFor(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	r := b.request(`test -c /dev/mine && test -c /dev/dir/zero && (: < /dev/mine) && echo opened; (: > /dev/mine) 2>&1 | grep -c 'not permitted'
		mknod /tmp/full c 1 7 && head -c 1 /tmp/full | wc -c; mknod /tmp/mem c 1 2; (head -c 1 /tmp/mem) 2>&1 | grep -c 'not permitted'
		mknod /tmp/loop c 10 237 && (head -c 1 /tmp/loop) 2>&1 | grep -c 'not permitted'; mknod /tmp/tun c 10 200; (head -c 1 /tmp/tun) 2>&1 | grep -c 'not permitted'; true`)
	fuse := filepath.Join(t.TempDir(), "fuse")
	if err := mknod(fuse, 10, 229); err != nil {
		t.Fatal(err)
	}
	for name, minor := range map[string]int{"zero": 5, "null": 3} {
		if err := mknod(filepath.Join(dir, name), 1, minor); err != nil {
			t.Fatal(err)
		}
	}
	r.Security.Devices = []execdriver.Device{{Host: fuse, Container: "/dev/mine", Permissions: "r"}, {Host: dir, Container: "/dev/dir"}}
	r.Security.DeviceRules = []string{"c 10:200 rwm"}
	expect(t, b, r, "opened\n1\n1\n1\n1\n0")
	for _, d := range []execdriver.Device{{Host: "/dev/none"}, {Host: "/etc/passwd"}, {Host: t.TempDir()}, {Host: "/dev/null", Permissions: "x"}, {Host: "/dev/null", Container: "rel"}} {
		r := b.request("true")
		r.Security.Devices = []execdriver.Device{d}
		if _, err := b.d.Start(context.Background(), r); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", d, err)
		}
	}
	for _, rule := range []string{"", "c 1:3", "d 1:3 r", "c 1:3 x", "c x:3 r", "c 99999999999:1 r"} {
		r := b.request("true")
		r.Security.DeviceRules = []string{rule}
		if _, err := b.d.Start(context.Background(), r); !errdefs.IsInvalidArgument(err) {
			t.Errorf("rule %q: %v", rule, err)
		}
	}
}

// TestLimitsOfProcesses are what setrlimit(2), oom_score_adj and groups show.
func TestLimitsOfProcesses(t *testing.T) {
	b := newBench(t)
	r := b.request("ulimit -n; ulimit -c; cat /proc/self/oom_score_adj; id -G; ulimit -Hn")
	r.Process.Ulimits = []execdriver.Ulimit{{Name: "core", Soft: 0, Hard: 0}, {Name: "nofile", Soft: 99, Hard: 100}}
	r.Process.OOMScore = 500
	r.Process.Groups = []string{"audio", "4711"}
	expect(t, b, r, "99\n0\n500\n0 10 29 4711\n100")
	x := b.request("sleep 1000")
	x.Process.Ulimits, x.Process.OOMScore = r.Process.Ulimits, 500
	if _, err := b.d.Start(context.Background(), x); err != nil {
		t.Fatal(err)
	}
	if out, _ := b.exec(execRequest(x.Key, "ulimit -n; cat /proc/self/oom_score_adj"), ""); out != "99\n500\n" {
		t.Errorf("an exec has %q", out)
	}
	for _, u := range []execdriver.Ulimit{{Name: "nofile", Soft: 2, Hard: 1}, {Name: "sheep", Soft: 1, Hard: 1}, {Name: "nofile", Soft: -2, Hard: 1}} {
		r := b.request("true")
		r.Process.Ulimits = []execdriver.Ulimit{u}
		if _, err := b.d.Start(context.Background(), r); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", u, err)
		}
	}
	r = b.request("true")
	r.Process.Groups = []string{"sheep"}
	if _, err := b.d.Start(context.Background(), r); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown group: %v", err)
	}
}

// TestSysctlsAndPaths in and out of reach.
func TestSysctlsAndPaths(t *testing.T) {
	b := newBench(t)
	r := b.request("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax; (echo 1 > /proc/sys/net/ipv4/ip_forward) 2>&1 | grep -c Read-only; cat /proc/keys | wc -l")
	r.Security.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345"}
	expect(t, b, r, "1\n12345\n1\n0")
	r.Process.Args[2] = "test $(cat /proc/keys | wc -l) -gt 0 && echo 777 > /proc/sys/kernel/shmmax && echo open"
	r.Key = b.request("").Key
	r.Security.OpenPaths = true
	r.Rootfs = b.request("").Rootfs
	expect(t, b, r, "open")
	for name, change := range map[string]func(*execdriver.Start){
		"vm.swappiness":       func(*execdriver.Start) {},
		"net.ipv4.ip_forward": func(r *execdriver.Start) { r.Network.Mode = netdriver.NamespaceHost },
		"kernel.shmmax":       func(r *execdriver.Start) { r.Namespaces.IPC.Mode = execdriver.ShareHost },
	} {
		r := b.request("true")
		r.Security.Sysctls = map[string]string{name: "1"}
		change(&r)
		if _, err := b.d.Start(context.Background(), r); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTmpfsAndSeccomp that were asked for.
func TestTmpfsAndSeccomp(t *testing.T) {
	b := newBench(t)
	r := b.request("grep ' /t ' /proc/mounts | sed 's/,inode64//'; mkdir /t/x 2>&1 | grep -c 'not permitted'; stat -c %a /t")
	r.Mounts = []driver.Mount{{Type: "tmpfs", Target: "/t", Options: []string{"size=64k", "mode=1770", "exec"}}}
	r.Security.Seccomp = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`
	expect(t, b, r, "tmpfs /t tmpfs rw,nosuid,nodev,relatime,size=64k,mode=1770 0 0\n1\n1770")
	if _, err := os.Stat("/sys/module/apparmor"); err != nil {
		r = b.request("true")
		r.Security.AppArmor = "some-profile"
		if _, err := b.d.Start(context.Background(), r); !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), "AppArmor") {
			t.Errorf("an AppArmor profile: %v", err)
		}
	}
	r = b.request("true")
	r.Security.SELinux = []string{"type:some_t"}
	if _, err := b.d.Start(context.Background(), r); !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), "SELinux") {
		t.Errorf("an SELinux label: %v", err)
	}
}

// TestInit is pid 1, takes in orphans and ends as the program does.
func TestInit(t *testing.T) {
	b := newBench(t)
	r := b.request(`echo $$; cat /proc/1/comm; orphan=$(sleep 0.05 >/dev/null & echo $!); while test -d /proc/$orphan; do sleep 0.01; done; exit 5`)
	r.Init = true
	out, e := b.run(r)
	if out != "2\ngantry-init\n" || e.Code != 5 {
		t.Errorf("%q %+v", out, e)
	}
	r = b.request("trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done")
	r.Init = true
	s, err := b.d.Start(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	b.eventually("it is up", func() bool { return b.output(s.Log) == "up\n" })
	if err := b.d.Signal(context.Background(), r.Key, 15); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(r.Key); e.Code != 9 {
		t.Errorf("%+v", e)
	}
}

// TestTerminal of a container.
func TestTerminal(t *testing.T) {
	b := newBench(t)
	b.links("tty", "stty")
	r := b.request("tty; stty size; echo $TERM; test -c /dev/console && echo console; read x; echo got $x")
	r.Process.TTY, r.Process.Rows, r.Process.Columns = true, 20, 70
	r.Stdio.OpenStdin = true
	s, err := b.d.Start(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.sendInput(ctx, r.Key, "word\n")
	b.wait(r.Key)
	got := strings.Replace(b.output(s.Log), "word\r\n", "", 1) // what the terminal echoes comes at any time
	if got != "/dev/pts/0\r\n20 70\r\nxterm\r\nconsole\r\ngot word\r\n" {
		t.Errorf("%q", got)
	}
}

// TestCgroupParent is where a container asked to be.
func TestCgroupParent(t *testing.T) {
	b := newBench(t)
	parent := b.cfg.Cgroup + "/elsewhere"
	r, s := b.idle(func(r *execdriver.Start) { r.Resources.CgroupParent = parent[1:] })
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.PID))
	of := ":pids:"
	if unified() {
		of = "0::"
	}
	if err != nil || !strings.Contains(string(text), of+parent+"/"+r.Container) {
		t.Errorf("cgroups %s (%v)", text, err)
	}
	old := b.d
	b.open() // as after a restart
	old.close()
	if out, e := b.exec(execRequest(r.Key, "echo in"), ""); out != "in\n" || e.Code != 0 {
		t.Errorf("exec: %q %+v", out, e)
	}
	if err := b.d.Release(context.Background(), r.Key); err != nil {
		t.Fatal(err)
	}
	if left := groupsAt(b, parent); len(left) > 0 || len(b.d.parents) > 0 {
		t.Errorf("left: %v, held %v", left, b.d.parents)
	}
}

// groupsAt lists the directories of a cgroup path in all hierarchies.
func groupsAt(b *bench, path string) []string {
	var out []string
	for _, h := range b.d.tree.Hierarchies {
		if _, err := os.Stat(h.Mount + path); err == nil {
			out = append(out, h.Mount+path)
		}
	}
	return out
}

// TestCgroupParentShared goes with the last container inside, as far as it was
// made for them: also after a start that fails, and one that a driver died of.
func TestCgroupParentShared(t *testing.T) {
	b := newBench(t)
	own := b.cfg.Cgroup + "/own" // not made for a container
	p, err := b.d.tree.OpenParent(own, false)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	t.Cleanup(func() { removeParent(t, b.d.tree, own) })
	deep := own + "/a/b"
	in := func(r *execdriver.Start) { r.Resources.CgroupParent = deep }
	one, _ := b.idle(in)
	two, _ := b.idle(in)
	bad := b.request("true")
	in(&bad)
	bad.Process.Args = []string{"/no/such/program"}
	if _, err := b.d.Start(context.Background(), bad); err == nil {
		t.Error("a program that is not there runs")
	}
	if d := b.d.parents[deep]; d == nil || d.runs != 2 {
		t.Errorf("held as %+v, want by two", d)
	}
	if err := b.d.Release(context.Background(), one.Key); err != nil {
		t.Fatal(err)
	}
	old := b.d
	b.open() // as after a restart
	old.close()
	if out, e := b.exec(execRequest(two.Key, "echo in"), ""); out != "in\n" || e.Code != 0 {
		t.Errorf("exec: %q %+v", out, e)
	}
	for range 2 { // it may be asked again
		if err := b.d.Release(context.Background(), two.Key); err != nil {
			t.Fatal(err)
		}
	}
	if left := groupsAt(b, own+"/a"); len(left) > 0 || len(b.d.parents) > 0 {
		t.Errorf("left: %v, held %v", left, b.d.parents)
	}
	if there := groupsAt(b, own); len(there) != len(b.d.tree.Hierarchies) {
		t.Errorf("what was there before has gone: only %v", there)
	}
	if _, err := b.d.Start(context.Background(), bad); err == nil || len(groupsAt(b, own+"/a")) > 0 {
		t.Errorf("a start that failed: %v, left %v", err, groupsAt(b, own+"/a"))
	}
	died := b.request("sleep 100")
	in(&died)
	b.startInChild(1, died)
	b.d.close()
	b.open()
	if err := b.d.Release(context.Background(), died.Key); err != nil || len(groupsAt(b, own+"/a")) > 0 {
		t.Errorf("of a driver that died: %v, left %v", err, groupsAt(b, own+"/a"))
	}
}

// TestCgroupParentCrowd has some containers go while others come.
func TestCgroupParentCrowd(t *testing.T) {
	b := newBench(t)
	deep := b.cfg.Cgroup + "/a/b"
	var wait sync.WaitGroup
	for range 6 {
		r := b.request("true")
		r.Resources.CgroupParent = deep
		wait.Go(func() {
			for n := range uint64(5) {
				r.Run = 100*n + r.Run%100
				if _, err := b.d.Start(context.Background(), r); err != nil {
					t.Error(err)
					return
				}
				if err := b.d.Release(context.Background(), r.Key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if left := groupsAt(b, b.cfg.Cgroup+"/a"); len(left) > 0 || len(b.d.parents) > 0 {
		t.Errorf("left %v, held %v", left, b.d.parents)
	}
}
