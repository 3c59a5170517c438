package runtime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ctr speaks to a containerd of the test's own. Docker and BuildKit call a
// runtime through it, or as it does.
type ctr struct {
	b       *box
	address string
}

// newCtr starts containerd, with nothing of this machine's.
func newCtr(t *testing.T) ctr {
	t.Helper()
	if _, err := exec.LookPath("containerd"); err != nil {
		t.Fatal("no containerd: install the package containerd")
	}
	b := newBox(t, "true")
	dir, err := os.MkdirTemp("", "gantry-ctr") // of unix sockets, whose names must be short
	if err != nil {
		t.Fatal(err)
	}
	c := ctr{b, dir + "/c"}
	config := fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "%[2]s"
[ttrpc]
  address = "%[2]s.ttrpc"
`, dir, c.address)
	logs, err := os.Create(dir + "/log")
	if err := errors.Join(err, os.WriteFile(dir+"/config.toml", []byte(config), 0o600)); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("containerd", "-c", dir+"/config.toml")
	daemon.Stdout, daemon.Stderr = logs, logs
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(daemon.Process.Signal(syscall.SIGTERM), daemon.Wait(), logs.Close()); err != nil || t.Failed() {
			said, _ := os.ReadFile(logs.Name())
			t.Logf("containerd: %v\n%s", err, said)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for end := time.Now().Add(time.Minute); c.do("version").code != 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("containerd does not answer")
		}
	}
	return c
}

// do runs a command of ctr.
func (c ctr) do(args ...string) outcome {
	var out, said strings.Builder
	cmd := exec.Command("ctr", append([]string{"--address", c.address}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &said
	_ = cmd.Run()
	return outcome{out.String(), said.String(), cmd.ProcessState.ExitCode()}
}

// TestContainerd has containerd's shim make, run, watch and delete containers.
func TestContainerd(t *testing.T) {
	c := newCtr(t)
	short, long := c.b.id+"-short", c.b.id+"-long"
	run := func(args ...string) []string {
		return append([]string{"run", "--runc-binary", c.b.bin, "--rootfs"}, args...)
	}
	t.Cleanup(func() {
		c.do("task", "delete", "--force", long)
		c.do("container", "delete", long)
	})
	rootfs := c.b.bundle + "/rootfs"
	for _, step := range []struct {
		args []string
		code int
		says string
	}{
		{run("--rm", rootfs, short, "/bin/sh", "-c", "echo hello; exit 4"), 4, "hello"},
		{run("--rm", rootfs, short, "/nosuch"), 1, "/nosuch"},
		{run("-d", "--memory-limit", "50000000", rootfs, long, "/bin/sleep", "100"), 0, ""},
		{[]string{"task", "exec", "--exec-id", "e", long, "/bin/sh", "-c", "echo in; exit 6"}, 6, "in"},
		{[]string{"task", "ps", long}, 0, "PID"},
		{[]string{"task", "pause", long}, 0, ""},
		{[]string{"task", "list"}, 0, "PAUSED"},
		{[]string{"task", "resume", long}, 0, ""},
		{[]string{"task", "list"}, 0, "RUNNING"},
		{[]string{"task", "metrics", long}, 0, "49999872"}, // the limit, rounded to pages
		{[]string{"task", "kill", "--signal", "SIGKILL", long}, 0, ""},
	} {
		if o := c.do(step.args...); o.code != step.code || !strings.Contains(o.out+o.err, step.says) {
			t.Errorf("%v: %+v, want %d and %q", step.args, o, step.code, step.says)
		}
	}
	stopped := func() bool { return strings.Contains(c.do("task", "list").out, "STOPPED") }
	for end := time.Now().Add(time.Minute); !stopped() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	if o := c.do("task", "delete", long); o.code != 137 && !strings.Contains(o.err, "137") {
		t.Errorf("delete: %+v, want the code 137", o)
	}
	if out, _ := exec.Command("find", "/sys/fs/cgroup", "-name", c.b.id+"-*").Output(); len(out) > 0 {
		t.Errorf("cgroups left: %s", out)
	}
}
