package eventlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
)

// Read calls f with every durable record from the one that holds from; see Log.
func (j *Journal) Read(from uint64, f func(Record) error) error {
	from = max(from, 1)
	spans, err := j.spans(from)
	if err != nil {
		return err
	}
	for _, s := range spans {
		if err := s.read(from, f); err != nil {
			return err
		}
	}
	return nil
}

// span is a part of a segment that can be read without any lock: what is
// durable never changes.
type span struct {
	name  string
	file  File
	from  int64 // begin of a record
	to    int64 // end of a record
	first uint64
	last  uint64
	prev  *Hash // hash of the record before from; nil if not known
	end   Hash  // hash of the record that ends at to

	unmarked bool // it has no marks: see seek
}

// spans lists what is durable now, from the record that holds from on.
func (j *Journal) spans(from uint64) ([]span, error) {
	j.state.RLock()
	defer j.state.RUnlock()
	if j.closed {
		return nil, errClosed()
	}
	var spans []span
	for _, s := range j.segments {
		if s.last < from || s.last < s.header.First {
			continue
		}
		prev := s.header.Prev
		p := span{name: s.name, file: s.file, from: headerSize, to: s.end, first: s.header.First, last: s.last, prev: &prev, end: s.lastHash, unmarked: len(s.marks) == 0}
		// the last mark at or before from
		if n := sort.Search(len(s.marks), func(i int) bool { return s.marks[i].first > from }); n > 1 {
			p.from, p.first, p.prev = s.marks[n-1].off, s.marks[n-1].first, nil
		}
		spans = append(spans, p)
	}
	return spans, nil
}

// seekNear is how near seek comes to a record, in bytes; the rest is read through.
const seekNear = 1 << 20

// seek moves the begin of p to a record not far before the one that holds from, by
// halves: a segment that was closed before this process opened the log has no
// marks. What is passed over is VerifyOlder's business; what is read is bound to the
// segment's end by its chain as ever.
func (p *span) seek(from uint64, scan *scanner) error {
	for low, high := p.from, p.to; high-low > seekNear; {
		middle := low + (high-low)/2
		scan.move(middle)
		it, err := scan.resync()
		switch {
		case errors.Is(err, os.ErrClosed):
			return errClosed()
		case err != nil:
			return fmt.Errorf("read event log: %s: %w", p.name, err)
		case it.kind == foundRecord && it.record.First <= from:
			low = it.off
			p.from, p.first, p.prev = it.off, it.record.First, nil
		default:
			high = middle
		}
	}
	scan.move(p.from)
	return nil
}

func (p span) read(from uint64, f func(Record) error) error {
	scan := newScanner(p.file, p.from, p.to)
	if p.unmarked && p.first < from {
		if err := p.seek(from, scan); err != nil {
			return err
		}
	}
	at := position{next: p.first}
	for known := p.prev != nil; scan.off < p.to; known = true {
		it, err := scan.next()
		if errors.Is(err, os.ErrClosed) {
			return errClosed()
		}
		if err != nil {
			return fmt.Errorf("read event log: %s: %w", p.name, err)
		}
		if it.kind != foundRecord {
			if it.what == "" {
				it.what = "the segment ends before its last record"
			}
			return &CorruptError{Segment: p.name, Offset: it.off, Seq: at.next, What: it.what}
		}
		if p.prev != nil && it.off == p.from {
			at.hash = *p.prev
		} else if !known {
			at.hash = it.record.Prev
		}
		if why := at.fits(it.record); why != "" {
			return &CorruptError{Segment: p.name, Offset: it.off, Seq: at.next, What: why}
		}
		at.pass(it.record)
		if it.record.Last() < from {
			continue
		}
		if err := f(it.record); err != nil {
			return err
		}
	}
	if at.next != p.last+1 || at.hash != p.end {
		return &CorruptError{Segment: p.name, Offset: p.to, Seq: at.next, What: "the last record is not the one that was recorded"}
	}
	return nil
}

// VerifyOlder checks every record of the closed segments against checksums,
// chain and Merkle roots and reports each damage. It may run beside reading and
// writing, and ends early with ctx. What to do about damage is the caller's
// decision: the log goes on, for what it appends does not depend on old records
// being readable.
func (j *Journal) VerifyOlder(ctx context.Context, report func(Finding)) (Summary, error) {
	j.state.RLock()
	older := append([]*segment(nil), j.segments[:len(j.segments)-1]...)
	j.state.RUnlock()
	v := &verifier{report: report}
	for _, s := range older {
		if err := ctx.Err(); err != nil {
			return v.sum, err
		}
		err := v.segment(ctx, s.file, s.name, s.last+1)
		if errors.Is(err, os.ErrClosed) {
			err = errClosed()
		}
		if err != nil {
			return v.sum, fmt.Errorf("verify %s: %w", s.name, err)
		}
	}
	return v.sum, nil
}
