package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/query"
)

const (
	maxPage      = 1000      // events in one page
	maxPageBytes = 512 << 10 // bytes of events in one page
	// maxPageScan bounds how many events are looked at for one page, so that a
	// filter that fits nothing answers in time, with Next further on.
	maxPageScan = 50_000
)

// errEnough ends a reading of the log early.
type errEnough struct{}

func (errEnough) Error() string { return "enough" }

// scan calls f with each event from a sequence on, outside of every lock. f ends
// it with errEnough.
func scan(ctx context.Context, log eventlog.Log, from uint64, f func(seq uint64, line []byte) error) error {
	err := log.Read(from, func(r eventlog.Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return r.Lines(func(seq uint64, line []byte) error {
			if seq < from {
				return nil
			}
			return f(seq, line)
		})
	})
	if errors.Is(err, errEnough{}) {
		return nil
	}
	return err
}

// readLog gives a page of events that the filter lets through.
func (e *Engine) readLog(ctx context.Context, in query.LogIn) (query.LogPage, error) {
	head := e.o.Log.Head().Seq
	page := query.LogPage{Head: head, Next: max(in.From, 1), Events: []json.RawMessage{}}
	last := head
	if in.To != 0 {
		last = min(in.To, head)
	}
	limit := in.Limit
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	m := e.matcher(in)
	size, looked := 0, 0
	err := scan(ctx, e.o.Log, page.Next, func(seq uint64, line []byte) error {
		if seq > last || len(page.Events) >= limit || size >= maxPageBytes || looked >= maxPageScan {
			return errEnough{}
		}
		looked++
		page.Next = seq + 1
		fits, err := m.fits(line)
		if err != nil {
			return err
		}
		if fits {
			page.Events = append(page.Events, json.RawMessage(bytes.Clone(line)))
			size += len(line)
		}
		return nil
	})
	page.Done = page.Next > last
	return page, err
}

// matcher tells which events a filter lets through. The jobs that fit are those
// that the state remembers, and those whose acceptance was read on the way.
type matcher struct {
	in   query.LogIn
	jobs map[core.JobID]bool // of the actor that is wanted, or about the noun
}

// head is what a filter looks at.
type eventHead struct {
	Name    string     `json:"event"`
	Time    time.Time  `json:"time"`
	Noun    string     `json:"noun"`
	ID      string     `json:"id"`
	Job     core.JobID `json:"job"`
	Subject core.Noun  `json:"subject"`
	Actor   core.Actor `json:"actor"`
}

func (e *Engine) matcher(in query.LogIn) *matcher {
	m := &matcher{in: in, jobs: make(map[core.JobID]bool)}
	if in.ID == "" && in.Actor == nil {
		return m
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	for id, j := range e.durable.Jobs {
		m.learn(id, j.Noun, j.Actor)
	}
	return m
}

func (m *matcher) learn(id core.JobID, about core.Noun, actor core.Actor) {
	byActor := m.in.Actor == nil || actor.UID == *m.in.Actor && !actor.Engine
	byNoun := m.in.ID == "" || about.ID == m.in.ID
	if byActor && byNoun {
		m.jobs[id] = true
	}
}

func (m *matcher) fits(line []byte) (bool, error) {
	if m.in.Job != "" && !bytes.Contains(line, []byte(m.in.Job)) {
		return false, nil
	}
	if m.in == (query.LogIn{From: m.in.From, To: m.in.To, Limit: m.in.Limit}) {
		return true, nil
	}
	var h eventHead
	if err := json.Unmarshal(line, &h); err != nil {
		return false, err
	}
	isJob := h.Noun == core.KindJob
	if isJob && h.Job == "" {
		h.Job = core.JobID(h.ID)
	}
	if h.Name == "job.accepted" {
		m.learn(core.JobID(h.ID), h.Subject, h.Actor)
	}
	in := m.in
	switch {
	case !in.Since.IsZero() && h.Time.Before(in.Since), !in.Until.IsZero() && h.Time.After(in.Until):
		return false, nil
	case in.Job != "" && string(h.Job) != in.Job:
		return false, nil
	case in.ID != "" && h.ID != in.ID && !(isJob && m.jobs[h.Job]):
		return false, nil
	case in.ID == "" && in.Noun != "" && h.Noun != in.Noun:
		return false, nil
	case in.Actor != nil && !m.jobs[h.Job]:
		return false, nil
	}
	return true, nil
}
