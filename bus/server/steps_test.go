package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
)

func inProcess(t *testing.T, s *Server, role bus.Role) *bus.Client {
	t.Helper()
	c, err := s.Dial(within(t), role, string(role))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// overBus is inProcess off the short way, as for a host on another machine.
func overBus(t *testing.T, s *Server, role bus.Role) *bus.Client {
	t.Helper()
	c, err := s.DialAs(within(t), role, ownActor(), string(role))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// dialer connects from within the process in one of two ways.
type dialer func(*testing.T, *Server, bus.Role) *bus.Client

// bothWays runs a test by the short way and over the bus.
func bothWays(t *testing.T, f func(*testing.T, dialer)) {
	t.Run("short", func(t *testing.T) { f(t, inProcess) })
	t.Run("bus", func(t *testing.T) { f(t, overBus) })
}

func TestStepThereAndResultBack(t *testing.T) { bothWays(t, stepThereAndBack) }

func stepThereAndBack(t *testing.T, dial dialer) {
	finished := make(chan bus.Finish, 4)
	var tries atomic.Int32
	s := startWith(t, testConfig(t), Handlers{
		Finish: func(call Call, f bus.Finish, reply Reply) {
			if call.Role != bus.RoleHost {
				t.Errorf("a result of %+v", call)
			}
			if tries.Add(1) == 1 {
				return // the first one is lost
			}
			finished <- f
			reply(bus.Receipt{Seq: 9, Stale: true}, nil)
		},
		Report: func(_ Call, r bus.Report, reply Reply) {
			if tries.Add(1) == 3 {
				reply(bus.Receipt{}, errclass.Errorf(errdefs.ErrResourceExhausted, "the queue is full"))
				return
			}
			reply(bus.Receipt{}, errclass.Errorf(errdefs.ErrConflict, "instance %s is fenced", r.Instance))
		},
	})
	engine, host := dial(t, s, bus.RoleEngine), dial(t, s, bus.RoleHost)
	step := bus.Step{Epoch: 4, ID: "container/c/rootfs/prepare@7", Kind: "graphdriver", Driver: "overlay", Verb: "prepare", Deadline: bus.Seconds(1500 * time.Millisecond)}
	if err := engine.SendStep(within(t), step); !errdefs.IsUnavailable(err) {
		t.Errorf("a step without a host: %v", err)
	}
	steps := make(chan bus.Step, 1)
	serving, err := host.ServeSteps("graphdriver", "overlay", bus.StepHandlers{
		Step:   func(s bus.Step) error { steps <- s; return nil },
		Cancel: func(c bus.Cancel) error { return errclass.Errorf(errdefs.ErrNotFound, "no step %s runs", c.ID) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := engine.SendStep(within(t), step); err != nil {
		t.Fatal(err)
	}
	if near := engine.Near("graphdriver", "overlay"); near != strings.HasSuffix(t.Name(), "short") {
		t.Errorf("a host of this process is near: %v", near)
	}
	if got := <-steps; got.ID != step.ID || got.Deadline != step.Deadline || got.Epoch != 4 {
		t.Errorf("got %+v", got)
	}
	if err := engine.CancelStep(within(t), bus.Cancel{ID: "x", Kind: "graphdriver", Driver: "overlay"}); !errdefs.IsNotFound(err) {
		t.Errorf("cancel: %v", err)
	}
	done := bus.Finish{Epoch: 4, Kind: "graphdriver", Driver: "overlay", Instance: "i", Step: step.ID, Error: bus.NewError(errdefs.ErrAborted)}
	r, err := host.Finish(within(t), done)
	if err != nil || !r.Stale || r.Seq != 9 {
		t.Errorf("receipt %+v, %v", r, err)
	}
	if got := <-finished; got.Step != step.ID || !errdefs.IsAborted(got.Error.Err()) {
		t.Errorf("result %+v", got)
	}
	if _, err := host.Report(within(t), bus.Report{Kind: "graphdriver", Driver: "overlay", Instance: "i"}); !errdefs.IsConflict(err) {
		t.Errorf("report: %v, want the engine's word after one try more", err)
	}
	serving.Close()
	if err := host.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := engine.SendStep(within(t), step); !errdefs.IsUnavailable(err) {
		t.Errorf("a step after the host has gone: %v", err)
	}
}

// By the short way a client may never send a message; it is let in all the same.
func TestWhoSendsNothingStays(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.auth = 4 * time.Second // time enough for whoever does
	s := startWith(t, cfg, echo())
	engine, host := inProcess(t, s, bus.RoleEngine), inProcess(t, s, bus.RoleHost)
	select {
	case <-engine.Done():
		t.Error("the engine was let go")
	case <-host.Done():
		t.Error("the host was let go")
	case <-time.After(cfg.auth + time.Second):
	}
}

func TestProgressReachesClients(t *testing.T) {
	s := startWith(t, testConfig(t), echo())
	host, c := inProcess(t, s, bus.RoleHost), dial(t, s.ReadSocket())
	progress, err := c.Progress(within(t), "j1")
	if err == nil {
		err = c.Flush(within(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, job := range []string{"other", "j1"} {
		if err := host.TellProgress(job, map[string]string{"of": job}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case got := <-progress:
		if string(got) != `{"of":"j1"}` {
			t.Errorf("got %s", got)
		}
	case <-within(t).Done():
		t.Error("no progress")
	}
}

func TestCommandIsRepeatedUnderItsJob(t *testing.T) {
	t.Parallel()
	jobs := make(chan string, 100)
	s := startWith(t, testConfig(t), Handlers{Command: func(_ Call, cmd bus.Command, reply Reply) {
		if jobs <- cmd.Job; len(jobs) > 1 {
			reply(bus.Receipt{Job: cmd.Job}, nil)
		}
	}})
	c := dial(t, s.ControlSocket())
	r, err := c.Command(within(t), bus.Command{Job: "j1", Name: "container.create"})
	if one, two := <-jobs, <-jobs; err != nil || r.Job != "j1" || one != "j1" || two != "j1" {
		t.Errorf("%+v, %v, tried as %q and %q", r, err, one, two)
	}
}

func TestTwoServersSideBySide(t *testing.T) {
	name := func(n string) Handlers {
		return Handlers{Query: func(context.Context, Call, bus.Query) (any, error) { return n, nil }}
	}
	one, two := testConfig(t), testConfig(t)
	two.Node = "another"
	a, b := startWith(t, one, name("a")), startWith(t, two, name("b"))
	ca, cb := dial(t, a.ControlSocket()), dial(t, b.ControlSocket())
	for _, k := range []struct {
		c    *bus.Client
		want string
	}{{ca, "a"}, {cb, "b"}} {
		var got string
		if err := k.c.Query(within(t), "x.y", nil, &got); err != nil || got != k.want {
			t.Errorf("got %q, %v, want %q", got, err, k.want)
		}
	}
	a.Close()
	if err := cb.Query(within(t), "x.y", nil, nil); err != nil {
		t.Errorf("after the other one has ended: %v", err)
	}
	if ca.Node() == cb.Node() || cb.Node() != "another" {
		t.Errorf("nodes %q and %q", ca.Node(), cb.Node())
	}
}

func TestSocketsAndTheirModes(t *testing.T) {
	cfg := testConfig(t)
	gid := 12345
	cfg.ReadGID = &gid
	// Left over from an engine that was killed.
	if err := os.WriteFile(filepath.Join(cfg.Run, bus.ControlSocket), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := startWith(t, cfg, echo())
	for path, mode := range map[string]os.FileMode{s.ControlSocket(): 0o600, s.ReadSocket(): 0o660} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != mode || info.Mode().Type() != os.ModeSocket {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, mode)
		}
	}
	s.Close()
	left, err := os.ReadDir(cfg.Run)
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		cfg, j := testConfig(t), &memJournal{}
		s, p, _ := openStream(t, cfg, j)
		if err := errors.Join(s.Serve(echo()), s.ServeStreams(nil)); err != nil {
			t.Fatal(err)
		}
		c := dial(t, s.ControlSocket())
		events, err := c.Events(within(t), 1, bus.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			p.Publish(j.add(1, "c1", "container.created"))
		}
		if _, err := events.Next(within(t)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		s.Close()
		s.Close()
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("Close took %s", took)
		}
		for err == nil {
			_, err = events.Next(within(t))
		}
		if !errdefs.IsUnavailable(err) {
			t.Errorf("events of a closed server end with %v", err)
		}
	}
	eventually(t, "goroutines stay", func() bool { return runtime.NumGoroutine() <= before+3 })
}

func TestTheServerRefusesWhatIsWrong(t *testing.T) {
	s := startWith(t, testConfig(t), echo())
	conn := rawConn(t, s, bus.RoleControl, accountEngine)
	own := jsonNumber(conn.Info().ClientID)
	for body, want := range map[string]string{`{"name":"container.remove"}`: "came as", `{`: "read command"} {
		m, err := conn.Request(within(t), s.subjects.Command(own, "container.create"), nil, []byte(body))
		if err != nil || !strings.Contains(string(m.Data), want) || !strings.Contains(string(m.Data), "invalid-argument") {
			t.Errorf("%s: %v, %v", body, m, err)
		}
	}
	if _, err := Start(Config{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("start without anything: %v", err)
	}
	c := dial(t, s.ControlSocket())
	_, err := c.Command(within(t), bus.Command{Job: "j", Name: "a.b", Reason: strings.Repeat("x", maxPayload)})
	if !errdefs.IsResourceExhausted(err) {
		t.Errorf("a command that is too long: %v", err)
	}
	// An answer that is too long is said to be so.
	big := startWith(t, testConfig(t), Handlers{Query: func(context.Context, Call, bus.Query) (any, error) {
		return strings.Repeat("x", maxPayload), nil
	}})
	if err := dial(t, big.ControlSocket()).Query(within(t), "a.b", nil, nil); !errdefs.IsResourceExhausted(err) {
		t.Errorf("an answer that is too long: %v", err)
	}
}
