package server

import (
	"context"
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
)

// serveAsks is a host that answers with what it was asked, or not at all.
func serveAsks(t *testing.T, s *Server, asked chan bus.Ask, cancelled chan bus.Cancel) {
	t.Helper()
	host := inProcess(t, s, bus.RoleHost)
	_, err := host.ServeSteps("exec", "native", bus.StepHandlers{
		Step:   func(bus.Step) error { return nil },
		Cancel: func(c bus.Cancel) error { cancelled <- c; return nil },
		Ask: func(a bus.Ask, answer func(any, error)) {
			switch a.Verb {
			case "echo":
				answer(a, nil)
			case "refuse":
				answer(nil, errclass.Errorf(errdefs.ErrNotFound, "no run 7"))
			}
			asked <- a
		},
	})
	if err == nil {
		err = host.Flush(within(t))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAQuestionToADriver(t *testing.T) { bothWays(t, questionToADriver) }

func questionToADriver(t *testing.T, dial dialer) {
	s := startWith(t, testConfig(t), echo())
	engine := dial(t, s, bus.RoleEngine)
	a := bus.Ask{Epoch: 4, ID: "q1", Kind: "exec", Driver: "native", Verb: "echo", Body: []byte(`{"x":1}`)}
	if err := engine.Ask(within(t), a, nil); !errdefs.IsUnavailable(err) {
		t.Errorf("a question without a host: %v", err)
	}
	asked, cancelled := make(chan bus.Ask, 4), make(chan bus.Cancel, 4)
	serveAsks(t, s, asked, cancelled)
	var out bus.Ask
	if err := engine.Ask(within(t), a, &out); err != nil || out.ID != "q1" || string(out.Body) != `{"x":1}` || out.Epoch != 4 {
		t.Errorf("answered %+v, %v", out, err)
	}
	if got := <-asked; got.Deadline <= 0 {
		t.Errorf("the host was not told how long there is: %+v", got)
	}
	a.Verb = "refuse"
	if err := engine.Ask(within(t), a, nil); !errdefs.IsNotFound(err) {
		t.Errorf("refused with %v", err)
	}
	<-asked
}

func TestAQuestionEndsWithItsAsker(t *testing.T) { bothWays(t, questionEndsWithItsAsker) }

func questionEndsWithItsAsker(t *testing.T, dial dialer) {
	s := startWith(t, testConfig(t), echo())
	asked, cancelled := make(chan bus.Ask, 4), make(chan bus.Cancel, 4)
	serveAsks(t, s, asked, cancelled)
	engine := dial(t, s, bus.RoleEngine)
	ctx, cancel := context.WithCancel(within(t))
	go func() {
		<-asked
		cancel()
	}()
	err := engine.Ask(ctx, bus.Ask{Epoch: 4, ID: "q2", Kind: "exec", Driver: "native", Verb: "never"}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	select {
	case c := <-cancelled:
		if c.ID != "q2" || c.Epoch != 4 {
			t.Errorf("cancelled %+v", c)
		}
	case <-within(t).Done():
		t.Error("the host was not told")
	}
}

func TestOnlyTheEngineAsksDrivers(t *testing.T) {
	s := startWith(t, testConfig(t), echo())
	asked, cancelled := make(chan bus.Ask, 4), make(chan bus.Cancel, 4)
	serveAsks(t, s, asked, cancelled)
	for name, c := range map[string]*bus.Client{
		"a client": dial(t, s.ControlSocket()), "a reader": dial(t, s.ReadSocket()), "a host": inProcess(t, s, bus.RoleHost),
	} {
		err := c.Ask(within(t), bus.Ask{ID: "q", Kind: "exec", Driver: "native", Verb: "echo"}, nil)
		if !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s asked: %v", name, err)
		}
	}
	if len(asked) > 0 {
		t.Errorf("a question came through: %+v", <-asked)
	}
}
