package execnative

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/stdio"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// execRequest asks for a shell script in a run, held at its gate until somebody
// listens.
func execRequest(k execdriver.Key, script string) execdriver.Exec {
	var id [32]byte
	rand.Read(id[:])
	k.Exec = hex.EncodeToString(id[:])
	return execdriver.Exec{
		Key:     k,
		Process: execdriver.Process{Args: []string{"/bin/sh", "-c", script}},
		Stdio:   execdriver.Stdio{WaitAttach: true, Log: execdriver.LogConfig{Driver: "none"}},
	}
}

// exec runs an exec to its end, gives it input, and returns output and exit.
func (b *bench) exec(r execdriver.Exec, input string) (string, execdriver.Exit) {
	b.t.Helper()
	out, err := b.tryExec(r, input)
	if err != nil {
		b.t.Fatal(err)
	}
	end := b.wait(r.Key)
	if err := b.d.Release(context.Background(), r.Key); err != nil {
		b.t.Fatal(err)
	}
	return out, end
}

func (b *bench) tryExec(r execdriver.Exec, input string) (string, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	started := make(chan error, 1)
	go func() {
		_, err := b.d.Exec(ctx, r)
		started <- err
	}()
	var c *stdio.Conn
	for c == nil {
		var err error
		hello := stdio.Hello{Stdout: true, Stderr: true, Stdin: r.Stdio.OpenStdin, StdinOnce: true, Lossless: true}
		if c, _, err = stdio.Dial(ctx, execdriver.SocketPath(b.cfg.Run, r.Key), hello); err == nil {
			break
		}
		select {
		case err := <-started:
			return "", errors.Join(err, errNoSocket)
		case <-time.After(time.Millisecond):
		}
	}
	defer c.Close()
	if input != "" {
		if _, err := c.Write([]byte(input)); err != nil {
			return "", err
		}
	}
	if r.Stdio.OpenStdin && !r.Process.TTY {
		if err := c.CloseInput(); err != nil {
			return "", err
		}
	}
	var out strings.Builder
	for {
		f, err := c.Next()
		if err != nil {
			return out.String(), errors.Join(<-started, err)
		}
		switch f.Type {
		case stdio.FrameStdout, stdio.FrameStderr:
			out.Write(f.Payload)
		case stdio.FrameExit:
			return out.String(), <-started
		}
	}
}

var errNoSocket = errors.New("started without a client")

// idle starts a container that does nothing.
func (b *bench) idle(change func(*execdriver.Start)) (execdriver.Start, execdriver.Started) {
	b.t.Helper()
	r := b.request("trap 'exit 0' TERM; sleep 1000 & wait")
	if change != nil {
		change(&r)
	}
	s, err := b.d.Start(context.Background(), r)
	if err != nil {
		b.t.Fatal(err)
	}
	return r, s
}

func TestExecJoinsEverything(t *testing.T) {
	b := newBench(t)
	r, s := b.idle(nil)
	// From inside: the container's namespaces, cgroups, identity and filter.
	script := `for n in mnt pid ipc uts net cgroup; do test "$(readlink /proc/self/ns/$n)" = "$(readlink /proc/1/ns/$n)" || echo other $n; done
		cut -d: -f3- /proc/self/cgroup | sort -u; hostname; ` + status + `; echo $HOME $HOSTNAME; ls /proc/self/fd | wc -l`
	want := "/\nbox\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t0 10\nCapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\n" +
		"CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n/root box\n4\n"
	os.Symlink("busybox", b.lower+"/bin/cut")
	os.Symlink("busybox", b.lower+"/bin/sort")
	out, e := b.exec(execRequest(r.Key, script), "")
	if out != want || e.Code != 0 {
		t.Errorf("ended with %+v and said\n%s\nwant\n%s", e, out, want)
	}
	// From outside: in the container's groups, and nothing of it is left.
	x := execRequest(r.Key, "sleep 1000")
	x.Stdio.WaitAttach = false
	started, err := b.d.Exec(context.Background(), x)
	if err != nil {
		t.Fatal(err)
	}
	mine, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", started.PID))
	first, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.PID))
	if string(mine) != string(first) || len(mine) == 0 {
		t.Errorf("cgroups of the exec\n%s\nof the container\n%s", mine, first)
	}
	if err := b.d.Signal(context.Background(), x.Key, 15); err != nil {
		t.Error(err)
	}
	if e := b.wait(x.Key); e.Code != 143 || e.Signal != 15 {
		t.Errorf("%+v", e)
	}
	if err := b.d.Signal(context.Background(), x.Key, 15); !errdefs.IsNotFound(err) {
		t.Errorf("signal to an ended exec: %v", err)
	}
	if err := b.d.Release(context.Background(), x.Key); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(execdriver.RunDir(b.cfg.Run, x.Key)); !os.IsNotExist(err) {
		t.Errorf("directory of the exec: %v", err)
	}
	if err := unix.Kill(s.PID, 0); err != nil {
		t.Errorf("the container is gone: %v", err)
	}
}

