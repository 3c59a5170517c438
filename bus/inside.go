package bus

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
)

// Inside is the short way between an engine and the driver hosts of its own
// process: what they would send over the bus is handed over by a call, as the same
// envelopes. It saves four messages for each step, and with them most of what a
// step costs beside its driver. A host on another machine, and one whose client is
// not on the short way, is reached over the bus as ever.
type Inside struct {
	mu     sync.RWMutex            // guards what follows; never held during a call
	hosts  map[string]StepHandlers // by "kind/driver"
	finish func(Finish, func(Receipt, error))
	report func(Report, func(Receipt, error))
}

// NewInside is a short way that nobody is on yet.
func NewInside() *Inside { return &Inside{hosts: make(map[string]StepHandlers)} }

// Take gives results and reports to finish and report. They must not block, and may
// be called from any goroutine; what answers may be called later, and counts once.
func (i *Inside) Take(finish func(Finish, func(Receipt, error)), report func(Report, func(Receipt, error))) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.finish, i.report = finish, report
}

// Shorten puts the client on the short way, in its role: the engine sends steps and
// questions, a host takes them and sends results and reports. It comes before the
// client's first use.
func (c *Client) Shorten(i *Inside, role Role) {
	switch role {
	case RoleEngine:
		c.hosts = i
	case RoleHost:
		c.engine = i
	}
}

// Near reports whether a driver's host is in this process: then SendStep and
// CancelStep return at once.
func (c *Client) Near(kind, driver string) bool {
	_, near := c.near(kind, driver)
	return near
}

func (c *Client) near(kind, driver string) (StepHandlers, bool) {
	if c.hosts == nil || c.conn.Err() != nil {
		return StepHandlers{}, false
	}
	c.hosts.mu.RLock()
	defer c.hosts.mu.RUnlock()
	h, ok := c.hosts.hosts[kind+"/"+driver]
	return h, ok
}

// serve takes the steps of a driver by the short way, until what it returns is
// called.
func (i *Inside) serve(kind, driver string, h StepHandlers) (end func()) {
	id := kind + "/" + driver
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hosts[id] = h
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.hosts, id)
	}
}

// asOnTheWay is err as it would come over the bus: its class and a bounded sentence.
func asOnTheWay(err error) error { return NewError(err).Err() }

// outcome is an answer on the short way.
type outcome[T any] struct {
	value T
	err   error
}

// once gives f something that answers, and waits for the first answer.
func once[T any](ctx context.Context, c *Client, f func(answer func(T, error))) (T, error) {
	answered := make(chan outcome[T], 1)
	f(func(v T, err error) {
		select {
		case answered <- outcome[T]{v, asOnTheWay(err)}:
		default:
		}
	})
	var none T
	select {
	case o := <-answered:
		return o.value, o.err
	case <-c.Done():
		return none, c.conn.Err()
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// askNear asks a host of this process. What it answers is written and read again, so
// that asker and host share no memory.
func (c *Client) askNear(ctx context.Context, h StepHandlers, a Ask, out any) error {
	body, err := once(ctx, c, func(answer func(any, error)) { h.Ask(a, answer) })
	if err != nil || out == nil || body == nil {
		return err
	}
	data, err := json.Marshal(body)
	if err == nil {
		err = json.Unmarshal(data, out)
	}
	if err != nil {
		return errclass.Errorf(errdefs.ErrInternal, "read the answer to %s: %w", a.Verb, err)
	}
	return nil
}

// sendFinish sends a result once.
func (c *Client) sendFinish(ctx context.Context, f Finish) (r Receipt, err error) {
	if take, _ := c.takers(); take != nil {
		return once(ctx, c, func(answer func(Receipt, error)) { take(f, answer) })
	}
	err = c.tell(ctx, c.subjects.Finish(f.Kind, f.Driver), f, &r)
	return r, err
}

// sendReport sends a report once.
func (c *Client) sendReport(ctx context.Context, p Report) (r Receipt, err error) {
	if _, take := c.takers(); take != nil {
		return once(ctx, c, func(answer func(Receipt, error)) { take(p, answer) })
	}
	err = c.tell(ctx, c.subjects.Report(p.Kind, p.Driver), p, &r)
	return r, err
}

// takers are who takes results and reports on the short way; nil off it.
func (c *Client) takers() (func(Finish, func(Receipt, error)), func(Report, func(Receipt, error))) {
	if c.engine == nil || c.conn.Err() != nil {
		return nil, nil
	}
	c.engine.mu.RLock()
	defer c.engine.mu.RUnlock()
	return c.engine.finish, c.engine.report
}
