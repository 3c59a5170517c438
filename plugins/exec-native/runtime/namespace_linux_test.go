package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// procNames are the namespaces' names below /proc/PID/ns.
func procNames() map[specs.LinuxNamespaceType]string {
	return map[specs.LinuxNamespaceType]string{
		specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.MountNamespace: "mnt", specs.IPCNamespace: "ipc",
		specs.UTSNamespace: "uts", specs.CgroupNamespace: "cgroup", specs.UserNamespace: "user", specs.TimeNamespace: "time",
	}
}

// TestNamespaces makes one after the other: those that are named are new, seen
// from inside and from outside, and the others are the host's.
func TestNamespaces(t *testing.T) {
	for kind, name := range procNames() {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, fmt.Sprintf("readlink /proc/self/ns/%s; sleep 100", name))
			b.spec.Hostname, b.spec.Linux.MaskedPaths = "", nil
			b.spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
			if kind != specs.MountNamespace {
				b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
			}
			if kind == specs.UserNamespace {
				b.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 1000}}
				b.spec.Linux.GIDMappings = b.spec.Linux.UIDMappings
				// A procfs is the process namespace's, which is the host's here.
				b.spec.Mounts, b.spec.Linux.ReadonlyPaths = []specs.Mount{{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind"}}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"}}, nil
			}
			path := b.start()
			pid := b.state().PID
			for other, n := range procNames() {
				link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, n))
				if err != nil {
					t.Fatal(err)
				}
				isNew := other == kind || other == specs.MountNamespace
				if (link != ownNamespace(n)) != isNew {
					t.Errorf("%s is %s, ours %s", n, link, ownNamespace(n))
				}
				if other == kind {
					awaitText(t, path, link)
				}
			}
		})
	}
}

// TestKillWithHostPIDs: SIGKILL ends all of a container in the host's PID namespace,
// its first process or not; when nothing is left it is an error.
func TestKillWithHostPIDs(t *testing.T) {
	subreaper(t)
	b := newBox(t, "sleep 100 & exec sleep 101")
	b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	b.start()
	pids := func() (out []int) {
		t.Helper()
		if err := json.Unmarshal([]byte(b.must("ps", "--format", "json", b.id)), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for end := time.Now().Add(time.Minute); len(pids()) < 2 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
	}
	first := b.state().PID
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.awaitStatus(specs.StateStopped)
	var status unix.WaitStatus
	_, _ = unix.Wait4(first, &status, 0, nil)
	if left := pids(); len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
	b.must("kill", b.id, "KILL")
	for len(pids()) > 0 { // a zombie of ours
		_, _ = unix.Wait4(-1, &status, unix.WNOHANG, nil)
	}
	if o := b.do("kill", b.id, "KILL"); o.code != exitFailed || !strings.Contains(o.err, "not running") {
		t.Errorf("with nothing left: %+v", o)
	}
	b.must("kill", "--all", b.id, "KILL")
}

// awaitText waits until a file holds a text.
func awaitText(t *testing.T, path, want string) {
	t.Helper()
	var text []byte
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if text, _ = os.ReadFile(path); strings.Contains(string(text), want) {
			return
		}
	}
	t.Errorf("no %q in %q", want, text)
}

// TestJoinEachNamespace joins those of another container, each by its path.
func TestJoinEachNamespace(t *testing.T) {
	holder := newBox(t, "sleep 100")
	holder.spec.Linux.Namespaces = append(holder.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	holder.start()
	from := holder.state().PID
	for kind, name := range procNames() {
		if kind == specs.UserNamespace {
			continue // with its maps: TestJoinUserNamespace
		}
		t.Run(name, func(t *testing.T) {
			b := newBox(t, fmt.Sprintf("readlink /proc/self/ns/%s; sleep 100", name))
			path := fmt.Sprintf("/proc/%d/ns/%s", from, name)
			b.without(kind)
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
			if kind == specs.UTSNamespace {
				b.spec.Hostname = ""
			}
			output := b.start()
			its, _ := os.Readlink(path)
			if link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", b.state().PID, name)); link != its {
				t.Errorf("outside: %s, want %s", link, its)
			}
			awaitText(t, output, its)
		})
	}
}

