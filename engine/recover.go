package engine

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
)

const (
	// chunkBytes is about how much of the log is decoded at once.
	chunkBytes = 256 << 10
	// SnapshotEvery is about how many events there are between two snapshots.
	SnapshotEvery = 10_000
)

// Fold is the state after the log's last event: the newest snapshot that fits,
// and the fold of the rest.
func Fold(log eventlog.Log) (*core.State, error) {
	s, _, err := foldLog(log)
	return s, err
}

// foldLog also gives the position of the state in the log.
func foldLog(log eventlog.Log) (*core.State, eventlog.Head, error) {
	s := core.NewState()
	var at eventlog.Head
	snap, err := log.LoadSnapshot(core.SchemaVersion)
	if err == nil {
		if old, err := core.UnmarshalState(snap.State); err == nil && old.Seq == snap.Seq {
			s, at = old, eventlog.Head{Seq: snap.Seq, Hash: snap.Chain}
		}
	} else if !errdefs.IsNotFound(err) {
		return nil, at, fmt.Errorf("load a snapshot: %w", err)
	}
	if log.Head().Seq == s.Seq {
		return s, at, nil
	}
	at, err = foldRest(log, s, at)
	return s, at, err
}

// chunk is some records and, once it is decoded, their events.
type chunk struct {
	first  uint64
	lines  [][]byte
	end    eventlog.Head // of its last record
	events []core.Event
	err    error
	ready  chan struct{}
}

// foldRest folds what comes after s. Decoding is the dear part: it is done by
// several goroutines ahead of the fold, in chunks that keep their order.
func foldRest(log eventlog.Log, s *core.State, at eventlog.Head) (eventlog.Head, error) {
	workers := runtime.GOMAXPROCS(0)
	todo := make(chan *chunk, workers)
	order := make(chan *chunk, 4*workers)
	stop := make(chan struct{})
	for range workers {
		go func() {
			for c := range todo {
				c.decode()
			}
		}()
	}
	var readErr error
	go func() {
		defer close(order)
		defer close(todo)
		readErr = readChunks(log, s.Seq+1, func(c *chunk) error {
			select {
			case order <- c:
			case <-stop:
				return errStopped{}
			}
			select {
			case todo <- c:
			case <-stop:
				c.err = errStopped{}
				close(c.ready)
				return errStopped{}
			}
			return nil
		})
	}()
	var err error
	for c := range order {
		if err != nil {
			continue
		}
		<-c.ready
		if err = c.err; err != nil {
			close(stop)
			continue
		}
		for _, event := range c.events {
			s.Apply(event)
		}
		at = c.end
	}
	if err == nil {
		err = readErr
	}
	if err != nil {
		return at, fmt.Errorf("fold the event log: %w", err)
	}
	return at, nil
}

// errStopped ends a reading whose fold has failed.
type errStopped struct{}

func (errStopped) Error() string { return "stopped" }

// readChunks cuts the log's records into chunks, from the first that begins with
// or after from.
func readChunks(log eventlog.Log, from uint64, f func(*chunk) error) error {
	var c *chunk
	size := 0
	err := log.Read(from, func(r eventlog.Record) error {
		if r.First < from {
			return fmt.Errorf("record %d begins before %d: %w", r.First, from, errdefs.ErrDataLoss)
		}
		if c == nil {
			c, size = &chunk{first: r.First, ready: make(chan struct{})}, 0
		}
		payload := append([]byte(nil), r.Payload...) // the log's is gone after the call
		r.Payload = payload
		err := r.Lines(func(_ uint64, line []byte) error {
			c.lines = append(c.lines, line)
			return nil
		})
		if err != nil {
			return err
		}
		c.end = eventlog.Head{Seq: r.Last(), Hash: r.Hash}
		if size += len(payload); size >= chunkBytes {
			full := c
			c = nil
			return f(full)
		}
		return nil
	})
	if err == nil && c != nil {
		err = f(c)
	}
	return err
}

func (c *chunk) decode() {
	defer close(c.ready)
	c.events = make([]core.Event, 0, len(c.lines))
	for i, line := range c.lines {
		event, err := core.DecodeEvent(line)
		if err != nil {
			c.err = fmt.Errorf("event %d: %w", c.first+uint64(i), err)
			return
		}
		c.events = append(c.events, event)
	}
	c.lines = nil
}

// Snapshot folds the log as it is now, from the last snapshot on, and keeps the
// result beside it. It works on a state of its own: neither the loop nor a query
// waits for it, and it may run on any goroutine.
func Snapshot(log eventlog.Log) (uint64, error) {
	s, at, err := foldLog(log)
	if err != nil {
		return 0, err
	}
	data, err := s.MarshalBinary()
	if err != nil {
		return 0, fmt.Errorf("encode state at %d: %w", s.Seq, err)
	}
	err = log.SaveSnapshot(eventlog.Snapshot{Schema: core.SchemaVersion, Seq: at.Seq, Chain: at.Hash, State: data})
	return at.Seq, err
}

// Snapshots keeps a snapshot about every SnapshotEvery events until ctx ends.
func Snapshots(ctx context.Context, log eventlog.Log, logger *slog.Logger) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	last := log.Head().Seq / SnapshotEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := log.Head().Seq / SnapshotEvery
		if now == last {
			continue
		}
		last = now
		begun := time.Now()
		seq, err := Snapshot(log)
		if err != nil {
			logger.Warn("keep a snapshot", "error", err)
			continue
		}
		logger.Info("snapshot", "seq", seq, "took", time.Since(begun))
	}
}
