package server

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gantryd/gantry/bus"
)

const (
	// tailFrames and tailBytes bound what waits for a tailer. What does not fit
	// is read from the journal when its turn comes.
	tailFrames = 1024
	tailBytes  = 32 << 20
	// lateFrames bounds how far a tailer is behind that may be late.
	lateFrames = 4096
	// tailRetry is the wait before a tailer that has met an error goes on; each
	// further wait is twice as long, up to tailRetryMax.
	tailRetry    = 100 * time.Millisecond
	tailRetryMax = 10 * time.Second
)

// tailer takes frames in order to one place. Whoever offers them never waits:
// frames that do not fit into its queue are read from the journal later.
type tailer struct {
	name    string
	journal Journal
	log     *slog.Logger
	emit    func(context.Context, bus.Frame) error
	// flush sends what emit has left in a buffer. It is called when nothing waits.
	flush func() error
	// rest is waited after a flush: what comes meanwhile goes together.
	rest time.Duration
	// late is how long frames may wait, up to lateFrames of them; they are then read from
	// the journal, all at once. 0: they are queued and taken as soon as possible.
	late time.Duration
	// check finds out whether what was emitted has arrived, as far as is known.
	check func(context.Context) error
	// again finds out, after an error of emit, which sequence comes next.
	again func(context.Context, uint64) (uint64, error)

	queue  chan bus.Frame
	queued atomic.Int64  // bytes in queue
	behind atomic.Int64  // frames offered since the last look into the journal, if it may be late
	wake   chan struct{} // something did not fit; capacity 1
	next   uint64        // sequence of the next event; the tailer's goroutine's own
}

func newTailer(name string, journal Journal, log *slog.Logger, next uint64) *tailer {
	return &tailer{name: name, journal: journal, log: log, next: next,
		check: func(context.Context) error { return nil },
		flush: func() error { return nil },
		again: func(_ context.Context, next uint64) (uint64, error) { return next, nil },
		queue: make(chan bus.Frame, tailFrames), wake: make(chan struct{}, 1)}
}

// offer gives the tailer a frame. It never blocks.
func (t *tailer) offer(f bus.Frame) {
	if t.late > 0 {
		switch t.behind.Add(1) {
		case 1:
			time.AfterFunc(t.late, t.nudge)
		case lateFrames:
			t.nudge()
		}
		return
	}
	size := int64(len(f.Payload))
	if t.queued.Add(size) <= tailBytes {
		select {
		case t.queue <- f:
			return
		default:
		}
	}
	t.queued.Add(-size)
	t.nudge()
}

// nudge has the tailer look into the journal.
func (t *tailer) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run takes frames until ctx ends.
func (t *tailer) run(ctx context.Context) {
	for wait := tailRetry; ; {
		err := t.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		t.log.Error("the events do not get on", "where", t.name, "next", t.next, "error", err, "again_after", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, tailRetryMax)
		next, err := t.again(ctx, t.next)
		if err != nil {
			continue
		}
		if next > t.next {
			wait = tailRetry
		}
		t.next = next
		t.nudge()
	}
}

func (t *tailer) follow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.wake:
			t.behind.Store(0)
			if err := t.check(ctx); err != nil {
				return err
			}
			if err := t.catchUp(ctx); err != nil {
				return err
			}
		case f := <-t.queue:
			t.queued.Add(-int64(len(f.Payload)))
			if f.First > t.next {
				t.nudge()
				continue
			}
			if err := t.take(ctx, f); err != nil {
				return err
			}
		}
		if len(t.queue) > 0 {
			continue
		}
		if err := t.flush(); err != nil {
			return err
		}
		if t.rest > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(t.rest):
			}
		}
	}
}

// catchUp takes what the journal has and was not taken yet.
func (t *tailer) catchUp(ctx context.Context) error {
	if head, _ := t.journal.Head(); head < t.next {
		return nil
	}
	return t.journal.Read(t.next, func(f bus.Frame) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return t.take(ctx, f)
	})
}

// take emits the frame unless it was taken before.
func (t *tailer) take(ctx context.Context, f bus.Frame) error {
	if f.Last() < t.next {
		return nil
	}
	if err := t.emit(ctx, f); err != nil {
		return err
	}
	t.next = f.Last() + 1
	return nil
}
