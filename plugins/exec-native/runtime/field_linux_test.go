package runtime

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// fieldCase changes one thing of a specification and looks at it from inside.
type fieldCase struct {
	change func(b *box)
	script string
	want   string // lines that the output must hold, in order
}

func (b *box) addMount(m specs.Mount) { b.spec.Mounts = append(b.spec.Mounts, m) }

// TestFields sees fields from inside. What a plan is made of is pinned in package
// oci; here the kernel is asked whether it came true.
func TestFields(t *testing.T) {
	for name, c := range fieldCases(t) {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, c.script)
			c.change(b)
			o := b.run()
			rest := o.out
			for _, line := range strings.Split(c.want, "\n") {
				_, after, ok := strings.Cut(rest, line)
				if !ok {
					t.Fatalf("code %d, %s\nno %q in:\n%s", o.code, o.err, line, o.out)
				}
				rest = after
			}
		})
	}
}

func fieldCases(t *testing.T) map[string]fieldCase {
	t.Helper()
	cases := map[string]fieldCase{}
	for _, part := range []map[string]fieldCase{processFields(), linuxFields(), mountFields(t)} {
		for name, c := range part {
			cases[name] = c
		}
	}
	return cases
}

func processFields() map[string]fieldCase {
	return map[string]fieldCase{
		"user": {func(b *box) {
			b.spec.Process.User = specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7}, Umask: ptr(uint32(0o077))}
		}, "id; umask", "uid=5 gid=6 groups=7\n0077"},
		"home":      {func(*box) {}, "echo $HOME", "/root"},
		"cwd made":  {func(b *box) { b.spec.Process.Cwd = "/made/here" }, "pwd", "/made/here"},
		"oom score": {func(b *box) { b.spec.Process.OOMScoreAdj = ptr(555) }, "cat /proc/self/oom_score_adj", "555"},
		"io priority": {func(b *box) {
			b.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
		}, "/bin/busybox ionice -p $$", "best-effort: prio 6"},
		"nice":         {func(b *box) { b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7} }, "cut -d' ' -f19,41 /proc/self/stat", "7 3"},
		"no new privs": {func(b *box) { b.spec.Process.NoNewPrivileges = true }, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"},
		"capabilities": {func(b *box) {
			k := []string{"CAP_KILL"}
			b.spec.Process.User.UID = 9
			b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_CHOWN"}, Permitted: k, Effective: k, Inheritable: k, Ambient: k}
		}, "grep Cap /proc/self/status", "CapInh:\t0000000000000020\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000021\nCapAmb:\t0000000000000020"},
		"unknown capability": {func(b *box) { b.spec.Process.Capabilities.Bounding = []string{"CAP_FLY"} }, "grep CapBnd /proc/self/status", "CapBnd:\t0000000000000000"},
		"rlimit": {func(b *box) {
			b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 10 << 10, Hard: 20 << 10}}
		}, "grep core /proc/self/limits", "10240                20480"},
		"few descriptors": {limited("NOFILE", 4), "ulimit -n", "4"},
		"few descriptors, terminal": {func(b *box) {
			limited("NOFILE", 4)(b)
			b.spec.Process.Terminal = true
		}, "ulimit -n", "4"},
		"little memory": {limited("AS", 4<<20), "ulimit -v", "4096"},
		"small files": {func(b *box) {
			limited("FSIZE", 100)(b) // the state that a hook is told is larger
			b.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/true"}}}
		}, "ulimit -f", "0"},
	}
}

// limited gives the program a limit that would stop the init, too.
func limited(resource string, n uint64) func(*box) {
	return func(b *box) {
		b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_" + resource, Soft: n, Hard: n}}
	}
}

