package engine

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/errclass"
)

// Journal shows the log in the bus's own words: the stream of events is its copy.
type Journal struct{ log eventlog.Log }

// NewJournal shows log.
func NewJournal(log eventlog.Log) Journal { return Journal{log} }

// Read calls f with every durable frame from the one that holds the sequence.
// The payload is valid only during the call.
func (j Journal) Read(from uint64, f func(bus.Frame) error) error {
	return j.log.Read(from, func(r eventlog.Record) error { return f(FrameOf(r)) })
}

// Head is the last durable event and the hash of its record.
func (j Journal) Head() (uint64, [32]byte) {
	h := j.log.Head()
	return h.Seq, h.Hash
}

// Hash is the hash of the frame's record.
func (j Journal) Hash(f bus.Frame) ([32]byte, error) {
	data, err := eventlog.EncodeRecord(nil, RecordOf(f))
	if err != nil {
		return [32]byte{}, err
	}
	r, _, err := eventlog.DecodeRecord(data)
	return r.Hash, err
}

// Restore makes frames durable that only the stream had.
func (j Journal) Restore(frames []bus.Frame) error {
	records := make([]eventlog.Record, len(frames))
	for i, f := range frames {
		records[i] = RecordOf(f)
	}
	return j.log.Restore(records)
}

// FrameOf is a record as the bus carries it. They share the payload.
func FrameOf(r eventlog.Record) bus.Frame {
	return bus.Frame{
		Batch: r.Batch, First: r.First, Count: r.Count, Time: r.Time, Schema: r.Schema, Flags: r.Flags, Prev: r.Prev,
		Payload: r.Payload,
	}
}

// RecordOf is a frame as the log has it. They share the payload.
func RecordOf(f bus.Frame) eventlog.Record {
	return eventlog.Record{
		Batch: f.Batch, First: f.First, Count: f.Count, Time: f.Time.UTC(), Schema: f.Schema, Flags: f.Flags, Prev: f.Prev,
		Payload: f.Payload,
	}
}

// Identity is the engine's id, the first event's word; empty for an empty log.
func Identity(log eventlog.Log) (string, error) {
	id := ""
	err := log.Read(1, func(r eventlog.Record) error {
		return r.Lines(func(_ uint64, line []byte) error {
			event, err := core.DecodeEvent(line)
			if err != nil {
				return err
			}
			first, ok := event.(*core.EngineInitialized)
			if !ok {
				return errclass.Errorf(errdefs.ErrDataLoss, "the log begins with %s", event.Head().Name)
			}
			id = first.ID
			return errEnough{}
		})
	})
	if err != nil && !errors.Is(err, errEnough{}) {
		return "", fmt.Errorf("read the engine's id: %w", err)
	}
	return id, nil
}
