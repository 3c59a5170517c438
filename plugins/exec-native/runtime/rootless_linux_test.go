package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const userID = 1000 // an ordinary user

// asUser hands the bundle to an ordinary user, whose commands are to be run.
func (b *box) asUser() {
	b.t.Helper()
	makeRootless(b.spec)
	b.spec.Process.Terminal = false
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: userID, Size: 1}}
	b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = maps, maps
	b.write()
	if out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", userID, userID), filepath.Dir(b.root), b.bundle).CombinedOutput(); err != nil {
		b.t.Fatalf("%v %s", err, out)
	}
	for _, d := range []string{b.bundle, filepath.Dir(b.bundle), filepath.Dir(b.bin)} {
		if err := os.Chmod(d, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
}

// userDo runs a command of the runtime as the user.
func (b *box) userDo(args ...string) outcome {
	b.t.Helper()
	cmd := b.command(args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: userID, Gid: userID}}
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin"}
	out, err := os.CreateTemp(b.t.TempDir(), "out")
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	var said bytes.Buffer
	cmd.Stdout = out
	if len(args) > 0 && args[0] != "create" { // what stays would hold the pipe
		cmd.Stderr = &said
	}
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	text, _ := os.ReadFile(out.Name())
	return outcome{string(text), said.String(), cmd.ProcessState.ExitCode()}
}

// TestRootless: an ordinary user's container, in a user namespace of the own id,
// without a cgroup.
func TestRootless(t *testing.T) {
	subreaper(t)
	b := newBox(t, "id; cat /proc/self/uid_map; ls -l /dev/null | cut -c1; exit 7")
	b.asUser()
	o := b.userDo("run", "--bundle", b.bundle, b.id)
	if want := "uid=0(root) gid=0\n         0       1000          1\nc\n"; o.code != 7 || o.out != want {
		t.Fatalf("%+v, want %q", o, want)
	}
	b.spec.Process.Args = []string{"/bin/sleep", "100"}
	b.write()
	if o := b.userDo("create", "--bundle", b.bundle, b.id); o.code != 0 {
		t.Fatalf("create: %+v", o)
	}
	pid := b.state().PID
	status := proc("status", "uid_map")(t, pid)
	if !strings.Contains(status, "Uid:\t1000\t1000") || !strings.Contains(status, "0       1000          1") {
		t.Errorf("outside: %s", status)
	}
	for _, args := range [][]string{{"start", b.id}, {"exec", b.id, "/bin/sh", "-c", "id -u; readlink /proc/1/exe > /dev/null; hostname"}, {"kill", b.id, "KILL"}} {
		if o := b.userDo(args...); o.code != 0 || args[0] == "exec" && o.out != "0\ngantry\n" {
			t.Errorf("%v: %+v", args, o)
		}
	}
	b.awaitStatus(specs.StateStopped)
	if o := b.userDo("delete", b.id); o.code != 0 {
		t.Errorf("delete: %+v", o)
	}
}

// TestRootlessRefusals: what an ordinary user cannot have is said.
func TestRootlessRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *specs.Spec)
		says   string
	}{
		"no user namespace": {func(s *specs.Spec) { s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}} }, "user 1000 is not root"},
		"more ids":          {func(s *specs.Spec) { s.Linux.UIDMappings[0].Size = 2 }, "the own id alone"},
		"another's id":      {func(s *specs.Spec) { s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: 1001, Size: 1}} }, "linux.gidMappings"},
		"limit": {func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}}
		}, "limits without the rights of root"},
		"sysctl": {func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"kernel.panic": "1"}
		}, "kernel.panic"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "true")
			b.asUser()
			c.change(b.spec)
			b.write()
			if o := b.userDo("run", "--bundle", b.bundle, b.id); o.code != exitFailed || !strings.Contains(o.err, c.says) {
				t.Errorf("%+v, want %q", o, c.says)
			}
		})
	}
}
