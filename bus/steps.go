package bus

import (
	"context"
	"encoding/json"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus/internal/wire"
	"github.com/gantryd/gantry/internal/errclass"
)

// finishTry is how long Finish and Report wait for a receipt the first time
// before they send again; each further wait is twice as long, up to finishTryMax.
const (
	finishTry    = time.Second
	finishTryMax = 8 * time.Second
)

// SendStep sends a step to the host of its driver and returns when the host has
// taken it: that it runs, not that it is done. No host is Unavailable. To send
// the same step again is fine: it joins the running one.
func (c *Client) SendStep(ctx context.Context, s Step) error {
	if h, near := c.near(s.Kind, s.Driver); near {
		return asOnTheWay(h.Step(s))
	}
	return c.tell(ctx, c.subjects.Step(s.Kind, s.Driver), s, nil)
}

// CancelStep takes a step back and returns when the host knows.
func (c *Client) CancelStep(ctx context.Context, x Cancel) error {
	if h, near := c.near(x.Kind, x.Driver); near {
		return asOnTheWay(h.Cancel(x))
	}
	return c.tell(ctx, c.subjects.Cancel(x.Kind, x.Driver), x, nil)
}

func (c *Client) tell(ctx context.Context, subject string, body, out any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "send to %s: %w", subject, err)
	}
	return c.request(ctx, subject, data, out)
}

// StepHandlers are a host's answers. They must not block: what they return only
// says whether the step, or its end, was noted. Ask answers by the function it is
// given, once and whenever it can; nil refuses every question.
type StepHandlers struct {
	Step   func(Step) error
	Cancel func(Cancel) error
	Ask    func(Ask, func(body any, err error))
}

// ServeSteps takes the steps of one driver, and the questions to it, both over the
// bus and, if the client is on it, by the short way. Close of what it returns ends that.
func (c *Client) ServeSteps(kind, driver string, h StepHandlers) (*StepServing, error) {
	s := &StepServing{}
	if c.engine != nil {
		s.leave = c.engine.serve(kind, driver, h)
	}
	err := s.listen(c, c.subjects.Step(kind, driver), func(data []byte) error {
		return decodeTo(data, h.Step)
	})
	if err == nil {
		err = s.listen(c, c.subjects.Cancel(kind, driver), func(data []byte) error {
			return decodeTo(data, h.Cancel)
		})
	}
	if err == nil && h.Ask != nil {
		err = s.serveAsks(c, kind, driver, h.Ask)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// StepServing is a host's end for one driver, until it is closed.
type StepServing struct {
	subs  []*wire.Sub
	leave func() // the short way; nil off it
}

// Close takes no more steps.
func (s *StepServing) Close() {
	if s.leave != nil {
		s.leave()
	}
	for _, sub := range s.subs {
		_ = sub.Close() // fails only with the connection, which ends it too
	}
}

func (s *StepServing) listen(c *Client, subject string, f func([]byte) error) error {
	return s.listenFor(c, subject, func(reply string, data []byte) {
		_ = c.Answer(reply, nil, f(data)) // without an answer the engine asks again
	})
}

func (s *StepServing) listenFor(c *Client, subject string, f func(reply string, data []byte)) error {
	sub, err := c.conn.Subscribe(subject, func(m *wire.Msg) {
		if genuine(subject, m) && m.Reply != "" {
			f(m.Reply, m.Data)
		}
	})
	if err == nil {
		s.subs = append(s.subs, sub)
	}
	return err
}

func decodeTo[T any](data []byte, f func(T) error) error {
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "read what was sent: %w", err)
	}
	return f(v)
}

// Finish sends a step's result, again and again until the engine has it. An
// error that is not of the way (Unavailable, no answer) is the engine's word and
// ends it. A heartbeat is sent once: the next one follows anyway.
func (c *Client) Finish(ctx context.Context, f Finish) (Receipt, error) {
	if f.Heartbeat {
		ctx, cancel := context.WithTimeout(ctx, finishTry)
		defer cancel()
		return c.sendFinish(ctx, f)
	}
	return c.insist(ctx, func(ctx context.Context) (Receipt, error) { return c.sendFinish(ctx, f) })
}

// Report sends what the host has seen, again and again until the engine has it.
func (c *Client) Report(ctx context.Context, r Report) (Receipt, error) {
	return c.insist(ctx, func(ctx context.Context) (Receipt, error) { return c.sendReport(ctx, r) })
}

// insist sends until there is a receipt.
func (c *Client) insist(ctx context.Context, send func(context.Context) (Receipt, error)) (Receipt, error) {
	for wait := finishTry; ; wait = min(2*wait, finishTryMax) {
		try, cancel := context.WithTimeout(ctx, wait)
		r, err := send(try)
		if err == nil || ctx.Err() != nil || !onTheWay(err) {
			cancel()
			return r, err
		}
		select {
		case <-try.Done(): // the rest of the wait
		case <-c.Done():
			cancel()
			return r, c.conn.Err()
		}
		cancel()
	}
}

// onTheWay says whether err may be gone the next time.
func onTheWay(err error) bool {
	return errdefs.IsUnavailable(err) || errdefs.IsDeadlineExceeded(err) || errdefs.IsResourceExhausted(err)
}

// TellProgress says how far a job has come. It may get lost.
func (c *Client) TellProgress(job string, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.conn.Publish(c.subjects.Progress(job), "", nil, data)
}

// progressBuffer bounds the progress that a slow reader has not read yet.
const progressBuffer = 64

// Progress gives the progress of a job until ctx ends. What a slow reader does
// not take is dropped: progress is never an event.
func (c *Client) Progress(ctx context.Context, job string) (<-chan json.RawMessage, error) {
	out := make(chan json.RawMessage, progressBuffer)
	sub, err := c.conn.Subscribe(c.subjects.Progress(job), func(m *wire.Msg) {
		select {
		case out <- m.Data:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = sub.Close() }) // fails only with the connection
	return out, nil
}
