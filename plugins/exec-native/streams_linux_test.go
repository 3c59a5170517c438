package execnative

import (
	"context"
	"errors"
	"net"
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

// TestAttachBeforeTheStart: with WaitAttach the socket is there before Start
// returns, and the program begins when somebody listens.
func TestAttachBeforeTheStart(t *testing.T) {
	b := newBench(t)
	r := b.request("read line; echo got $line; exit 6")
	r.Stdio = execdriver.Stdio{OpenStdin: true, WaitAttach: true, Log: execdriver.LogConfig{Driver: "none"}}
	started := make(chan error, 1)
	go func() {
		s, err := b.d.Start(context.Background(), r)
		if err == nil && s.Log != "" {
			err = errors.New("a log although none was asked for: " + s.Log)
		}
		started <- err
	}()
	var c net.Conn
	b.eventually("the socket is there", func() bool {
		var err error
		c, err = net.Dial("unix", execdriver.SocketPath(b.cfg.Run, r.Key))
		return err == nil
	})
	defer c.Close()
	select {
	case err := <-started:
		t.Fatalf("started without a client: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	hello := stdio.Hello{Stdout: true, Stderr: true, Stdin: true, StdinOnce: true, Lossless: true}
	if err := errors.Join(stdio.WriteFrame(c, hello.Frame()), stdio.WriteStdin(c, []byte("me\n"))); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	c.SetReadDeadline(time.Now().Add(patience))
	for {
		f, err := stdio.ReadFrame(c, nil)
		if err != nil {
			t.Fatalf("no exit frame after %q: %v", out.String(), err)
		}
		if f.Type == stdio.FrameStdout {
			out.Write(f.Payload)
		}
		if f.Type == stdio.FrameExit {
			if e, err := stdio.ParseExit(f.Payload); err != nil || e.Code != 6 || out.String() != "got me\n" {
				t.Errorf("output %q, exit %+v %v", out.String(), e, err)
			}
			break
		}
	}
	if e := b.wait(r.Key); e.Code != 6 {
		t.Errorf("%+v", e)
	}
}

// TestNothingOfOursIsInside: no descriptors, no environment.
func TestNothingOfOursIsInside(t *testing.T) {
	b := newBench(t)
	expect(t, b, b.request(`ls /proc/self/fd | wc -l; env | wc -l; readlink /proc/self/fd/0`), "4\n5\n/dev/null")
}

// TestPropagation: what the host mounts later appears in a slave, and nothing
// that is mounted inside appears outside.
func TestPropagation(t *testing.T) {
	b := newBench(t)
	host := t.TempDir()
	if err := unix.Mount("tmpfs", host, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(host, unix.MNT_DETACH)
	if err := unix.Mount("", host, "", unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	for _, o := range []string{"rslave", "rshared"} {
		r := b.request("true")
		r.Mounts = []driver.Mount{{Type: "bind", Source: host, Target: "/m", Options: []string{"rbind", o}}}
		if _, err := b.d.Start(context.Background(), r); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "shared") {
			t.Errorf("%s on a private mount: %v", o, err)
		}
	}
	if err := errors.Join(unix.Mount("", host, "", unix.MS_SHARED, ""), os.Mkdir(host+"/late", 0o755), os.Mkdir(host+"/inner", 0o755)); err != nil {
		t.Fatal(err)
	}
	r := b.request(`mount -t tmpfs x /slave/inner; mount -t tmpfs x /private/inner; echo up
		while ! test -e /private/go; do sleep 0.01; done; ls /slave/late; ls /private/late | wc -l`)
	r.Security.Privileged = true
	r.Mounts = []driver.Mount{
		{Type: "bind", Source: host, Target: "/slave", Options: []string{"rbind", "rslave"}},
		{Type: "bind", Source: host, Target: "/private", Options: []string{"rbind"}},
	}
	s, err := b.d.Start(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	b.eventually("it has mounted", func() bool { return b.output(s.Log) == "up\n" })
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(table), host+"/inner") {
		t.Errorf("a mount made inside is outside (%v)", err)
	}
	if err := unix.Mount("tmpfs", host+"/late", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(host+"/late/seen", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(host+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.d.Signal(context.Background(), r.Key, 0); err != nil {
		t.Errorf("it is running: %v", err)
	}
	b.wait(r.Key)
	if out := b.output(s.Log); out != "up\nseen\n0\n" {
		t.Errorf("inside: %q", out)
	}
}
