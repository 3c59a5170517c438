package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/internal/wire"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/nats-io/nats-server/v2/server"
)

// window is how many messages may be on their way into the stream without an
// acknowledgement.
const window = 512

// copyRest is how long the stream's copier rests after each batch. The stream may be
// behind by that; a burst of small frames wakes its goroutines that much less often.
const copyRest = 20 * time.Millisecond

// closeWithin bounds how long the rest of a late copy is waited for.
const closeWithin = 2 * time.Second

// Publisher tells the events to whoever listens, and copies them into the
// stream. Each of the two has a goroutine of its own; neither delays the other, or the
// engine.
type Publisher struct {
	live, replica *tailer
	writer        *writer
	cancel        context.CancelFunc
	running       sync.WaitGroup
	close         sync.Once
	closeWithin   time.Duration // closeWithin, but for tests
}

// startPublisher begins with the events after the journal's head for those who
// listen, and after the stream's last for the stream.
func (s *Server) startPublisher(ctx context.Context, js jetStream, journal Journal, report StreamReport) (*Publisher, error) {
	client, err := s.Dial(ctx, bus.RoleEngine, "events")
	if err != nil {
		return nil, err
	}
	head, _ := journal.Head()
	p := &Publisher{
		closeWithin: closeWithin,
		live:        newTailer("listeners", journal, s.log, head+1),
		replica:     newTailer("stream", journal, s.log, report.Last+1),
	}
	listeners := s.registry.accounts[accountEngine]
	heard := func(subject string) bool { return listeners.Interest(subject) > 0 }
	p.live.emit = func(_ context.Context, f bus.Frame) error { return client.BufferFrame(f, heard) }
	p.live.flush = client.FlushFrames
	p.writer, err = newWriter(js, s.subjects, report, p.replica.nudge)
	if err != nil {
		return nil, err
	}
	p.replica.check = p.writer.check
	p.replica.emit = p.writer.write
	p.replica.rest, p.replica.late = copyRest, s.cfg.CopyLate
	p.replica.flush = func() error {
		if s.cfg.Copied != nil {
			s.cfg.Copied()
		}
		return js.conn.Send()
	}
	p.replica.again = p.writer.again
	run, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.running.Go(func() { p.live.run(run) })
	p.running.Go(func() { p.replica.run(run) })
	first := s.cfg.CopyLate
	if head > report.Last+lateFrames {
		first = 0 // the stream was lost, or the engine killed long after a copy
	}
	time.AfterFunc(first, p.replica.nudge)
	s.onClose(func() {
		p.Close()
		_ = client.Close() // nobody listens any more
	})
	return p, nil
}

// Publish tells frames that are durable, in order. It never waits. The frames'
// payloads must not be changed afterwards.
func (p *Publisher) Publish(frames ...bus.Frame) {
	for _, f := range frames {
		p.live.offer(f)
		p.replica.offer(f)
	}
}

// Copied is the last sequence that the stream has acknowledged.
func (p *Publisher) Copied() uint64 { return p.writer.copied.Load() }

// WaitCopied returns when the stream has everything up to the sequence.
func (p *Publisher) WaitCopied(ctx context.Context, seq uint64) error {
	p.replica.nudge()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for p.Copied() < seq {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Close ends both goroutines. What was not copied yet, and cannot be within closeWithin,
// is at the next start.
func (p *Publisher) Close() {
	p.close.Do(func() {
		if p.replica.late > 0 {
			head, _ := p.replica.journal.Head()
			ctx, cancel := context.WithTimeout(context.Background(), p.closeWithin)
			_ = p.WaitCopied(ctx, head) // there is a next start
			cancel()
		}
		p.cancel()
		p.running.Wait()
	})
}

// writer writes messages into the stream, each under the number that it must get.
type writer struct {
	js       jetStream
	subjects bus.Subjects
	stream   string
	acks     string        // subject
	results  chan error    // one for each message; room for those of a try before
	copied   atomic.Uint64 // last sequence that was acknowledged
	inFlight int           // results that are still to come; the tailer's goroutine's own
}

func newWriter(js jetStream, subjects bus.Subjects, report StreamReport, nudge func()) (*writer, error) {
	w := &writer{js: js, subjects: subjects, stream: report.Stream,
		acks: "gantry.acks." + report.Stream, results: make(chan error, 2*window)}
	w.copied.Store(report.Last)
	_, err := js.conn.Subscribe(w.acks, func(m *wire.Msg) {
		seq, err := readAck(m)
		if err == nil {
			w.copied.Store(seq)
		}
		w.results <- err
		if err != nil {
			nudge() // it may be the last for a long time
		}
	})
	return w, err
}

// readAck reads the stream's acknowledgement: the sequence, or why there is none.
func readAck(m *wire.Msg) (uint64, error) {
	var ack struct {
		Error *server.ApiError `json:"error"`
		Seq   uint64           `json:"seq"`
	}
	if m.Status != 0 {
		return 0, errclass.Errorf(errdefs.ErrUnavailable, "the stream does not listen (%d)", m.Status)
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return 0, fmt.Errorf("read the stream's acknowledgement: %w", err)
	}
	if ack.Error != nil {
		return 0, errclass.Errorf(classOf(ack.Error), "the stream says: %s", ack.Error.Description)
	}
	return ack.Seq, nil
}

// check takes results that have come, without waiting.
func (w *writer) check(ctx context.Context) error { return w.settle(ctx, 0, false) }

// write sends the frame's messages and does not wait for their acknowledgements,
// but for earlier ones if there are too many. As each names the number that it must
// follow, a lost one makes all later ones fail: nothing is ever out of place.
func (w *writer) write(ctx context.Context, f bus.Frame) error {
	if err := w.check(ctx); err != nil {
		return err
	}
	messages, err := w.subjects.Messages(f)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if w.inFlight >= window {
			if err := w.js.conn.Flush(ctx); err != nil {
				return err
			}
			if err := w.settle(ctx, window/2, true); err != nil {
				return err
			}
		}
		h := append(m.Header, wire.Field{Name: server.JSExpectedLastSeq, Value: strconv.FormatUint(m.Event.Seq-1, 10)})
		if err := w.js.conn.Buffer(m.Subject, w.acks, h, m.Event.Line); err != nil {
			return err
		}
		w.inFlight++
	}
	return nil
}

// settle takes results that have come; if wait, until no more than left are due.
func (w *writer) settle(ctx context.Context, left int, wait bool) error {
	deadline := time.NewTimer(streamWithin)
	defer deadline.Stop()
	for w.inFlight > left {
		if !wait && len(w.results) == 0 {
			return nil
		}
		select {
		case err := <-w.results:
			w.inFlight--
			if err != nil {
				return err
			}
		case <-w.js.conn.Done():
			return w.js.conn.Err()
		case <-deadline.C:
			return errclass.Errorf(errdefs.ErrUnavailable, "the stream has not acknowledged %d events in %s", w.inFlight, streamWithin)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// again finds out, after an error, what the stream has.
func (w *writer) again(ctx context.Context, _ uint64) (uint64, error) {
	// Results of what was sent before come first, or do not come any more.
	if err := w.js.conn.Flush(ctx); err != nil {
		return 0, err
	}
	_, last, _, err := w.js.state(ctx, w.stream)
	if err != nil {
		return 0, err
	}
	for {
		select {
		case <-w.results:
			continue
		default:
		}
		break
	}
	w.inFlight = 0
	return last + 1, nil
}
