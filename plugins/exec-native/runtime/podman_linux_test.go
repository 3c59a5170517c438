package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// podman is a podman of the test's own, with this runtime.
type podman struct {
	t    *testing.T
	args []string
}

// newPodman makes storage and an image of busybox, from a local archive.
func newPodman(t *testing.T) *podman {
	t.Helper()
	if _, err := exec.LookPath("podman"); err != nil {
		t.Fatal("no podman: install the package podman")
	}
	b := newBox(t, "true")
	dir, err := os.MkdirTemp("", "gantry-podman")
	if err != nil {
		t.Fatal(err)
	}
	// podman 4.3 leaves its runtime flags out of some commands: the root is in a
	// program of its own.
	wrapper := dir + "/gantry-oci"
	script := fmt.Sprintf("#!/bin/sh\nexec %s --root %s/state \"$@\"\n", b.bin, dir)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &podman{t, []string{
		"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
		"--events-backend", "file", "--tmpdir", dir + "/tmp", "--runtime", wrapper,
	}}
	t.Cleanup(func() {
		p.do("rm", "--all", "--force", "--time", "0")
		if left, _ := os.ReadDir(dir + "/state"); len(left) > 1 || len(left) == 1 && left[0].Name() != filtersDir {
			t.Errorf("containers left: %v", left)
		}
		os.RemoveAll(dir)
	})
	if out, err := exec.Command("tar", "-c", "-C", b.bundle+"/rootfs", "-f", dir+"/root.tar", ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if o := p.do("import", dir+"/root.tar", "box"); o.code != 0 {
		t.Fatalf("import: %+v", o)
	}
	return p
}

// do runs a podman command.
func (p *podman) do(args ...string) outcome {
	p.t.Helper()
	var out, said strings.Builder
	cmd := exec.Command("podman", append(append([]string{}, p.args...), args...)...)
	cmd.Stdout, cmd.Stderr = &out, &said
	_ = cmd.Run()
	return outcome{out.String(), said.String(), cmd.ProcessState.ExitCode()}
}

// limits keeps podman from asking for more than the tests' root may give: it
// raises its own limits to the kernel's most.
func limits(args ...string) []string {
	return append([]string{"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--network", "none"}, args...)
}

// TestPodman has podman run, exec, stop and remove containers.
func TestPodman(t *testing.T) {
	p := newPodman(t)
	run := func(args ...string) outcome {
		t.Helper()
		return p.do(append([]string{"run", "--rm"}, limits(args...)...)...)
	}
	for _, c := range []struct { // a test each: where processors are translated podman takes seconds for one
		args []string
		code int
		says string
	}{
		{[]string{"box", "/bin/sh", "-c", "echo hello; exit 4"}, 4, "hello"},
		{[]string{"-t", "box", "/bin/tty"}, 0, "/dev/pts/0"},
		{[]string{"--memory", "64m", "--pids-limit", "20", "--read-only", "--tmpfs", "/x", "box", "/bin/sh", "-c", "touch /x/y && echo ok"}, 0, "ok"},
		{[]string{"--privileged", "box", "/bin/ls", "/dev/null"}, 0, "/dev/null"},
		{[]string{"--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000", "box", "/bin/cat", "/proc/self/uid_map"}, 0, "100000"},
		{[]string{"--hostname", "foo", "--sysctl", "kernel.msgmax=9000", "--security-opt", "no-new-privileges", "box", "/bin/sh", "-c", "hostname; cat /proc/sys/kernel/msgmax"}, 0, "foo\n9000"},
		{[]string{"--cap-drop", "all", "--cap-add", "net_raw", "-u", "5", "box", "/bin/grep", "Cap", "/proc/self/status"}, 0, "CapEff:\t0000000000002000"},
		{[]string{"--security-opt", "seccomp=unconfined", "--security-opt", "mask=/etc/passwd", "box", "/bin/sh", "-c", "wc -c /etc/passwd; grep Seccomp: /proc/self/status"}, 0, "0 /etc/passwd\nSeccomp:\t0"},
		{[]string{"--memory", "64m", "--cpus", "0.5", "--cpu-shares", "200", "--cpuset-cpus", "0", "box", "/bin/nproc"}, 0, "1"},
		{[]string{"--pid", "host", "--ipc", "host", "--uts", "host", "box", "/bin/readlink", "/proc/self/ns/pid"}, 0, ownNamespace("pid")},
		{[]string{"--cgroupns", "private", "box", "/bin/cat", "/proc/self/cgroup"}, 0, ":/\n"},
		{[]string{"--read-only", "--read-only-tmpfs", "box", "/bin/sh", "-c", "touch /x || touch /tmp/x && echo ok"}, 0, "ok"},
		{[]string{"--device", "/dev/fuse", "box", "/bin/ls", "/dev/fuse"}, 0, "/dev/fuse"},
		{[]string{"box", "/nosuch"}, 127, "no such file"},
		{[]string{"box", "nosuch"}, 127, "not found in $PATH"},
		{[]string{"box", "/etc/passwd"}, 126, "ermission denied"},
	} {
		t.Run(c.args[0], func(t *testing.T) {
			if o := run(c.args...); o.code != c.code || !strings.Contains(o.out+o.err, c.says) && !strings.Contains(strings.ReplaceAll(o.out, "\r", ""), c.says) {
				t.Errorf("run %v: %+v, want %d and %q", c.args, o, c.code, c.says)
			}
		})
	}
}

// TestPodmanLife keeps a container for a while.
func TestPodmanLife(t *testing.T) {
	p := newPodman(t)
	if o := p.do(append([]string{"run", "-d", "--name", "w"}, limits("box", "/bin/sh", "-c", "echo up; sleep 100")...)...); o.code != 0 {
		t.Fatalf("%+v", o)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(p.do("logs", "w").out, "up") && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"logs", "w"}, 0, "up"},
		{[]string{"exec", "w", "/bin/sh", "-c", "echo in; exit 6"}, 6, "in"},
		{[]string{"exec", "-t", "w", "/bin/tty"}, 0, "/dev/pts/"},
		{[]string{"exec", "-u", "5", "-w", "/tmp", "-e", "A=b", "w", "/bin/sh", "-c", "id -u; pwd; echo $A"}, 0, "5\n/tmp\nb"},
		{[]string{"exec", "-d", "w", "/bin/sleep", "50"}, 0, ""},
		{[]string{"exec", "--privileged", "w", "/bin/grep", "CapBnd", "/proc/self/status"}, 0, "000001"},
		{append(append([]string{"run", "--rm"}, limits()[:4]...), "--pid", "container:w", "--network", "container:w", "box", "/bin/cat", "/proc/1/cmdline"), 0, "sleep"},
		{[]string{"top", "w"}, 0, "sleep"},
		{[]string{"update", "--memory", "50m", "w"}, 0, ""},
		{[]string{"kill", "-s", "WINCH", "w"}, 0, ""},
		{[]string{"pause", "w"}, 0, ""},
		{[]string{"inspect", "-f", "{{.State.Status}}", "w"}, 0, "paused"},
		{[]string{"unpause", "w"}, 0, ""},
		{[]string{"stop", "-t", "0", "w"}, 0, ""},
		{[]string{"inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "w"}, 0, "exited 137"},
		{[]string{"start", "w"}, 0, ""},
		{[]string{"restart", "-t", "0", "w"}, 0, ""},
		{[]string{"healthcheck", "run", "w"}, 125, ""}, // it has none
		{[]string{"rm", "-f", "-t", "0", "w"}, 0, ""},
		{[]string{"ps", "-aq"}, 0, ""},
	} {
		t.Run(c.args[0], func(t *testing.T) {
			if o := p.do(c.args...); o.code != c.code || !strings.Contains(o.out, c.says) {
				t.Errorf("%v: %+v, want %d and %q", c.args, o, c.code, c.says)
			}
		})
	}
}
