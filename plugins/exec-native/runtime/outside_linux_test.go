package runtime

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// outsideCase changes one thing of a specification and looks at the running
// container from the host: through its /proc/PID, or by entering one of its
// namespaces alone.
type outsideCase struct {
	change func(b *box)
	look   func(t *testing.T, pid int) string
	want   string // lines that must be seen, in order
}

// proc reads files of the container's first process.
func proc(files ...string) func(*testing.T, int) string {
	return func(t *testing.T, pid int) string {
		var out strings.Builder
		for _, f := range files {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, f))
			if err != nil {
				t.Error(err)
			}
			out.Write(bytes.ReplaceAll(text, []byte{0}, []byte{'\n'}))
			out.WriteByte('\n')
		}
		return out.String()
	}
}

// entered runs a program of the host's in one of the container's namespaces.
func entered(namespace string, args ...string) func(*testing.T, int) string {
	return func(t *testing.T, pid int) string {
		cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(pid), namespace}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("nsenter %s %v: %v %s", namespace, args, err, out)
		}
		return string(out)
	}
}

// TestFieldsOutside is TestFields from the other side.
func TestFieldsOutside(t *testing.T) {
	for name, c := range outsideCases() {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "trap 'exit 0' TERM; sleep 100 & wait")
			c.change(b)
			b.start()
			pid := b.state().PID
			awaitCaught(t, pid, unix.SIGTERM) // in the middle of its execution it shows no words
			rest := c.look(t, pid)
			whole := rest
			for _, line := range strings.Split(c.want, "\n") {
				_, after, ok := strings.Cut(rest, line)
				if !ok {
					t.Fatalf("no %q in:\n%s", line, whole)
				}
				rest = after
			}
		})
	}
}

func outsideCases() map[string]outsideCase {
	cases := map[string]outsideCase{}
	for _, part := range []map[string]outsideCase{processOutside(), linuxOutside(), rootOutside()} {
		for name, c := range part {
			cases[name] = c
		}
	}
	return cases
}

func processOutside() map[string]outsideCase {
	return map[string]outsideCase{
		"user": {func(b *box) {
			b.spec.Process.User = specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7, 8}, Umask: ptr(uint32(0o027))}
		}, proc("status"), "Umask:\t0027\nUid:\t5\t5\t5\t5\nGid:\t6\t6\t6\t6\nGroups:\t7 8"},
		"program": {func(b *box) {
			b.spec.Process.Cwd, b.spec.Process.Env = "/tmp", append(b.spec.Process.Env, "SEEN=outside")
		}, func(t *testing.T, pid int) string {
			cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
			return proc("cmdline", "environ")(t, pid) + cwd
		}, "/bin/sh\n-c\nSEEN=outside\n/tmp"},
		"oom score": {func(b *box) { b.spec.Process.OOMScoreAdj = ptr(444) }, proc("oom_score_adj"), "444"},
		"rlimit": {func(b *box) {
			b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 10 << 10, Hard: 20 << 10}, {Type: "RLIMIT_NOFILE", Soft: 99, Hard: 101}}
		}, proc("limits"), "Max core file size        10240                20480\nMax open files            99                   101"},
		"capabilities": {func(b *box) {
			k := []string{"CAP_KILL"}
			b.spec.Process.User.UID, b.spec.Process.NoNewPrivileges = 9, true
			b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_CHOWN"}, Permitted: k, Effective: k, Inheritable: k, Ambient: k}
		}, proc("status"), "CapInh:\t0000000000000020\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000021\nCapAmb:\t0000000000000020\nNoNewPrivs:\t1"},
		"scheduler": {func(b *box) { b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7} }, func(t *testing.T, pid int) string {
			a, err := unix.SchedGetAttr(pid, 0)
			return fmt.Sprint(a.Policy, a.Nice, err)
		}, "3 7 <nil>"},
		"io priority": {func(b *box) {
			b.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
		}, func(_ *testing.T, pid int) string {
			const whoProcess = 1
			n, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, whoProcess, uintptr(pid), 0)
			return fmt.Sprint(n>>13, n&7, errno)
		}, "2 6 errno 0"},
		"terminal": {func(b *box) { b.spec.Process.Terminal = false }, func(t *testing.T, pid int) string {
			return strings.Fields(proc("stat")(t, pid))[6]
		}, "0"},
	}
}

