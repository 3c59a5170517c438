package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

// maxChain bounds a chain of causes.
const maxChain = 64

// cause is what the chain of causes needs of an event.
type cause struct {
	Seq   uint64     `json:"seq"`
	Name  string     `json:"event"`
	Noun  string     `json:"noun"`
	ID    string     `json:"id"`
	Job   core.JobID `json:"job"`
	Cause uint64     `json:"cause"`
	line  []byte
}

// why follows the causes of a container's present state through the log. It
// reads the log once from its beginning, outside of every lock.
func (e *Engine) why(ctx context.Context, in query.RefIn) (query.Why, error) {
	e.mu.RLock()
	c, err := findContainer(e.durable, in.Ref)
	if err != nil {
		e.mu.RUnlock()
		return query.Why{}, err
	}
	out := query.Why{Seq: e.durable.Seq, Container: summary(e.durable, c)}
	e.mu.RUnlock()
	noun := core.Noun{Kind: core.KindContainer, ID: string(c.ID)}
	out.Steps = e.stepsOf(noun)

	story, err := e.story(ctx, noun, out.Seq)
	if err != nil {
		return out, err
	}
	for at, guessed := newest(story, noun), false; at != nil && len(out.Chain) < maxChain; {
		link := query.Link{Event: at.line}
		next := story[at.Cause]
		if next == nil && at.Name != "job.accepted" {
			next = before(story, noun, at)
			guessed = next != nil
		}
		link.Guessed, guessed = guessed, false
		if next == nil {
			link.Job = e.job(core.JobID(at.ID))
		}
		out.Chain = append(out.Chain, link)
		at = next
	}
	return out, nil
}

func (e *Engine) job(id core.JobID) *core.Job {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if j := e.durable.Jobs[id]; j != nil {
		k := *j
		return &k
	}
	return nil
}

// story is the events up to a sequence that name the noun anywhere, and those
// that caused them, by sequence.
func (e *Engine) story(ctx context.Context, n core.Noun, to uint64) (map[uint64]*cause, error) {
	story := make(map[uint64]*cause)
	id := []byte(n.ID)
	err := scan(ctx, e.o.Log, 1, func(seq uint64, line []byte) error {
		if seq > to {
			return errEnough{}
		}
		if !bytes.Contains(line, id) {
			return nil
		}
		c := &cause{line: bytes.Clone(line)}
		if err := json.Unmarshal(line, c); err != nil {
			return err
		}
		story[seq] = c
		return nil
	})
	if err != nil {
		return nil, err
	}
	return story, e.addCauses(ctx, story)
}

// addCauses reads those causes that are about other nouns.
func (e *Engine) addCauses(ctx context.Context, story map[uint64]*cause) error {
	for range maxChain {
		var missing []uint64
		for _, c := range story {
			if c.Cause != 0 && story[c.Cause] == nil {
				missing = append(missing, c.Cause)
			}
		}
		if len(missing) == 0 {
			return nil
		}
		slices.Sort(missing)
		for _, want := range slices.Compact(missing) {
			err := scan(ctx, e.o.Log, want, func(_ uint64, line []byte) error {
				c := &cause{line: bytes.Clone(line)}
				if err := json.Unmarshal(line, c); err != nil {
					return err
				}
				story[want] = c
				return errEnough{}
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// newest is the last event about the noun.
func newest(story map[uint64]*cause, n core.Noun) *cause {
	var last *cause
	for _, c := range story {
		if c.Noun == n.Kind && c.ID == n.ID && (last == nil || c.Seq > last.Seq) {
			last = c
		}
	}
	return last
}

// before is what came before an event that names no cause: an exit follows from
// the signal that was delivered, or else from the start.
func before(story map[uint64]*cause, n core.Noun, at *cause) *cause {
	if at.Noun != n.Kind {
		return nil
	}
	var last *cause
	for _, c := range story {
		if c.Noun == n.Kind && c.ID == n.ID && c.Seq < at.Seq && (last == nil || c.Seq > last.Seq) {
			last = c
		}
	}
	return last
}
