package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

// TestMain lets the test's own program be gantryd.
func TestMain(m *testing.M) {
	if os.Getenv("GANTRYD_TEST_IS_GANTRYD") == "1" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// place is a private engine's directories.
type place struct{ root, run, name string }

func newPlace(t *testing.T) place {
	t.Helper()
	run, err := os.MkdirTemp("/run", "gd-") // a socket's address is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	return place{filepath.Join(t.TempDir(), "root"), run, fmt.Sprintf("gdtest-%d", os.Getpid())}
}

func (p place) command(t *testing.T, more ...string) *exec.Cmd {
	args := append([]string{"--root", p.root, "--run", p.run, "--name", p.name, "--driver-path", t.TempDir()}, more...)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "GANTRYD_TEST_IS_GANTRYD=1")
	return cmd
}

// start starts gantryd and waits until it is ready. It is ended with the test.
func (p place) start(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	cmd := p.command(t)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	want := "gantryd: ready on unix://" + p.run + "/gantry.sock\n"
	if err != nil || line != want {
		t.Fatalf("gantryd said %q (%v), want %q", line, err, want)
	}
	return cmd
}

func (p place) dial(t *testing.T) *bus.Client {
	t.Helper()
	c, err := bus.Dial(t.Context(), bus.Options{Host: "unix://" + filepath.Join(p.run, bus.ControlSocket), Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestLifeOfADaemon(t *testing.T) {
	p := newPlace(t)
	manager := filepath.Join(p.run, "notify")
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: manager, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cmd := p.start(t, "NOTIFY_SOCKET="+manager)
	buf := make([]byte, 64)
	if n, err := listener.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("the service manager heard %q, %v", buf[:n], err)
	}
	var first, second query.Info
	if err := p.dial(t).Query(t.Context(), query.EngineInfo, nil, &first); err != nil {
		t.Fatal(err)
	}
	if first.PID != cmd.Process.Pid || first.Engine.Name != p.name || first.Networks != 3 {
		t.Errorf("info says %+v", first)
	}
	err = p.dial(t).Query(t.Context(), query.ContainerInspect, query.RefIn{Ref: "nobody"}, nil)
	if !errdefs.IsNotFound(err) {
		t.Errorf("a container that is not there: %v", err)
	}
	begun := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM it ended with %v", err)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("it took %v to end with nothing to do", took)
	}
	if _, err := os.Stat("/run/gantry-engine-" + p.name + ".lock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock of the name is left behind (%v)", err)
	}
	p.start(t)
	if err := p.dial(t).Query(t.Context(), query.EngineInfo, nil, &second); err != nil {
		t.Fatal(err)
	}
	if second.Engine.ID != first.Engine.ID || second.Engine.Epoch <= first.Engine.Epoch {
		t.Errorf("after a restart: %+v, before %+v", second.Engine, first.Engine)
	}
}

func TestADriverThatIsNotThere(t *testing.T) {
	p := newPlace(t)
	p.start(t)
	c := p.dial(t)
	job := "018f0000-0000-7000-8000-000000000001"
	receipt, err := c.Command(t.Context(), bus.Command{Job: job, Name: "image.load", Body: []byte(`{"archive":"/nowhere.tar"}`)})
	if err != nil || receipt.Job != job {
		t.Fatalf("receipt %+v, %v", receipt, err)
	}
	var d query.JobDetail
	for begun := time.Now(); time.Since(begun) < 20*time.Second; time.Sleep(50 * time.Millisecond) {
		if err := c.Query(t.Context(), query.JobInspect, query.RefIn{Ref: job}, &d); err != nil {
			t.Fatal(err)
		}
		if !d.Job.Open() {
			break
		}
	}
	if d.Job.Fault == nil || d.Job.Fault.Class != "unavailable" || !strings.Contains(d.Job.Fault.Message, "gantry-image-oci") {
		t.Errorf("the job is %s: %+v", d.Job.State, d.Job.Fault)
	}
	_, err = c.Command(t.Context(), bus.Command{Job: "018f0000-0000-7000-8000-000000000002", Name: "step.finish", Body: []byte(`{}`)})
	if !errdefs.IsPermissionDenied(err) {
		t.Errorf("a client that tells a result: %v", err)
	}
}

