package bus

import (
	"context"
	"iter"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus/internal/wire"
	"github.com/gantryd/gantry/internal/errclass"
)

const (
	// eventBuffer bounds the events that a slow reader has not taken yet; what
	// does not fit is read from the past.
	eventBuffer = 256
	// idleCheck is how long a stream waits before it makes sure that it has
	// missed nothing: the last of all events leaves no gap behind it.
	idleCheck = 10 * time.Second
)

// Filter chooses events: of one noun, or about one id of a noun. Empty: all.
type Filter struct {
	Noun string `json:"noun,omitempty"`
	ID   string `json:"id,omitempty"`
}

// Match says whether the filter chooses the event.
func (f Filter) Match(e Event) bool {
	return (f.Noun == "" || f.Noun == e.Noun) && (f.ID == "" || f.ID == e.ID)
}

// HistoryQuery is the body of the query QueryHistory.
type HistoryQuery struct {
	Filter
	From uint64 `json:"from"` // first sequence; 0: none, only where the head is
}

// HistoryPage is the answer: a part of what was asked for.
type HistoryPage struct {
	Events []OldEvent `json:"events,omitempty"`
	Next   uint64     `json:"next"` // sequence to go on with
	Head   uint64     `json:"head"` // last sequence there is
}

// OldEvent is one event of a page.
type OldEvent struct {
	Seq  uint64 `json:"seq"`
	Line string `json:"line"` // the event's JSON, byte for byte
}

// EventStream gives events in order, each once, and none is missing. It is for
// one goroutine.
type EventStream struct {
	client *Client
	filter Filter
	sub    *wire.Sub
	live   chan Event
	missed atomic.Bool // live was full once

	next    uint64  // lowest sequence that was not given yet
	backlog []Event // read from the past, not given yet
	past    bool    // the past is to be read before live goes on
	readTo  uint64  // sequence to go on with in the past, when backlog is empty
}

// Events begins with the sequence from, 1 for all there is, or with the next
// event if from is 0. When it returns, no later event is missed. Close ends it.
func (c *Client) Events(ctx context.Context, from uint64, f Filter) (*EventStream, error) {
	s := &EventStream{client: c, filter: f, live: make(chan Event, eventBuffer), next: from, past: from > 0}
	sub, err := c.conn.Subscribe(c.subjects.Events(f.Noun, f.ID), s.receive)
	if err != nil {
		return nil, err
	}
	s.sub = sub
	if from > 0 {
		return s, nil
	}
	// The answer tells where the head is, and that the subscription stands.
	var page HistoryPage
	if err := c.Query(ctx, QueryHistory, HistoryQuery{}, &page); err != nil {
		s.Close()
		return nil, err
	}
	s.next = page.Next
	return s, nil
}

// receive takes what is published. It runs on the connection's goroutine.
func (s *EventStream) receive(m *wire.Msg) {
	seq, err := strconv.ParseUint(m.Header.Get(HeaderSeq), 10, 64)
	if err != nil || !genuine(s.client.subjects.Events(s.filter.Noun, s.filter.ID), m) {
		return
	}
	noun, id := s.client.subjects.parseEvent(m.Subject)
	select {
	case s.live <- Event{Seq: seq, Noun: noun, ID: id, Name: m.Header.Get(HeaderEvent), Line: m.Data}:
	default:
		s.missed.Store(true)
	}
}

// Close ends the stream.
func (s *EventStream) Close() { _ = s.sub.Close() } // fails only with the connection, which ends it too

// Next waits for the next event.
func (s *EventStream) Next(ctx context.Context) (Event, error) {
	for {
		if e, ok := s.fromBacklog(); ok {
			return e, nil
		}
		if s.missed.Swap(false) {
			s.past = true
		}
		if s.past {
			if err := s.readPast(ctx); err != nil {
				return Event{}, err
			}
			continue
		}
		e, ok, err := s.fromLive(ctx)
		if err != nil || ok {
			return e, err
		}
	}
}

// All ranges over the events until ctx ends or the connection is lost.
func (s *EventStream) All(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			e, err := s.Next(ctx)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (s *EventStream) fromBacklog() (Event, bool) {
	for len(s.backlog) > 0 {
		e := s.backlog[0]
		s.backlog = s.backlog[1:]
		if e.Seq >= s.next {
			s.next = e.Seq + 1
			return e, true
		}
	}
	s.next = max(s.next, s.readTo)
	return Event{}, false
}

// readPast reads one page. After the last one it is live again.
func (s *EventStream) readPast(ctx context.Context) error {
	var page HistoryPage
	if err := s.client.Query(ctx, QueryHistory, HistoryQuery{Filter: s.filter, From: s.next}, &page); err != nil {
		return err
	}
	for _, old := range page.Events {
		e, err := eventOf(old.Seq, []byte(old.Line))
		if err != nil {
			return err
		}
		s.backlog = append(s.backlog, e)
	}
	s.readTo, s.past = page.Next, page.Next <= page.Head
	if page.Next < s.next || s.past && page.Next == s.next {
		return errclass.Errorf(errdefs.ErrInternal, "the past does not get on from sequence %d", s.next)
	}
	return nil
}

// fromLive waits for a published event. A gap, or long silence, has the past read.
func (s *EventStream) fromLive(ctx context.Context) (Event, bool, error) {
	idle := time.NewTimer(idleCheck)
	defer idle.Stop()
	select {
	case e := <-s.live:
		switch {
		case e.Seq < s.next:
			return Event{}, false, nil // given already, from the past
		case s.filter == Filter{} && e.Seq > s.next:
			s.past = true // e is there, too
			return Event{}, false, nil
		}
		s.next = e.Seq + 1
		return e, true, nil
	case <-idle.C:
		s.past = true
		return Event{}, false, nil
	case <-s.client.Done():
		return Event{}, false, s.client.conn.Err()
	case <-ctx.Done():
		return Event{}, false, ctx.Err()
	}
}

// BufferFrame tells the frame's events to whoever listens, as far as heard says that
// somebody does: it is asked with each subject. They go out with the next Flush, or
// with FlushFrames.
func (c *Client) BufferFrame(f Frame, heard func(subject string) bool) error {
	events, err := f.Events()
	if err != nil {
		return err
	}
	for _, e := range events {
		subject := c.subjects.Event(e.Noun, e.ID, e.Name)
		if !heard(subject) {
			continue
		}
		if err := c.conn.Buffer(subject, "", liveHeader(e), e.Line); err != nil {
			return err
		}
	}
	return nil
}

// FlushFrames sends what BufferFrame has left.
func (c *Client) FlushFrames() error { return c.conn.Send() }