func TestExecProcess(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(nil)
	x := execRequest(r.Key, `id; pwd; echo $A; cat; exit 7`)
	x.Process.User, x.Process.Cwd, x.Process.Env = "bob", "/tmp", []string{"A=b"}
	x.Process.Groups = []string{"audio", "77"}
	x.Stdio.OpenStdin = true
	out, e := b.exec(x, "some input\n")
	if want := "uid=1000(bob) gid=1001(users) groups=10(wheel),29(audio),77,1001(users)\n/tmp\nb\nsome input\n"; out != want || e.Code != 7 {
		t.Errorf("%q %+v, want %q", out, e, want)
	}
	x = execRequest(r.Key, `tty; stty size; echo $TERM; test -t 0 && test -t 1 && test -t 2 && echo terminal; exit 3`)
	x.Process.TTY, x.Process.Rows, x.Process.Columns = true, 33, 44
	for _, n := range []string{"tty", "stty"} {
		os.Symlink("busybox", b.lower+"/bin/"+n)
	}
	out, e = b.exec(x, "")
	if want := "/dev/pts/0\r\n33 44\r\nxterm\r\nterminal\r\n"; out != want || e.Code != 3 {
		t.Errorf("%q %+v, want %q", out, e, want)
	}
	x = execRequest(r.Key, status)
	x.Privileged = true
	out, _ = b.exec(x, "")
	if want := fmt.Sprintf("CapEff:\t%016x\n", b.d.facts.Bounding); !strings.Contains(out, want) || !strings.Contains(out, "Seccomp:\t0") {
		t.Errorf("privileged exec said\n%s", out)
	}
}

func TestExecRefused(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(nil)
	for program, class := range map[string]error{
		"nope": errdefs.ErrNotFound, "/bin/nope": errdefs.ErrNotFound, "/etc/passwd": errdefs.ErrPermissionDenied, "/bin": errdefs.ErrPermissionDenied,
	} {
		x := execRequest(r.Key, "")
		x.Process.Args = []string{program}
		x.Stdio.WaitAttach = false
		if _, err := b.d.Exec(context.Background(), x); !errors.Is(err, class) {
			t.Errorf("%s: %v, want %v", program, err, class)
		}
		if _, err := os.Stat(execdriver.RunDir(b.cfg.Run, x.Key)); !os.IsNotExist(err) {
			t.Errorf("%s: directory of the exec: %v", program, err)
		}
	}
	x := execRequest(r.Key, "true")
	x.Process.Cwd = "/no/such"
	x.Stdio.WaitAttach = false
	if _, err := b.d.Exec(context.Background(), x); !errdefs.IsInvalidArgument(err) {
		t.Errorf("missing cwd: %v", err)
	}
	if err := b.d.Freeze(context.Background(), r.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := b.d.Exec(context.Background(), x); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "paused") {
		t.Errorf("in a paused container: %v", err)
	}
	if err := b.d.Signal(context.Background(), r.Key, 9); err != nil {
		t.Fatal(err)
	}
	b.wait(r.Key)
	x = execRequest(r.Key, "true")
	if _, err := b.d.Exec(context.Background(), x); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("in an ended container: %v", err)
	}
}

// TestExecEndsWithItsContainer, and survives the driver.
func TestExecEndsWithItsContainer(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(nil)
	var keys []execdriver.Key
	for _, script := range []string{"sleep 1000", "exit 9"} {
		x := execRequest(r.Key, script)
		x.Stdio.WaitAttach = false
		if _, err := b.d.Exec(context.Background(), x); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, x.Key)
	}
	b.wait(keys[1])
	old := b.d
	b.open() // a second instance, as after the driver's death
	old.close()
	if e := b.wait(keys[1]); e.Code != 9 {
		t.Errorf("an exec that ended before the restart: %+v", e)
	}
	items, err := b.d.List(context.Background())
	if err != nil || len(items) != 3 || items[1].Exec == "" && items[2].Exec == "" {
		t.Errorf("list after a restart: %+v %v", items, err)
	}
	if err := b.d.Signal(context.Background(), r.Key, 9); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(keys[0]); e.Code != 137 || e.Signal != 9 {
		t.Errorf("an exec of an ended container: %+v", e)
	}
	for _, k := range append(keys, r.Key) {
		if err := b.d.Release(context.Background(), k); err != nil {
			t.Error(err)
		}
	}
}

// TestExecShimLost: only the exec ends.
func TestExecShimLost(t *testing.T) {
	b := newBench(t)
	r, s := b.idle(nil)
	x := execRequest(r.Key, "sleep 1000")
	x.Stdio.WaitAttach = false
	started, err := b.d.Exec(context.Background(), x)
	if err != nil {
		t.Fatal(err)
	}
	b.d.mu.Lock()
	shim := b.d.runs[x.Key].shim
	b.d.mu.Unlock()
	if err := unix.PidfdSendSignal(int(shim.Fd()), unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(x.Key); !e.Lost || e.Code != 137 || e.Reason != "shim lost" {
		t.Errorf("%+v", e)
	}
	b.eventually("the process is gone", func() bool { return unix.Kill(started.PID, 0) != nil })
	if err := unix.Kill(s.PID, 0); err != nil {
		t.Errorf("the container ended too: %v", err)
	}
	if err := b.d.Release(context.Background(), x.Key); err != nil {
		t.Error(err)
	}
}

// bindOut shows a directory of the host at /out.
func bindOut(dir string) []driver.Mount {
	return []driver.Mount{{Type: "bind", Source: dir, Target: "/out", Options: []string{"rbind"}}}
}

// TestExecInWhatHasEnded: a container that ends after an exec has found it, also
// before there is anything of the exec.
func TestExecInWhatHasEnded(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(nil)
	x := execRequest(r.Key, "true")
	one, _ := b.d.claim(x.Key)
	in, err := b.d.enter(one)
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	if in.ended() {
		t.Error("it is said to have ended")
	}
	if err := b.d.Release(t.Context(), r.Key); err != nil {
		t.Fatal(err)
	}
	if _, err = b.d.launchIn(t.Context(), one, joiner{process: x.Process}, in, nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("an exec in what has ended meanwhile: %v", err)
	}
	b.d.forget(one)
	os.RemoveAll(one.dir)
}