func linuxFields() map[string]fieldCase {
	ns := func(add specs.LinuxNamespaceType) func(b *box) {
		return func(b *box) {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: add})
		}
	}
	return map[string]fieldCase{
		"names": {func(b *box) { b.spec.Hostname, b.spec.Domainname = "here", "there" }, "hostname; cat /proc/sys/kernel/domainname", "here\nthere"},
		"sysctl": {func(b *box) {
			b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "net/ipv4/conf/lo/forwarding": "0", "kernel.msgmax": "9000"}
		}, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/lo/forwarding /proc/sys/kernel/msgmax", "1\n0\n9000"},
		"masked and read-only": {func(b *box) {
			b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = []string{"/etc/passwd", "/data"}, []string{"/tmp"}
		}, "wc -c /etc/passwd; touch /data/x; touch /tmp/x; echo end", "0 /etc/passwd\nend"},
		"read-only root": {func(b *box) { b.spec.Root.Readonly = true }, "touch /x || echo refused; touch /dev/shm/x && echo written", "refused\nwritten"},
		"device": {func(b *box) {
			mode := os.FileMode(0o644)
			b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/deep/zero", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: ptr(uint32(3)), GID: ptr(uint32(4))}, {Path: "/dev/pipe", Type: "p"}}
			b.spec.Linux.Resources = nil
		}, "stat -c '%a %u %g %t:%T %F' /dev/deep/zero; stat -c %F /dev/pipe; /bin/busybox head -c 3 /dev/deep/zero | wc -c", "644 3 4 1:5 character special file\nfifo\n3"},
		"device rules": {func(b *box) {
			b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/m", Type: "c", Major: 1, Minor: 11}}
		}, "cat /dev/m 2>&1 | /bin/busybox head -1", "Operation not permitted"},
		"personality": {func(b *box) { b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }, "uname -m", "i686"},
		"time": {func(b *box) {
			ns(specs.TimeNamespace)(b)
			b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1_000_000_000}, "monotonic": {Secs: 5, Nanosecs: 7}}
		}, "cut -c1-2 /proc/uptime; cat /proc/self/timens_offsets", "10\nmonotonic           5         7\nboottime   1000000000"},
		"user namespace": {func(b *box) {
			ns(specs.UserNamespace)(b)
			b.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}}
			b.spec.Linux.GIDMappings = b.spec.Linux.UIDMappings
		}, "id; cat /proc/self/uid_map; ls /dev/null /dev/zero; echo x > /dev/null && echo written; mkdir /dev/shm/d && stat -c %u /dev/shm/d", "uid=0(root) gid=0\n100000       1000\n/dev/null\n/dev/zero\nwritten\n0"},
		"pids limit": {func(b *box) { b.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(9))} }, "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null", "9"},
		"seccomp": {func(b *box) {
			b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86},
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(unix.EXDEV))}}}
		}, "mkdir /tmp/d 2>&1; grep Seccomp: /proc/self/status", "Invalid cross-device link\nSeccomp:\t2"},
		"unconfined apparmor": {func(b *box) { b.spec.Process.ApparmorProfile = "unconfined" }, "echo fine", "fine"},
		"joined namespace": {func(b *box) {
			for i, n := range b.spec.Linux.Namespaces {
				if n.Type == specs.NetworkNamespace || n.Type == specs.IPCNamespace {
					b.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/self/ns/%s", strings.Replace(string(n.Type), "work", "", 1))
				}
			}
		}, "ls /sys/class/net | wc -l; readlink /proc/self/ns/net", ownNamespace("net")},
	}
}

func ownNamespace(name string) string {
	link, _ := os.Readlink("/proc/self/ns/" + name)
	return link
}

