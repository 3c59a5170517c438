package bus

import (
	"context"
	"encoding/json"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
)

// Ask is a question to a driver that is not a step: nothing is acquired by it,
// nothing of it is recorded, and it ends with whoever asks.
type Ask struct {
	Epoch    uint64          `json:"epoch"` // as in Step
	ID       string          `json:"id"`    // of this one question; Cancel names it
	Kind     string          `json:"kind"`
	Driver   string          `json:"driver"`
	Path     string          `json:"path,omitempty"` // as in Step
	Verb     string          `json:"verb"`
	Deadline Seconds         `json:"deadline_seconds,omitempty"` // 0: none but the asker's patience
	Body     json.RawMessage `json:"body,omitempty"`
}

// cancelWithin bounds the telling of a host that nobody waits for an answer.
const cancelWithin = time.Second

// Ask asks the driver's host and decodes the answer into out, which may be nil.
// When ctx ends first, the host is told so: the driver ends what it does for it. No
// host is Unavailable.
func (c *Client) Ask(ctx context.Context, a Ask, out any) error {
	if end, ok := ctx.Deadline(); ok && a.Deadline == 0 {
		a.Deadline = Seconds(time.Until(end))
	}
	var err error
	if h, near := c.near(a.Kind, a.Driver); near && h.Ask != nil {
		err = c.askNear(ctx, h, a, out)
	} else {
		err = c.tell(ctx, c.subjects.Ask(a.Kind, a.Driver), a, out)
	}
	if err == nil || ctx.Err() == nil {
		return err
	}
	// The asker is gone, so this has a little time of its own.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelWithin)
	defer cancel()
	x := Cancel{Epoch: a.Epoch, ID: a.ID, Kind: a.Kind, Driver: a.Driver}
	// One that was answered meanwhile is not there any more; a host that does not
	// hear has the deadline.
	_ = c.CancelStep(last, x)
	return err
}

// answerLater makes a function that answers once, from any goroutine.
func (c *Client) answerLater(reply string) func(any, error) {
	return func(body any, err error) {
		_ = c.Answer(reply, body, err) // whoever asks has patience of its own
	}
}

// serveAsks takes the questions to one driver.
func (s *StepServing) serveAsks(c *Client, kind, driver string, f func(Ask, func(any, error))) error {
	return s.listenFor(c, c.subjects.Ask(kind, driver), func(reply string, data []byte) {
		answer := c.answerLater(reply)
		var a Ask
		if err := json.Unmarshal(data, &a); err != nil {
			answer(nil, errclass.Errorf(errdefs.ErrInvalidArgument, "read a question: %w", err))
			return
		}
		f(a, answer)
	})
}