func TestOneEngineForEachRootAndName(t *testing.T) {
	p := newPlace(t)
	first := p.start(t)
	other := newPlace(t)
	for what, q := range map[string]place{
		"data directory": {p.root, other.run, p.name + "-other"},
		"engine name":    {other.root, other.run, p.name},
	} {
		out, err := q.command(t).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("a second one on the same %s ended with %v", what, err)
		}
		for _, word := range []string{what, fmt.Sprintf("in use by process %d", first.Process.Pid), "hint:"} {
			if !strings.Contains(string(out), word) {
				t.Errorf("a second one on the same %s says %q, without %q", what, out, word)
			}
		}
	}
}

func TestAnotherNameOnTheSameRootIsRefused(t *testing.T) {
	p := newPlace(t)
	cmd := p.start(t)
	if err := cmd.Process.Kill(); err != nil { // also: locks fall with the process
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	q := p
	q.name += "-renamed"
	out, err := q.command(t).CombinedOutput()
	if err == nil || !strings.Contains(string(out), p.name) || !strings.Contains(string(out), "--name") {
		t.Errorf("another name on the same root: %v, %s", err, out)
	}
	p.start(t)
}

func TestCheckTellsWhatFollows(t *testing.T) {
	p := newPlace(t)
	out, err := p.command(t, "--check").Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for _, word := range []string{"namespace pid", "overlay", "seccomp", "cgroup"} {
		if !strings.Contains(string(out), word) {
			t.Errorf("--check does not speak of %s:\n%s", word, out)
		}
	}
	if err != nil && !strings.Contains(string(out), "follows:") {
		t.Errorf("--check does not say what follows:\n%s", out)
	}
}

func TestFlags(t *testing.T) {
	for _, bad := range [][]string{
		{"--name", "Bad_Name"}, {"--name", strings.Repeat("a", 33)}, {"--pool", "10.0.0.0/31"}, {"--pool", "fd00::/64"},
		{"--pool", "nonsense"}, {"--run", "/" + strings.Repeat("x", 80)}, {"--group", "no-such-group-here"}, {"extra"}, {"--nope"},
		{"--log-driver", "syslog"}, {"--log-opt", "max-size"}, {"--log-opt", "max-size=-1m"}, {"--log-opt", "max-file=0"},
		{"--log-opt", "mode=fast"}, {"--log-opt", "labels=a"}, {"--log-opt", "max-age=1d"},
		{"--id-pool", "0-65535"}, {"--id-pool", "65536-65536"}, {"--id-pool", "100000-200000"}, {"--id-pool", "65536"}, {"--id-pool", "65536-4294967295"},
	} {
		if _, err := readFlags(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	o, err := readFlags([]string{"--pool", "10.5.0.0/16", "--driver-path", "/a:/b", "--group", "0", "--root", "data"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := readFlags([]string{"--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3", "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64k"})
	if o, err := readFlags([]string{"--id-pool", "131072-262143"}); err != nil || o.ids != (core.IDPool{First: 131072, Ranges: 2}) {
		t.Errorf("an id pool is read as %+v, %v", o.ids, err)
	}
	want := core.Logging{Driver: "json-file", MaxBytes: 10 << 20, MaxFiles: 3, NonBlocking: true, MaxBufferBytes: 64 << 10}
	if err != nil || l.logging != want {
		t.Errorf("log options are read as %+v, %v", l.logging, err)
	}
	if len(o.driverPath) != 2 || *o.controlGID != 0 || !filepath.IsAbs(o.root) || o.name != "gantry" || o.run != "/run/gantry" {
		t.Errorf("read as %+v", o)
	}
}

func TestPools(t *testing.T) {
	seen := make(map[netip.Prefix]string)
	for _, name := range []string{"a", "b", "test-1", "test-2"} {
		p, err := freePool(name)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := freePool(name); err != nil || again != p {
			t.Errorf("%s has pool %v, then %v (%v)", name, p, again, err)
		}
		if seen[p] != "" || p.Bits() != 20 || !netip.MustParsePrefix("10.128.0.0/9").Overlaps(p) || p != p.Masked() {
			t.Errorf("%s has pool %v (also that of %q)", name, p, seen[p])
		}
		seen[p] = name
	}
	taken, err := routes()
	if err != nil {
		t.Fatal(err)
	}
	for p := range seen {
		for _, r := range taken {
			if r.Overlaps(p) {
				t.Errorf("pool %v overlaps with the route to %v", p, r)
			}
		}
	}
}

func TestALockFallsWithItsHolderAndNotBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(path, "it")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(path, "it"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("the second one: %v", err)
	}
	unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	again, err := lock(path, "it")
	if err != nil || ctx.Err() != nil {
		t.Fatal(err)
	}
	again()
}