func mountFields(t *testing.T) map[string]fieldCase {
	t.Helper()
	source := t.TempDir()
	if err := os.WriteFile(source+"/file", []byte("outside\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bind := func(options ...string) func(b *box) {
		return func(b *box) {
			b.addMount(specs.Mount{Destination: "/new/place", Type: "bind", Source: source, Options: options})
		}
	}
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 4242, Size: 10}}
	return map[string]fieldCase{
		"bind":            {bind("bind"), "cat /new/place/file; touch /new/place/made && echo written", "outside\nwritten"},
		"bind read-only":  {bind("rbind", "ro", "nosuid", "nodev", "noexec", "noatime"), "touch /new/place/x; grep /new/place /proc/self/mounts", "ro,nosuid,nodev,noexec,noatime"},
		"recursive":       {bind("rbind", "rro", "rnosuid"), "grep /new/place /proc/self/mounts", "ro,nosuid"},
		"later word wins": {bind("bind", "ro", "rw"), "touch /new/place/y && echo written", "written"},
		"symlinks":        {bind("bind", "nosymfollow"), "grep /new/place /proc/self/mounts", "nosymfollow"},
		"slave":           {bind("bind", "rslave"), "grep /new/place /proc/self/mountinfo", "/new/place"},
		"single file": {func(b *box) {
			b.addMount(specs.Mount{Destination: "/etc/new", Type: "bind", Source: source + "/file", Options: []string{"bind"}})
		}, "cat /etc/new", "outside"},
		"idmap": {func(b *box) {
			b.addMount(specs.Mount{Destination: "/new/place", Type: "bind", Source: source, Options: []string{"bind", "idmap"}, UIDMappings: maps, GIDMappings: maps})
		}, "stat -c '%u %g' /new/place/file", "4242 4242"},
		"tmpfs copied up": {func(b *box) {
			b.addMount(specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=1m", "ro"}})
		}, "cat /etc/passwd; grep ' /etc ' /proc/self/mounts; touch /etc/x || echo refused", "root:x:0:0\ntmpfs /etc tmpfs ro\nrefused"},
		"remount": {func(b *box) {
			bind("bind")(b)
			b.addMount(specs.Mount{Destination: "/new/place", Options: []string{"remount", "bind", "ro"}})
		}, "touch /new/place/z || echo refused", "refused"},
		"cgroups, recursively read-only": {func(b *box) {
			for i, m := range b.spec.Mounts {
				if m.Type == "cgroup" {
					b.spec.Mounts[i].Options = []string{"rro"}
				}
			}
		}, "made=no; for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && made=yes; done; echo made=$made", "made=no"},
		"relative destination": {func(b *box) { b.addMount(specs.Mount{Destination: "rel", Type: "tmpfs", Source: "t"}) }, "grep /rel /proc/self/mounts", "t /rel tmpfs"},
		"unbindable root":      {func(b *box) { b.spec.Linux.RootfsPropagation = "unbindable" }, "grep ' / / ' /proc/self/mountinfo; cat /proc/self/mountinfo", "unbindable"},
		"shared root":          {func(b *box) { b.spec.Linux.RootfsPropagation = "rshared" }, "cat /proc/self/mountinfo", "shared:"},
	}
}

