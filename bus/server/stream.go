package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/internal/wire"
	"github.com/gantryd/gantry/internal/errclass"
)

// Journal is the log, of which the stream is a copy.
type Journal interface {
	// Read calls f with every durable frame from the one that holds the
	// sequence to the head. The payload is valid only during the call.
	Read(from uint64, f func(bus.Frame) error) error
	// Head is the last durable event and the hash of its record.
	Head() (seq uint64, hash [32]byte)
	// Hash is the hash of the frame's record.
	Hash(bus.Frame) ([32]byte, error)
	// Restore makes frames durable that were in the stream alone. They follow
	// the head and fit its chain.
	Restore([]bus.Frame) error
}

// StreamReport says how the stream was found.
type StreamReport struct {
	Stream   string // its name
	Last     uint64 // its last sequence after all this
	Restored uint64 // events that the log had lost and the stream gave back
	SetAside string // name of a stream that did not fit the log, or empty
	Reason   string // why it did not fit
}

// restoreBatch bounds the frames that are handed back at once.
const restoreBatch = 1024

// enableStream gives the account STREAM its JetStream.
func (s *Server) enableStream() error {
	return s.registry.accounts[accountStream].EnableJetStream(nil, nil)
}

// Show has old events answered from the journal, before the stream is open.
func (s *Server) Show(journal Journal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal = journal
}

// openJetStream connects to the account STREAM. With many events that takes a
// while: JetStream reads all of its messages again.
func (s *Server) openJetStream(ctx context.Context) (jetStream, error) {
	if err := s.enableStream(); err != nil {
		return jetStream{}, err
	}
	nc, err := s.splicer.dial(peer{role: bus.RoleEngine, account: accountStream, actor: ownActor()})
	if err != nil {
		return jetStream{}, err
	}
	conn, err := wire.New(ctx, nc, "stream")
	if err != nil {
		_ = nc.Close() // the first error is the one that matters
		return jetStream{}, err
	}
	return jetStream{conn}, nil
}

// OpenStream compares the stream with the journal and makes them one. If the stream is
// ahead and fits the chain, what the journal has lost is restored. If it
// does not fit, it is set aside under its name and a new one begins;
// nothing is ever deleted. Then it follows the journal; see Publisher.
func (s *Server) OpenStream(ctx context.Context, journal Journal) (*Publisher, StreamReport, error) {
	js, err := s.openJetStream(ctx)
	if err != nil {
		return nil, StreamReport{}, fmt.Errorf("open the stream: %w", err)
	}
	s.onClose(func() { _ = js.conn.Close() }) // the server ends next
	report, err := s.reconcile(ctx, js, journal)
	if err != nil {
		return nil, report, fmt.Errorf("open the stream: %w", err)
	}
	s.mu.Lock()
	s.stream, s.journal = report.Stream, journal
	s.mu.Unlock()
	if report.SetAside != "" {
		s.log.Error("the stream of events did not fit the log and was set aside",
			"stream", report.SetAside, "reason", report.Reason, "now", report.Stream)
	}
	p, err := s.startPublisher(ctx, js, journal, report)
	return p, report, err
}

// reconcile finds or makes the stream that fits the journal.
func (s *Server) reconcile(ctx context.Context, js jetStream, journal Journal) (StreamReport, error) {
	name, err := js.newest(ctx)
	if err != nil {
		return StreamReport{}, err
	}
	if name == "" {
		return s.newStream(ctx, js, StreamReport{}, 1)
	}
	report := StreamReport{Stream: name}
	report.Restored, err = takeBack(ctx, js, name, journal)
	if err == nil {
		report.Last, err = compare(ctx, js, name, journal)
	}
	if !errors.Is(err, errNoFit) {
		return report, err
	}
	report.SetAside, report.Reason = name, err.Error()
	if err := js.listenTo(ctx, name, s.subjects.Aside(name)); err != nil {
		return report, err
	}
	return s.newStream(ctx, js, report, streamNumber(name)+1)
}

func (s *Server) newStream(ctx context.Context, js jetStream, report StreamReport, number int) (StreamReport, error) {
	report.Stream, report.Last = fmt.Sprintf("%s%d", bus.EventsStream, number), 0
	err := js.ask(ctx, "STREAM.CREATE."+report.Stream, streamConfig(report.Stream, s.subjects.Events("", "")), nil)
	return report, err
}

