package driverhost

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/sdk/driver"
)

// counted is a context that counts who waits for its end (see package context: it is
// asked for AfterFunc by contexts that are made of it).
type counted struct {
	context.Context
	waiting atomic.Int64
}

func (c *counted) AfterFunc(func()) (stop func() bool) {
	c.waiting.Add(1)
	var once atomic.Bool
	return func() bool {
		if once.CompareAndSwap(false, true) {
			c.waiting.Add(-1)
		}
		return true
	}
}

func (c *counted) Done() <-chan struct{} { return make(chan struct{}) } // of no kind that package context knows

// TestAQuestionThatADriverDiedOver: whoever buries the driver closes its connection, and
// may do so before the end of that is seen. The next one is asked all the same.
func TestAQuestionThatADriverDiedOver(t *testing.T) {
	p := &process{driver: fakeNet{}, launch: &launch{ended: make(chan struct{}), said: newSaid(slog.New(slog.DiscardHandler))}}
	close(p.launch.ended)
	close(p.launch.said.over)
	for _, class := range []error{errdefs.ErrUnavailable, context.Canceled} {
		_, err := askOf(t.Context(), p, bus.Ask{Body: []byte("{}")}, func(context.Context, driver.Common, struct{}) (any, error) {
			return nil, class
		})
		if !errdefs.IsUnavailable(err) {
			t.Errorf("a call that ended with %v: %v", class, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := askOf(ctx, p, bus.Ask{Body: []byte("{}")}, func(ctx context.Context, _ driver.Common, _ struct{}) (any, error) {
		return nil, ctx.Err()
	})
	if !errdefs.IsCanceled(err) {
		t.Errorf("a question that was taken back: %v", err)
	}
}

// TestAQuestionLeavesNothingBehind: what a question's patience costs ends with it, and
// not with the host.
func TestAQuestionLeavesNothingBehind(t *testing.T) {
	for _, deadline := range []time.Duration{0, time.Hour} {
		ctx := &counted{Context: context.Background()}
		h := &Host{ctx: ctx, drivers: make(map[string]*hosted), o: Options{Log: slog.New(slog.DiscardHandler)}}
		d := newHosted(h, "exec", "native")
		if _, err := d.admit(bus.Ask{ID: "ask/1/1", Deadline: bus.Seconds(deadline)}); err != nil {
			t.Fatal(err)
		}
		d.asks["ask/1/1"]()
		if n := ctx.waiting.Load(); n != 0 {
			t.Errorf("with a deadline of %v: %d contexts are left", deadline, n)
		}
	}
}