// TestHooks runs all six kinds, with the state on standard input.
func TestHooks(t *testing.T) {
	b := newBox(t, "cat /hooks; readlink /proc/self/ns/mnt")
	log := t.TempDir() + "/log"
	script := func(kind string) specs.Hook {
		return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf(`read s; echo "%s $A $(echo "$s" | tr -d ' ' | grep -oE '"status":"[a-z]+"') $(readlink /proc/self/ns/mnt)" >> %s`, kind, log)}, Env: []string{"A=1", "PATH=/bin:/usr/bin"}, Timeout: ptr(60)}
	}
	if err := os.WriteFile(b.bundle+"/rootfs/hooks", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	inside := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", `read s; echo "startContainer $s" > /hooks`}}
	b.spec.Hooks = &specs.Hooks{
		//lint:ignore SA1019 a deprecated kind is run as long as specifications name it
		Prestart: []specs.Hook{script("prestart")}, CreateRuntime: []specs.Hook{script("createRuntime")}, CreateContainer: []specs.Hook{script("createContainer")},
		StartContainer: []specs.Hook{inside}, Poststart: []specs.Hook{script("poststart")}, Poststop: []specs.Hook{script("poststop")},
	}
	o := b.run()
	if o.code != 0 || !strings.Contains(o.out, `startContainer {"ociVersion"`) || !strings.Contains(o.out, `"status":"created"`) {
		t.Fatalf("%+v", o)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	own := ownNamespace("mnt")
	inner := o.out[strings.LastIndex(strings.TrimSpace(o.out), "\n")+1:]
	want := []string{
		`prestart 1 "status":"creating" ` + own, `createRuntime 1 "status":"creating" ` + own,
		`createContainer 1 "status":"creating" ` + strings.TrimSpace(inner), `poststart 1 "status":"running" ` + own, `poststop 1 "status":"stopped" ` + own,
	}
	if got := strings.TrimSpace(string(text)); got != strings.Join(want, "\n") {
		t.Errorf("hooks:\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// TestConsoleSocket gets a terminal as conmon does.
func TestConsoleSocket(t *testing.T) {
	b := newBox(t, "tty; stty size; ls -l /proc/self/fd/0; test -c /dev/console && echo console")
	b.spec.Process.Terminal, b.spec.Process.ConsoleSize = true, &specs.Box{Height: 33, Width: 77}
	path := filepath.Join(t.TempDir(), "console")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() { got <- readConsole(l) }()
	b.write()
	if o := b.do("create", "--bundle", b.bundle, b.id); o.code != exitFailed || !strings.Contains(o.err, "console socket") {
		t.Errorf("a terminal without a socket: %+v", o)
	}
	b.must("create", "--bundle", b.bundle, "--console-socket", path, b.id)
	b.must("start", b.id)
	out := <-got
	for _, want := range []string{"outside 33x77", "/dev/pts/0", "33 77", "console"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
}

// readConsole takes a master from a console socket and reads it to its end.
func readConsole(l *net.UnixListener) string {
	c, err := l.AcceptUnix()
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	buf, oob := make([]byte, 64), make([]byte, 64)
	_, n, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return err.Error()
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return fmt.Sprint("no descriptor: ", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err.Error()
	}
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	var out strings.Builder
	if size, err := unix.IoctlGetWinsize(int(master.Fd()), unix.TIOCGWINSZ); err == nil {
		fmt.Fprintf(&out, "outside %dx%d\n", size.Row, size.Col)
	}
	for {
		n, err := master.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			return out.String()
		}
	}
}

// TestNetDevice moves a device with its address.
func TestNetDevice(t *testing.T) {
	name := fmt.Sprintf("gt%d", os.Getpid())
	ip := func(args string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", args, err, out)
		}
	}
	ip("link add " + name + " type veth peer " + name + "p")
	defer exec.Command("ip", "link", "del", name+"p").Run()
	ip("addr add 192.0.2.7/28 dev " + name)
	// The name inside is that of another device outside, as eth0 is mostly.
	ip("link add " + name + "o type veth peer " + name + "q")
	defer exec.Command("ip", "link", "del", name+"o").Run()
	b := newBox(t, "ip addr show dev "+name+"o; sleep 100")
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{name: {Name: name + "o"}}
	path := b.start()
	awaitText(t, path, "192.0.2.7/28")
	inside, _ := os.ReadFile(path)
	outside := entered("--net", "ip", "addr", "show", "dev", name+"o")(t, b.state().PID)
	for side, text := range map[string]string{"inside": string(inside), "outside": outside} {
		if !strings.Contains(text, "192.0.2.7/28") || !strings.Contains(text, ",UP") {
			t.Errorf("%s: %s", side, text)
		}
	}
	if _, err := net.InterfaceByName(name); err == nil {
		t.Errorf("%s is still the host's", name)
	}
}

// TestNoPivot changes the root without pivoting it.
func TestNoPivot(t *testing.T) {
	b := newBox(t, "ls /proc/1/root/bin/busybox; ls /usr 2>&1")
	if o := b.run("--no-pivot"); !strings.Contains(o.out, "/bin/busybox") || !strings.Contains(o.out, "No such file") {
		t.Errorf("%+v", o)
	}
}
