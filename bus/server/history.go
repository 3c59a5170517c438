package server

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
)

const (
	// maxHistory and maxHistoryBytes bound one answer; one event alone may be longer.
	maxHistory      = 512
	maxHistoryBytes = 2 << 20
	// maxHistoryScan bounds the events that are looked at for one answer.
	maxHistoryScan = 20_000
)

// history answers a client that has missed events, from the journal.
func (s *Server) history(ctx context.Context, body json.RawMessage) (any, error) {
	var q bus.HistoryQuery
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "read the query: %w", err)
	}
	s.mu.Lock()
	journal := s.journal
	s.mu.Unlock()
	if journal == nil {
		return nil, errclass.Errorf(errdefs.ErrUnavailable, "the log is not open yet")
	}
	head, _ := journal.Head()
	page := bus.HistoryPage{Head: head, Next: max(q.From, 1)}
	if q.From == 0 || q.From > head {
		page.Next = max(head+1, q.From)
		return page, nil
	}
	size, scanned := 0, 0
	err := journal.Read(page.Next, func(f bus.Frame) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		events, err := f.Events()
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Seq < page.Next {
				continue
			}
			if len(page.Events) >= maxHistory || scanned >= maxHistoryScan {
				return errEnough
			}
			scanned++
			if q.Match(e) {
				if size > 0 && size+len(e.Line) > maxHistoryBytes {
					return errEnough
				}
				page.Events = append(page.Events, bus.OldEvent{Seq: e.Seq, Line: string(e.Line)})
				size += len(e.Line)
			}
			page.Next = e.Seq + 1
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	return page, nil
}
