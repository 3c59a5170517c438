package eventlog

import (
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
)

// Log is the ordered durable record of what happened. One goroutine appends;
// any number read at the same time. Package logtest has its contract as tests.
type Log interface {
	// Append makes one batch durable: one write, one fdatasync. The frames get
	// the sequences after Head, in order; when it returns nil, all of them are
	// durable, and with an error none is. Classes: invalid argument (a frame that
	// cannot be stored), failed precondition (Frame.First is not what comes
	// next), resource exhausted (no space; the log goes on, see
	// Frame.Essential). With any other error see IsFatal: the log takes nothing
	// more and the caller must stop. The records' payloads are the frames' own.
	Append(frames []Frame) ([]Record, error)

	// Restore makes records durable that a replica gives back: the ones after
	// Head, byte for byte, each batch with its own fdatasync. A record that does
	// not fit the chain is refused with failed precondition; the batches before
	// it stay.
	Restore(records []Record) error

	// Read calls f with every durable record from the one that holds sequence
	// from (0 and 1: the first) to the head at the time of the call, in order,
	// checksum and chain verified. A payload is valid only during the call.
	// Damage ends it with a CorruptError, an error of f with that error.
	Read(from uint64, f func(Record) error) error

	// Head is the last durable event and the hash of its record.
	Head() Head

	// SaveSnapshot keeps s beside the log. The state must be the fold of all
	// records to s.Seq and no more: s.Chain is the hash of the record that ends
	// there, else failed precondition.
	SaveSnapshot(s Snapshot) error

	// LoadSnapshot gives the newest snapshot of that schema that matches the
	// log, or not found. Those that do not match are thrown away.
	LoadSnapshot(schema uint32) (Snapshot, error)

	// Close ends writing and reading. It makes nothing durable: all is already.
	Close() error
}

// Frame is one decision to be recorded: its events, whole or not at all.
type Frame struct {
	First   uint64    // sequence of the first event, as the caller counts; 0: not checked
	Count   uint32    // events in it
	Time    time.Time // when it was decided, by the wall clock
	Schema  uint16    // schema of the events
	Flags   uint16    // kept as they are
	Payload []byte    // Count lines of JSON, each ended by \n

	// Essential marks what must be recordable when the disk is full: results,
	// exits, stop, remove, prune. A batch may use the reserve if all its frames
	// are essential; on resource exhausted append those by themselves.
	Essential bool
}

// Head is a position in the log: the last event and the hash of its record.
type Head struct {
	Seq  uint64 // 0: the log is empty
	Hash Hash
}

// Snapshot is the fold of the log up to a sequence, opaque to the log.
type Snapshot struct {
	Schema uint32 // of the state; another schema's snapshot is not used
	Seq    uint64 // last event in the state; the end of a record
	Chain  Hash   // hash of the record that ends with Seq; zero if Seq is 0
	State  []byte
}

// FatalError is a write or fsync after which nothing is known about the disk.
// It is never retried: the log refuses everything afterwards with the same
// error, and the process must stop and open the log anew.
type FatalError struct {
	Act string // what was done
	Err error
}

// Error names the act and what went wrong.
func (e *FatalError) Error() string {
	return fmt.Sprintf("event log: %s: %v; the engine must stop, nothing more is recorded", e.Act, e.Err)
}

// Unwrap gives the class internal and the cause.
func (e *FatalError) Unwrap() []error { return []error{errdefs.ErrInternal, e.Err} }

// IsFatal reports whether the log takes nothing more after err.
func IsFatal(err error) bool {
	var fatal *FatalError
	return errors.As(err, &fatal)
}

// CorruptError says that something which was durable is damaged, and where.
type CorruptError struct {
	Segment string // file name
	Offset  int64  // byte in the file where the damaged record begins
	Seq     uint64 // the first sequence that is missing there; 0 if not known
	What    string
}

// Error names the place.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("event log is damaged: %s offset %d sequence %d: %s", e.Segment, e.Offset, e.Seq, e.What)
}

// Unwrap gives the class data loss.
func (e *CorruptError) Unwrap() error { return errdefs.ErrDataLoss }

func newerFormat(version uint64) error {
	return fmt.Errorf("event log has format %d, this program knows format %d: use the newer program that wrote it: %w",
		version, formatVersion, errdefs.ErrFailedPrecondition)
}

// position is where the chain stands: what the next record must fit.
type position struct {
	next uint64 // sequence
	hash Hash   // of the record before
}

// fits says why r cannot come next, or nothing.
func (p position) fits(r Record) string {
	switch {
	case r.First != p.next:
		return fmt.Sprintf("record begins with sequence %d, not %d", r.First, p.next)
	case r.Prev != p.hash:
		return fmt.Sprintf("record %d follows hash %.12s, the record before has %.12s", r.First, r.Prev, p.hash)
	}
	return ""
}

func (p *position) pass(r Record) {
	p.next, p.hash = r.Last()+1, r.Hash
}

// encodeFrames gives the bytes and records of one batch that follows p.
func encodeFrames(buf []byte, p position, frames []Frame) ([]byte, []Record, error) {
	batch := p.next
	records := make([]Record, len(frames))
	for i, f := range frames {
		if f.First != 0 && f.First != p.next {
			return nil, nil, fmt.Errorf("append frame %d: it begins with sequence %d, the log goes on with %d: %w",
				i, f.First, p.next, errdefs.ErrFailedPrecondition)
		}
		r := Record{Batch: batch, First: p.next, Count: f.Count, Time: time.Unix(0, f.Time.UnixNano()).UTC(),
			Schema: f.Schema, Flags: f.Flags, Prev: p.hash, Payload: f.Payload}
		if f.Time.UTC().Year() < 1678 || f.Time.UTC().Year() > 2261 {
			r.Time = f.Time // EncodeRecord refuses it by name
		}
		start := len(buf)
		var err error
		if buf, err = EncodeRecord(buf, r); err != nil {
			return nil, nil, fmt.Errorf("append frame %d: %w", i, err)
		}
		r.Hash = hashOf(buf[start:])
		records[i] = r
		p.pass(r)
	}
	return buf, records, nil
}