func linuxOutside() map[string]outsideCase {
	add := func(b *box, t specs.LinuxNamespaceType) {
		b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: t})
	}
	return map[string]outsideCase{
		"hostname":    {func(b *box) { b.spec.Hostname = "seen" }, entered("--uts", "hostname"), "seen"},
		"domainname":  {func(b *box) { b.spec.Domainname = "dom" }, entered("--uts", "cat", "/proc/sys/kernel/domainname"), "dom"},
		"net sysctl":  {func(b *box) { b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"} }, entered("--net", "cat", "/proc/sys/net/ipv4/ip_forward"), "1"},
		"ipc sysctl":  {func(b *box) { b.spec.Linux.Sysctl = map[string]string{"kernel.msgmax": "9000"} }, entered("--ipc", "cat", "/proc/sys/kernel/msgmax"), "9000"},
		"personality": {func(b *box) { b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }, proc("personality"), "00000008"},
		"time": {func(b *box) {
			add(b, specs.TimeNamespace)
			b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1_000_000_000}, "monotonic": {Secs: 5, Nanosecs: 7}}
		}, proc("timens_offsets"), "monotonic           5         7\nboottime   1000000000"},
		"maps": {func(b *box) {
			add(b, specs.UserNamespace)
			b.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}}
			b.spec.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 1000}}
		}, proc("uid_map", "gid_map", "status"), "0     100000       1000\n0     200000       1000\nUid:\t100000\nGid:\t200000"},
		"seccomp": {func(b *box) {
			b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActErrno}}}
		}, proc("status"), "Seccomp:\t2\nSeccomp_filters:\t1"},
		"cgroups path": {func(b *box) { b.spec.Linux.CgroupsPath = "/" + b.id + "/below" }, func(t *testing.T, pid int) string {
			return proc("cgroup")(t, pid)
		}, "/below"},
		"limits": {func(b *box) {
			b.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(19))}
			b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}
		}, limitsSeen, "pids 19\nmemory 67108864"},
	}
}

// limitsSeen reads limits where the host has the container's cgroup.
func limitsSeen(t *testing.T, pid int) string {
	var out strings.Builder
	for line := range strings.Lines(proc("cgroup")(t, pid)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for name, files := range map[string][]string{
			"pids":   {"/sys/fs/cgroup/pids" + f[2] + "/pids.max", "/sys/fs/cgroup" + f[2] + "/pids.max"},
			"memory": {"/sys/fs/cgroup/memory" + f[2] + "/memory.limit_in_bytes", "/sys/fs/cgroup" + f[2] + "/memory.max"},
		} {
			if f[1] != name && f[1] != "" {
				continue
			}
			for _, file := range files {
				if text, err := os.ReadFile(file); err == nil && f[2] != "/" {
					fmt.Fprintf(&out, "%s %s", name, text)
				}
			}
		}
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) > 1 && strings.HasPrefix(lines[0], "memory") {
		lines[0], lines[1] = lines[1], lines[0]
	}
	return strings.Join(lines, "\n")
}

func rootOutside() map[string]outsideCase {
	mountinfo := proc("mountinfo")
	rooted := func(path string) func(t *testing.T, pid int) string {
		return func(t *testing.T, pid int) string {
			var st unix.Stat_t
			if err := unix.Lstat(fmt.Sprintf("/proc/%d/root%s", pid, path), &st); err != nil {
				t.Error(err)
			}
			return fmt.Sprintf("%#o %d:%d %d %d", st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Uid, st.Gid)
		}
	}
	return map[string]outsideCase{
		"read-only root": {func(b *box) { b.spec.Root.Readonly = true }, mountinfo, "/rootfs / ro,"},
		"root path": {func(*box) {}, func(t *testing.T, pid int) string {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/etc/passwd", pid))
			return fmt.Sprint(string(text), err)
		}, "root:x:0:0\n<nil>"},
		"masked": {func(b *box) { b.spec.Linux.MaskedPaths = []string{"/etc/passwd", "/data"} }, func(t *testing.T, pid int) string {
			return rooted("/etc/passwd")(t, pid) + "\n" + mountinfo(t, pid)
		}, " 1:3 \n/etc/passwd \n/data ro,"},
		"read-only": {func(b *box) { b.spec.Linux.ReadonlyPaths = []string{"/tmp"} }, mountinfo, " /tmp ro,"},
		"device": {func(b *box) {
			mode := os.FileMode(0o640)
			b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/deep/zero", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: ptr(uint32(3)), GID: ptr(uint32(4))}}
		}, rooted("/dev/deep/zero"), "020640 1:5 3 4"},
		"mount": {func(b *box) {
			b.addMount(specs.Mount{Destination: "/seen", Type: "tmpfs", Source: "name", Options: []string{"size=1m", "nosuid", "ro"}})
		}, mountinfo, " /seen ro,nosuid\n- tmpfs name\nsize=1024k"},
		"shared root":     {func(b *box) { b.spec.Linux.RootfsPropagation = "shared" }, mountinfo, "/rootfs / rw,relatime shared:"},
		"unbindable root": {func(b *box) { b.spec.Linux.RootfsPropagation = "unbindable" }, mountinfo, "/rootfs / rw,relatime unbindable"},
	}
}
