package bus

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus/internal/wire"
	"github.com/gantryd/gantry/internal/errclass"
)

// Frame is one record of the log as the bus carries it: all events of one
// decision. Its fields are those of the log's record, and with them the
// record's bytes can be made again.
type Frame struct {
	Batch   uint64    // first sequence of the write it came in
	First   uint64    // sequence of its first event
	Count   uint32    // events in it
	Time    time.Time // to the nanosecond
	Schema  uint16
	Flags   uint16
	Prev    [32]byte // hash of the record before
	Payload []byte   // Count lines of JSON, each ended by \n
}

// Last is the sequence of the frame's last event.
func (f Frame) Last() uint64 { return f.First + uint64(f.Count) - 1 }

// The headers of an event's message. All but the first two are the frame's.
const (
	HeaderSeq    = "Gantry-Seq"      // sequence of the event
	HeaderEvent  = "Gantry-Event"    // its name, e.g. container.created
	HeaderFirst  = "Gantry-First"    // sequence of the frame's first event
	HeaderCount  = "Gantry-Count"    // events in the frame
	HeaderBatch  = "Gantry-Batch"    // first sequence of the write
	HeaderTime   = "Gantry-Time"     // nanoseconds since 1970 UTC
	HeaderSchema = "Gantry-Schema"   // of the events
	HeaderFlags  = "Gantry-Flags"    // the writer's
	HeaderPrev   = "Gantry-Previous" // SHA-256 of the record before, in hexadecimal digits
)

// Events takes the frame apart. The lines share the payload's memory.
func (f Frame) Events() ([]Event, error) {
	events := make([]Event, 0, f.Count)
	for rest := f.Payload; len(rest) > 0; {
		line, after, ok := bytes.Cut(rest, []byte{'\n'})
		if !ok {
			return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "frame %d: its last line does not end", f.First)
		}
		e, err := eventOf(f.First+uint64(len(events)), line)
		if err != nil {
			return nil, err
		}
		events, rest = append(events, e), after
	}
	if uint64(len(events)) != uint64(f.Count) {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "frame %d: %d lines for %d events", f.First, len(events), f.Count)
	}
	return events, nil
}

// eventOf reads what the bus needs of an event: what it is about and its name.
func eventOf(seq uint64, line []byte) (Event, error) {
	e, err := EventOf(line)
	e.Seq = seq
	return e, err
}

// EventOf reads an event from its JSON, as it is in the log.
func EventOf(line []byte) (Event, error) {
	if e, ok := peekEvent(line); ok {
		return e, nil
	}
	var head struct {
		Seq  uint64 `json:"seq"`
		Name string `json:"event"`
		Noun string `json:"noun"`
		ID   string `json:"id"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return Event{}, errclass.Errorf(errdefs.ErrInvalidArgument, "read an event: %w", err)
	}
	return Event{Seq: head.Seq, Noun: head.Noun, ID: head.ID, Name: head.Name, Line: line}, nil
}

// peekEvent reads an event as the core writes it, with its header in the header's
// order; not ok if the line looks otherwise. All else of the line is not looked at.
func peekEvent(line []byte) (e Event, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"seq":`))
	if !ok {
		return e, false
	}
	digits, rest, ok := bytes.Cut(rest, []byte(`,"event":"`))
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	if !ok || err != nil {
		return e, false
	}
	var parts [4]string // name, time, noun, id
	for i, next := range [4]string{`,"time":"`, `,"noun":"`, `,"id":"`, ``} {
		end := bytes.IndexAny(rest, "\"\\")
		if end < 0 || rest[end] == '\\' {
			return e, false
		}
		parts[i] = string(rest[:end])
		if rest, ok = bytes.CutPrefix(rest[end+1:], []byte(next)); !ok {
			return e, false
		}
	}
	return Event{Seq: seq, Name: parts[0], Noun: parts[2], ID: parts[3], Line: line}, true
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// liveHeader is that of an event for those who listen: what they read of it.
func liveHeader(e Event) wire.Header {
	return wire.Header{{Name: HeaderSeq, Value: number(e.Seq)}, {Name: HeaderEvent, Value: e.Name}}
}

// header is what all events of the frame have in the stream beside their own.
func (f Frame) header() wire.Header {
	return wire.Header{
		{Name: HeaderFirst, Value: number(f.First)},
		{Name: HeaderCount, Value: number(uint64(f.Count))},
		{Name: HeaderBatch, Value: number(f.Batch)},
		{Name: HeaderTime, Value: strconv.FormatInt(f.Time.UnixNano(), 10)},
		{Name: HeaderSchema, Value: number(uint64(f.Schema))},
		{Name: HeaderFlags, Value: number(uint64(f.Flags))},
		{Name: HeaderPrev, Value: hex.EncodeToString(f.Prev[:])},
	}
}

// Outgoing is a message as the stream gets it.
type Outgoing struct {
	Subject string
	Header  wire.Header
	Event   Event
}

// Messages are the frame's events as they are copied into the stream, one each.
func (s Subjects) Messages(f Frame) ([]Outgoing, error) {
	events, err := f.Events()
	if err != nil {
		return nil, err
	}
	out, shared := make([]Outgoing, len(events)), f.header()
	for i, e := range events {
		h := append(append(make(wire.Header, 0, len(shared)+3), liveHeader(e)...), shared...) // and one of the stream's own
		out[i] = Outgoing{Subject: s.Kept(e.Noun, e.ID), Header: h, Event: e}
	}
	return out, nil
}

// ParseFrame reads a message's headers: the frame it is of, without payload,
// and its sequence.
func ParseFrame(get func(name string) string) (Frame, uint64, error) {
	var bad error
	number := func(name string, bits int) uint64 {
		n, err := strconv.ParseUint(get(name), 10, bits)
		if err != nil && bad == nil {
			bad = fmt.Errorf("header %s: %w", name, err)
		}
		return n
	}
	f := Frame{
		Batch: number(HeaderBatch, 64), First: number(HeaderFirst, 64), Count: uint32(number(HeaderCount, 32)),
		Schema: uint16(number(HeaderSchema, 16)), Flags: uint16(number(HeaderFlags, 16)),
	}
	seq := number(HeaderSeq, 64)
	nanos, err := strconv.ParseInt(get(HeaderTime), 10, 64)
	if err != nil && bad == nil {
		bad = fmt.Errorf("header %s: %w", HeaderTime, err)
	}
	f.Time = time.Unix(0, nanos).UTC()
	if n, err := hex.Decode(f.Prev[:], []byte(fit(get(HeaderPrev)))); (err != nil || n != len(f.Prev)) && bad == nil {
		bad = fmt.Errorf("header %s is no hash", HeaderPrev)
	}
	if bad == nil && (seq < f.First || seq > f.Last() || f.Count == 0) {
		bad = fmt.Errorf("event %d is not in frame %d of %d", seq, f.First, f.Count)
	}
	if bad != nil {
		return Frame{}, 0, errclass.Errorf(errdefs.ErrDataLoss, "read a message of the stream: %w", bad)
	}
	return f, seq, nil
}

// fit keeps hex.Decode from writing beyond a hash.
func fit(s string) string {
	if len(s) > 64 {
		return ""
	}
	return s
}
