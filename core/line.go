package core

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
)

// EncodeEvent is an event as one line of the log.
func EncodeEvent(e Event) ([]byte, error) { return json.Marshal(e) }

// DecodeEvent reads a line of the log. Fields of a later release are passed
// over: fields are only ever added.
//
// Most of a line is its header, so that is read by hand where it stands as
// EncodeEvent writes it; any other line is read as JSON from its beginning.
func DecodeEvent(line []byte) (Event, error) {
	e, fields := cutHeader(line)
	if e == nil {
		return decodeWhole(line)
	}
	if fields == nil {
		return e, nil
	}
	if err := json.Unmarshal(fields, e); err != nil {
		return nil, fmt.Errorf("decode event %s: %w", e.name(), err)
	}
	return e, nil
}

// decodeWhole reads a line of any form.
func decodeWhole(line []byte) (Event, error) {
	var h struct {
		Name string `json:"event"`
	}
	if err := json.Unmarshal(line, &h); err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	f := events[h.Name]
	if f == nil {
		return nil, refuse(errdefs.ErrNotImplemented, "event %q is of a later release", h.Name)
	}
	e := f()
	if err := json.Unmarshal(line, e); err != nil {
		return nil, fmt.Errorf("decode event %s: %w", h.Name, err)
	}
	return e, nil
}

// cutHeader makes the event of a line that looks as EncodeEvent writes it, with its
// header alone. The event's own fields are left as a JSON object; nil if it has none.
// For any other line there is no event.
func cutHeader(line []byte) (e Event, fields []byte) {
	c := cutter{rest: line, ok: true}
	seq := c.number(`{"seq":`)
	f := events[string(c.text(`,"event":"`))]
	if f == nil {
		return nil, nil
	}
	e = f()
	h := e.Head()
	h.Seq, h.Name = seq, e.name()
	c.ok = h.Time.UnmarshalText(c.text(`,"time":"`)) == nil && c.ok
	h.Noun = kindOf(c.text(`,"noun":"`))
	h.ID = string(c.text(`,"id":"`))
	if c.has(`,"job":"`) {
		h.Job = JobID(c.text(`,"job":"`))
	}
	if c.has(`,"cause":`) {
		h.Cause = c.number(`,"cause":`)
	}
	switch {
	case !c.ok:
	case string(c.rest) == "}":
		return e, nil
	case c.has(`,"`):
		return e, append(append(make([]byte, 0, len(c.rest)), '{'), c.rest[1:]...)
	}
	return nil, nil
}

// kindOf is a kind of nouns as a string; of those that are known no second one is made.
func kindOf(text []byte) string {
	for _, kind := range [...]string{KindContainer, KindJob, KindLayer, KindImage, KindNetwork, KindDriver, KindEngine} {
		if string(text) == kind {
			return kind
		}
	}
	return string(text)
}

// cutter takes a line apart from its beginning, as long as it looks as expected.
type cutter struct {
	rest []byte
	ok   bool
}

func (c *cutter) has(begin string) bool {
	return len(c.rest) >= len(begin) && string(c.rest[:len(begin)]) == begin
}

// number is the number behind begin, written as JSON has it: nothing else stands
// for one.
func (c *cutter) number(begin string) uint64 {
	if c.ok = c.ok && c.has(begin); !c.ok {
		return 0
	}
	c.rest = c.rest[len(begin):]
	end := bytes.IndexAny(c.rest, ",}")
	if end < 1 || c.rest[0] == '0' && end > 1 {
		c.ok = false
		return 0
	}
	n, err := strconv.ParseUint(string(c.rest[:end]), 10, 64)
	c.ok = err == nil
	c.rest = c.rest[end:]
	return n
}

// text is the text behind begin, which ends with a quote and is plain ASCII without
// escapes.
func (c *cutter) text(begin string) []byte {
	if c.ok = c.ok && c.has(begin); !c.ok {
		return nil
	}
	c.rest = c.rest[len(begin):]
	for i, b := range c.rest {
		if b == '"' {
			text := c.rest[:i]
			c.rest = c.rest[i+1:]
			return text
		}
		if b < ' ' || b > '~' || b == '\\' {
			break
		}
	}
	c.ok = false
	return nil
}
