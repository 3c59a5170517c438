package graphdriver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/gantryd/gantry/sdk/driver"
)

// TestMain turns the test binary into a driver when a test starts it as one.
func TestMain(m *testing.M) {
	if os.Getenv("GANTRY_DRIVER") != "" {
		os.Exit(Main(func(c driver.Config) (Driver, error) { return fake{config: c}, nil }))
	}
	os.Exit(m.Run())
}

// fake answers what the tests of the wire want to see.
type fake struct {
	Driver
	config driver.Config
}

func (f fake) Info(context.Context) (driver.Info, error) {
	f.config.Logger().Info("info was asked", "secret", os.Getenv("PLANTED"))
	return driver.Info{Name: f.config.EngineName, Version: "1", Abilities: []string{AbilityDiff}}, nil
}

func (f fake) List(context.Context) ([]driver.Item, error) {
	items := make([]driver.Item, 200_000) // more than one message could hold
	for i := range items {
		items[i] = driver.Item{Kind: "layer", Key: strings.Repeat("k", 100), PID: i}
	}
	return items, nil
}

func (f fake) ApplyLayer(ctx context.Context, r ApplyLayer, p driver.Progress) (Layer, error) {
	for i := range int64(1000) {
		p(i, 1000, r.ID)
	}
	if r.ID == "wait" {
		p(7, 7, "waiting")
		select {
		case <-ctx.Done():
			return Layer{}, ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
	return Layer{ID: r.ID, Size: 42}, nil
}

func (f fake) RemoveLayer(_ context.Context, id string) error {
	if id == "stderr" { // what the host's death does to writes
		os.Stdout.Write([]byte("stray\n"))
		return nil
	}
	return driver.Errorf(errdefs.ErrConflict, "remove layer %s: %w", id, io.ErrUnexpectedEOF)
}

func (f fake) Diff(_ context.Context, container string, w io.Writer) error {
	_, err := w.Write(bytes.Repeat([]byte(container), 1<<20))
	return err
}

// startSelf starts the test binary as a driver.
func startSelf(t *testing.T, dirMode os.FileMode) (*plugin.Client, *bytes.Buffer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gd") // a socket's address holds 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, dirMode); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PLANTED", "of the host")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(driver.Config{EngineID: "e", EngineName: "n", Root: dir, Run: dir}.Environ(),
		driver.EnvSocketDir+"="+dir)
	log := &bytes.Buffer{}
	logger := hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info})
	c := plugin.NewClient(driver.ClientConfig(driver.KindGraph, Plugin{}, cmd, logger))
	t.Cleanup(c.Kill)
	return c, log
}

func dispense(t *testing.T, c *plugin.Client) *Client {
	t.Helper()
	p, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Dispense(driver.KindGraph)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Ping(); err != nil {
		t.Fatalf("health check: %v", err)
	}
	return d.(*Client)
}

func TestProcess(t *testing.T) {
	c, log := startSelf(t, 0o700)
	d := dispense(t, c)
	ctx := t.Context()

	info, err := d.Info(ctx)
	if err != nil || info.Name != "n" {
		t.Fatalf("Info: %+v, %v", info, err)
	}
	items, err := d.List(ctx)
	if err != nil || len(items) != 200_000 || items[199_999].PID != 199_999 {
		t.Fatalf("List: %d items, %v", len(items), err)
	}
	var last int64 = -1
	l, err := d.ApplyLayer(ctx, ApplyLayer{ID: "x"}, func(done, _ int64, _ string) {
		if done <= last {
			t.Errorf("progress went from %d to %d", last, done)
		}
		last = done
	})
	if err != nil || l != (Layer{ID: "x", Size: 42}) {
		t.Fatalf("ApplyLayer: %+v, %v", l, err)
	}
	err = d.RemoveLayer(ctx, "x")
	if !errdefs.IsConflict(err) || err.Error() != "remove layer x: unexpected EOF" {
		t.Fatalf("RemoveLayer: %v (%s)", err, driver.ClassName(err))
	}
	var diff bytes.Buffer
	if err := d.Diff(ctx, "abc", &diff); err != nil || diff.String() != strings.Repeat("abc", 1<<20) {
		t.Fatalf("Diff: %d bytes, %v", diff.Len(), err)
	}
	short := errors.New("reader is full")
	if err := d.Diff(ctx, "abc", writerFunc(func([]byte) (int, error) { return 0, short })); !errors.Is(err, short) {
		t.Fatalf("Diff into a full reader: %v", err)
	}
	c.Kill()
	if got := log.String(); !strings.Contains(got, "info was asked") || !strings.Contains(got, "[INFO]") {
		t.Errorf("the host's log lacks the driver's line:\n%s", got)
	} else if strings.Contains(got, "of the host") {
		t.Errorf("the driver has got the host's environment:\n%s", got)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A drain lets a call in flight end well, and lets no new one in.
func TestDrain(t *testing.T) {
	c, _ := startSelf(t, 0o700)
	d := dispense(t, c)
	inside, result := make(chan struct{}), make(chan error)
	go func() {
		told := false
		_, err := d.ApplyLayer(t.Context(), ApplyLayer{ID: "wait"}, func(_, _ int64, what string) {
			if what == "waiting" && !told {
				told = true
				close(inside)
			}
		})
		result <- err
	}()
	<-inside
	drained := make(chan error)
	go func() { drained <- d.Drain(t.Context()) }()
	deadline := time.Now().Add(5 * time.Second)
	for {
		_, err := d.ApplyLayer(t.Context(), ApplyLayer{ID: "new"}, nil)
		if errdefs.IsUnavailable(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a new call during the drain: %v, want Unavailable", err)
		}
	}
	if err := <-result; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	if _, err := d.Info(t.Context()); err != nil {
		t.Errorf("Info of a drained driver: %v", err)
	}
}

// A socket directory that others can enter is refused, and said so.
func TestOpenSocketDirectory(t *testing.T) {
	c, log := startSelf(t, 0o755)
	if _, err := c.Client(); err == nil {
		t.Fatal("the driver started in a directory of mode 0755")
	}
	c.Kill()
	if !strings.Contains(log.String(), "want a directory of mode 0700") {
		t.Errorf("the log does not say why:\n%s", log.String())
	}
}

// The driver goes on when the host's end of its stderr is gone.
func TestDeadStderr(t *testing.T) {
	dir, err := os.MkdirTemp("", "gd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(driver.Config{EngineID: "e", EngineName: "n", Root: dir, Run: dir}.Environ(), "GANTRY_DRIVER=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line := make([]byte, 512)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(strings.TrimSpace(string(line[:n])), "|")
	if len(parts) < 5 || parts[0] != "1" || parts[1] != "1" || parts[2] != "unix" || parts[4] != "grpc" {
		t.Fatalf("handshake line %q", line[:n])
	}
	if filepath.Dir(parts[3]) != filepath.Join(dir, "sock") {
		t.Errorf("the socket is at %s, want it below %s/sock", parts[3], dir)
	}
	stderr.Close()
	stdout.Close()
	d := dialSocket(t, parts[3])
	for range 3 {
		if _, err := d.Info(t.Context()); err != nil { // logs a line each
			t.Fatalf("Info after the host's end of stderr was closed: %v", err)
		}
	}
}