// errNoFit is a stream that is not this journal's.
var errNoFit = errors.New("the stream does not fit the log")

func noFit(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errNoFit, fmt.Sprintf(format, args...))
}

// takeBack restores the frames that the stream has beyond the journal, as far as they
// are whole and fit the chain. It gives the number of their events.
func takeBack(ctx context.Context, js jetStream, name string, journal Journal) (uint64, error) {
	seq, hash := journal.Head()
	first, last, count, err := js.state(ctx, name)
	if err != nil || last <= seq {
		return 0, err
	}
	if first != 1 || count != last {
		return 0, noFit("it has %d messages from %d to %d", count, first, last)
	}
	var back []bus.Frame
	restored := uint64(0)
	flush := func() error {
		if len(back) == 0 {
			return nil
		}
		if err := journal.Restore(back); err != nil {
			return fmt.Errorf("take back events %d to %d: %w", back[0].First, back[len(back)-1].Last(), err)
		}
		restored += back[len(back)-1].Last() - back[0].First + 1
		back = back[:0]
		return nil
	}
	_, err = js.frames(ctx, name, seq+1, func(f bus.Frame) error {
		if f.Prev != hash {
			return noFit("event %d follows the hash %x, the log has %x", f.First, f.Prev[:6], hash[:6])
		}
		if hash, err = journal.Hash(f); err != nil {
			return noFit("event %d: %v", f.First, err)
		}
		back = append(back, f)
		if len(back) == restoreBatch {
			return flush()
		}
		return nil
	})
	if errdefs.IsDataLoss(err) {
		err = noFit("%v", err)
	}
	if err != nil && !errors.Is(err, errNoFit) {
		return restored, err
	}
	// What fits was acknowledged once, also if something behind it does not fit.
	return restored, errors.Join(err, flush())
}

// compare makes sure that the stream's last message is the journal's event of that
// number; the hash in its headers stands for all before. It gives the number.
func compare(ctx context.Context, js jetStream, name string, journal Journal) (uint64, error) {
	first, last, count, err := js.state(ctx, name)
	if err != nil || last == 0 {
		return 0, err
	}
	head, _ := journal.Head()
	switch {
	case last > head:
		return 0, noFit("it goes to %d, the log to %d", last, head)
	case first != 1 || count != last:
		return 0, noFit("it has %d messages from %d to %d", count, first, last)
	}
	var there *stored
	err = js.read(ctx, name, last, func(m stored) error { there = &m; return nil })
	if errdefs.IsDataLoss(err) || err == nil && there == nil {
		return 0, noFit("its last message cannot be read (%v)", err)
	}
	if err != nil {
		return 0, err
	}
	return last, readOne(journal, last, func(f bus.Frame, e bus.Event) error {
		want := f
		want.Payload, want.Time = nil, f.Time.UTC()
		got := there.frame
		same := got.Batch == want.Batch && got.First == want.First && got.Count == want.Count && got.Prev == want.Prev &&
			got.Schema == want.Schema && got.Flags == want.Flags && got.Time.Equal(want.Time)
		if !same || !bytes.Equal(e.Line, there.line) {
			return noFit("event %d is another one", last)
		}
		return nil
	})
}

// errEnough ends a reading of the journal early.
var errEnough = errors.New("enough")

// readOne calls f with one event of the journal and its frame.
func readOne(journal Journal, seq uint64, f func(bus.Frame, bus.Event) error) error {
	err := journal.Read(seq, func(frame bus.Frame) error {
		if frame.First > seq || frame.Last() < seq {
			return errclass.Errorf(errdefs.ErrInternal, "the log gives frame %d for event %d", frame.First, seq)
		}
		events, err := frame.Events()
		if err != nil {
			return err
		}
		if err := f(frame, events[seq-frame.First]); err != nil {
			return err
		}
		return errEnough
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	if err == nil {
		return errclass.Errorf(errdefs.ErrNotFound, "the log has no event %d", seq)
	}
	return err
}

// ReadStream calls f with the whole frames of the newest stream from the
// sequence on, which must begin a frame: for a repair of the log.
func (s *Server) ReadStream(ctx context.Context, from uint64, f func(bus.Frame) error) error {
	js, err := s.openJetStream(ctx)
	if err != nil {
		return err
	}
	defer js.conn.Close()
	name, err := js.newest(ctx)
	if err != nil || name == "" {
		return err
	}
	_, err = js.frames(ctx, name, from, f)
	return err
}