// TestJoinUserNamespace joins one with its maps.
func TestJoinUserNamespace(t *testing.T) {
	maps := []specs.LinuxIDMapping{{HostID: 100000, Size: 1000}}
	holder := newBox(t, "sleep 100")
	holder.spec.Linux.Namespaces = append(holder.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	holder.spec.Linux.UIDMappings, holder.spec.Linux.GIDMappings = maps, maps
	holder.start()
	path := fmt.Sprintf("/proc/%d/ns/user", holder.state().PID)
	b := newBox(t, "readlink /proc/self/ns/user; id -u; sleep 100")
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: path})
	output := b.start()
	its, _ := os.Readlink(path)
	if link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", b.state().PID)); link != its {
		t.Errorf("outside: %s, want %s", link, its)
	}
	awaitText(t, output, its+"\n0\n")
}

// TestPropagation: what is mounted on the host appears inside, and the other way
// round, as the mount's word says.
func TestPropagation(t *testing.T) {
	for word, want := range map[string]struct{ in, out bool }{
		"rprivate": {}, "rslave": {in: true}, "rshared": {in: true, out: true},
	} {
		t.Run(word, func(t *testing.T) {
			source := t.TempDir()
			for _, d := range []string{"in", "out"} {
				if err := os.Mkdir(filepath.Join(source, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Mount(source, source, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			defer func() {
				for _, d := range []string{"/in", "/out", ""} {
					_ = unix.Unmount(source+d, unix.MNT_DETACH)
				}
			}()
			if err := unix.Mount("", source, "", unix.MS_SHARED, ""); err != nil {
				t.Fatal(err)
			}
			b := newBox(t, "sleep 100")
			sys := []string{"CAP_SYS_ADMIN"}
			b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: sys, Permitted: sys, Effective: sys}
			b.addMount(specs.Mount{Destination: "/m", Type: "bind", Source: source, Options: []string{"rbind", word}})
			b.start()
			if err := unix.Mount("tmpfs", source+"/in", "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			seen := b.must("exec", b.id, "/bin/cat", "/proc/self/mountinfo")
			if strings.Contains(seen, " /m/in ") != want.in {
				t.Errorf("a mount of the host is seen inside: %v", !want.in)
			}
			b.must("exec", b.id, "/bin/mount", "-t", "tmpfs", "t", "/m/out")
			if out := mountsBelow(t, source+"/out") > 0; out != want.out {
				t.Errorf("a mount from inside is seen on the host: %v", out)
			}
		})
	}
}

// TestExecFlags looks at what exec's own flags and fields do from both sides.
func TestExecFlags(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.start()
	process := filepath.Join(t.TempDir(), "process.json")
	text := `{"args":["/bin/sh","-c","nproc; sleep 50"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0},"execCPUAffinity":{"initial":"0-1","final":"1"}}`
	if err := os.WriteFile(process, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	o := b.do("exec", "--detach", "--pid-file", pidFile, "--process", process, b.id)
	pid, err := os.ReadFile(pidFile)
	if o.code != 0 || err != nil {
		t.Fatalf("%+v %v", o, err)
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%s/status", pid))
	if !strings.Contains(string(status), "Cpus_allowed_list:\t1\n") {
		t.Errorf("affinity from outside: %s", status)
	}
	if o := b.do("exec", "--process", process+"x", b.id); o.code != execCode {
		t.Errorf("no such file: %+v", o)
	}
	inside := strings.Replace(text, "; sleep 50", "", 1)
	if err := os.WriteFile(process, []byte(inside), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := b.do("exec", "--process", process, b.id); strings.TrimSpace(o.out) != "1" {
		t.Errorf("affinity from inside: %+v", o)
	}
}

// TestExecCgroup runs a program in a group below the container's.
func TestExecCgroup(t *testing.T) {
	b := newBox(t, "sleep 100")
	b.start()
	for line := range strings.Lines(proc("cgroup")(t, b.state().PID)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[2] == "/" {
			continue
		}
		name := strings.TrimPrefix(f[1], "name=")
		if name == "" {
			name = "unified"
		}
		group := filepath.Join("/sys/fs/cgroup", name, f[2], "sub")
		if _, err := os.Stat(filepath.Dir(group)); err != nil {
			group = filepath.Join("/sys/fs/cgroup", f[2], "sub")
		}
		if err := os.Mkdir(group, 0o755); err != nil {
			t.Fatal(err)
		}
		if name == "cpuset" {
			for _, n := range []string{"cpuset.cpus", "cpuset.mems"} {
				of, _ := os.ReadFile(filepath.Join(filepath.Dir(group), n))
				_ = os.WriteFile(filepath.Join(group, n), of, 0o644)
			}
		}
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	b.must("exec", "--detach", "--cgroup", "sub", "--pid-file", pidFile, b.id, "/bin/sleep", "50")
	one, _ := os.ReadFile(pidFile)
	outside, _ := os.ReadFile(fmt.Sprintf("/proc/%s/cgroup", one))
	inside := b.must("exec", "--cgroup", "sub", b.id, "/bin/cat", "/proc/self/cgroup")
	for where, text := range map[string]string{"outside": string(outside), "inside": inside} {
		for line := range strings.Lines(text) {
			if at := strings.TrimSpace(line); !strings.HasSuffix(at, "/sub") && !strings.HasSuffix(at, ":/") {
				t.Errorf("%s: %s", where, line)
			}
		}
		if !strings.Contains(text, "/sub\n") {
			t.Errorf("%s: %s", where, text)
		}
	}
	if _, err := os.Stat("/sys/fs/cgroup/pids"); err == nil { // hierarchies of version 1: some of them alone
		text := b.must("exec", "--cgroup", "pids,cpu:/sub", b.id, "/bin/cat", "/proc/self/cgroup")
		for line := range strings.Lines(text) {
			f := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if in := f[1] == "pids" || strings.HasPrefix(f[1], "cpu,") || f[1] == "cpu"; in != strings.HasSuffix(f[2], "/sub") {
				t.Errorf("in groups of two controllers: %s", line)
			}
		}
	}
	if o := b.do("exec", "--cgroup", "nosuch:sub", b.id, "/bin/true"); o.code != execCode || !strings.Contains(o.err, "no such controller") {
		t.Errorf("%+v", o)
	}
}

// TestPreserveFDs passes descriptors on, to a container and to another program.
func TestPreserveFDs(t *testing.T) {
	b := newBox(t, "cat <&4; ls /proc/self/fd | wc -l")
	b.write()
	var files []*os.File
	for i := range 2 {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(fmt.Sprintf("number %d\n", i)), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	run := func(cmd *exec.Cmd) string {
		t.Helper()
		cmd.ExtraFiles = files
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v %s", cmd.Args, err, out)
		}
		return string(out)
	}
	if out := run(b.command("run", "--bundle", b.bundle, "--preserve-fds", "2", b.id)); out != "number 1\n6\n" { // with ls's own
		t.Errorf("run: %q", out)
	}
	b.spec.Process.Args = []string{"/bin/sleep", "100"}
	b.start()
	for _, f := range files {
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if out := run(b.command("exec", "--preserve-fds", "1", b.id, "/bin/sh", "-c", "cat <&3; ls /proc/self/fd | wc -l")); out != "number 0\n5\n" {
		t.Errorf("exec: %q", out)
	}
	for pid, want := range map[string]string{"$$": "number 0\n1 1\n", "1": "none\n"} { // of socket activation
		b.must("delete", "--force", b.id)
		b.spec.Process.Args = []string{"/bin/sh", "-c", "if cat <&3; then echo $LISTEN_FDS $LISTEN_PID; else echo none; fi 2>/dev/null"}
		b.write()
		if _, err := files[0].Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", fmt.Sprintf(`LISTEN_FDS=1 LISTEN_PID=%s exec "$@"`, pid), "sh", b.bin, "--root", b.root, "run", "--bundle", b.bundle, b.id)
		if out := run(cmd); out != want {
			t.Errorf("activated as %s: %q", pid, out)
		}
	}
	b.spec.Process.Args = []string{"/bin/sleep", "100"}
	b.start()
	link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", b.state().PID))
	if link != "" {
		t.Errorf("the container has %s, which it was not given", link)
	}
	if o := b.do("exec", "--preserve-fds", "3", b.id, "/bin/true"); o.code != execCode || !strings.Contains(o.err, "descriptor") {
		t.Errorf("descriptors that are not there: %+v", o)
	}
}
