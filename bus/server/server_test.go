package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
)

// testConfig is a private bus in directories of its own.
func testConfig(t testing.TB) Config {
	t.Helper()
	// Socket paths are short (108 bytes), test directories need not be.
	run, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	return Config{
		Node: "0190c0de-0000-7000-8000-000000000001", Store: t.TempDir(), Run: run,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

type testWriter struct{ testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func startWith(t testing.TB, cfg Config, h Handlers) *Server {
	t.Helper()
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Serve(h); err != nil {
		t.Fatal(err)
	}
	return s
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func dial(t testing.TB, socket string) *bus.Client {
	t.Helper()
	c, err := bus.Dial(within(t), bus.Options{Host: "unix://" + socket, Name: "test/1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// echo answers everything with what came.
func echo() Handlers {
	return Handlers{
		Command: func(call Call, cmd bus.Command, reply Reply) {
			if strings.HasSuffix(cmd.Name, ".refuse") {
				reply(bus.Receipt{}, errclass.WithHint(errclass.Errorf(errdefs.ErrConflict, "name x is taken"), "choose another"))
				return
			}
			reply(bus.Receipt{Job: cmd.Job, Seq: 7}, nil)
			reply(bus.Receipt{Job: "twice"}, nil)
		},
		Query: func(_ context.Context, call Call, q bus.Query) (any, error) {
			return map[string]any{"name": q.Name, "body": string(q.Body), "call": call}, nil
		},
	}
}

func TestCommandAndQueryThereAndBack(t *testing.T) {
	s := startWith(t, testConfig(t), echo())
	c := dial(t, s.ControlSocket())
	r, err := c.Command(within(t), bus.Command{Job: "j1", Name: "container.create", Body: json.RawMessage(`{"a":1}`)})
	if err != nil || r.Job != "j1" || r.Seq != 7 {
		t.Fatalf("receipt %+v, %v", r, err)
	}
	_, err = c.Command(within(t), bus.Command{Job: "j2", Name: "container.refuse"})
	if !errdefs.IsConflict(err) || err.Error() != "name x is taken" || errclass.Hint(err) != "choose another" {
		t.Errorf("refusal came as %v (class %s, hint %q)", err, errclass.Name(err), errclass.Hint(err))
	}
	var out struct {
		Name, Body string
		Call       Call
	}
	if err := c.Query(within(t), "container.list", map[string]int{"all": 1}, &out); err != nil {
		t.Fatal(err)
	}
	if out.Name != "container.list" || out.Body != `{"all":1}` {
		t.Errorf("query came as %+v", out)
	}
	want := bus.Actor{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid()), Start: out.Call.Actor.Start}
	if out.Call.Actor != want || out.Call.Actor.Start == 0 || out.Call.Role != bus.RoleControl || out.Call.Conn != c.ID() {
		t.Errorf("call is %+v, want actor %+v", out.Call, want)
	}
}

func TestInTheNameOfAnother(t *testing.T) {
	s := startWith(t, testConfig(t), echo())
	want := bus.Actor{UID: 1000, GID: 100, PID: 42, Start: 7}
	c, err := s.DialAs(within(t), bus.RoleControl, want, "gateway")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out struct{ Call Call }
	if err := c.Query(within(t), "container.list", nil, &out); err != nil || out.Call.Actor != want {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := c.Stream(within(t), bus.StreamRequest{Op: "echo"}, nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a stream from within: %v", err)
	}
}

func TestReadersCannotCommand(t *testing.T) {
	s := startWith(t, testConfig(t), echo())
	c := dial(t, s.ReadSocket())
	if err := c.Query(within(t), "container.list", nil, nil); err != nil {
		t.Fatalf("a reader's query: %v", err)
	}
	_, err := c.Command(within(t), bus.Command{Job: "j", Name: "container.create"})
	if !errdefs.IsPermissionDenied(err) {
		t.Fatalf("a reader's command: %v, want permission denied", err)
	}
}

func TestNobodyHome(t *testing.T) {
	_, err := bus.Dial(within(t), bus.Options{Host: "unix://" + t.TempDir() + "/none.sock"})
	if !errdefs.IsUnavailable(err) || errclass.Hint(err) == "" {
		t.Errorf("dial of nothing: %v, hint %q", err, errclass.Hint(err))
	}
	_, err = bus.Dial(within(t), bus.Options{Host: "tcp://127.0.0.1:1"})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("dial of tcp: %v", err)
	}
	s := startWith(t, testConfig(t), Handlers{})
	c := dial(t, s.ControlSocket())
	if err := c.Query(within(t), "a.b", nil, nil); !errdefs.IsUnavailable(err) {
		t.Errorf("query without a handler: %v", err)
	}
	s.Close()
	if err := c.Query(within(t), "a.b", nil, nil); !errdefs.IsUnavailable(err) {
		t.Errorf("query of a closed server: %v", err)
	}
	if _, err := os.Stat(s.ControlSocket()); errors.Is(err, os.ErrNotExist) {
		return
	}
	_, err = bus.Dial(within(t), bus.Options{Host: "unix://" + s.ControlSocket()})
	if !errdefs.IsUnavailable(err) {
		t.Errorf("dial of a closed server: %v", err)
	}
}

func BenchmarkQueryThroughTheSocket(b *testing.B) {
	s := startWith(b, testConfig(b), Handlers{Query: func(context.Context, Call, bus.Query) (any, error) {
		return json.RawMessage(`"` + strings.Repeat("x", 300) + `"`), nil
	}})
	c := dial(b, s.ControlSocket())
	in := json.RawMessage(`"` + strings.Repeat("x", 300) + `"`)
	ctx := context.Background()
	for b.Loop() {
		if err := c.Query(ctx, "container.list", in, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDialAndQuery(b *testing.B) {
	s := startWith(b, testConfig(b), Handlers{Query: func(context.Context, Call, bus.Query) (any, error) { return 1, nil }})
	ctx := context.Background()
	for b.Loop() {
		c, err := bus.Dial(ctx, bus.Options{Host: "unix://" + s.ControlSocket(), Name: "test/1"})
		if err == nil {
			err = c.Query(ctx, "container.list", nil, nil)
		}
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// BenchmarkCopied is how long an event takes from the engine into the stream,
// acknowledged.
func BenchmarkCopied(b *testing.B) {
	cfg, j := testConfig(b), &memJournal{}
	_, p, _ := openStream(b, cfg, j)
	for b.Loop() {
		f := j.add(1, "c1", "container.created")
		p.Publish(f)
		for p.Copied() < f.Last() {
			runtime.Gosched()
		}
	}
}

// BenchmarkCopiedInBulk is the same for many events one after the other.
func BenchmarkCopiedInBulk(b *testing.B) {
	cfg, j := testConfig(b), &memJournal{}
	_, p, _ := openStream(b, cfg, j)
	var last uint64
	for b.Loop() {
		f := j.add(1, "c1", "container.created")
		last = f.Last()
		p.Publish(f)
	}
	if err := p.WaitCopied(within(b), last); err != nil {
		b.Fatal(err)
	}
}
