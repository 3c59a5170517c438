package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
)

// FindingKind says what kind of damage a Finding is.
type FindingKind string

// The kinds of damage. All but a torn tail are corruption: Open refuses.
const (
	// DamagedRecords are bytes that are no records, or records that do not fit
	// the chain.
	DamagedRecords FindingKind = "damaged records"
	// DamagedEnd is a closed segment that does not end in its footer.
	DamagedEnd FindingKind = "damaged end of segment"
	// DamagedHeader is a segment's header that is unreadable or does not fit.
	DamagedHeader FindingKind = "damaged segment header"
	// MissingSegment is a gap between two segments.
	MissingSegment FindingKind = "missing segment"
	// TornTail is an unfinished write at the end of the log; Open cuts it.
	TornTail FindingKind = "torn tail"
)

// Finding names one damage.
type Finding struct {
	Kind    FindingKind `json:"kind"`
	Segment string      `json:"segment"`          // file name
	Offset  int64       `json:"offset"`           // where in the file it begins
	Length  int64       `json:"length,omitempty"` // bytes up to what is whole again
	Seq     uint64      `json:"seq"`              // first sequence that is missing
	Until   uint64      `json:"until,omitempty"`  // last one; Seq-1 if no event is missing, 0 if not known
	What    string      `json:"what"`
}

// String is the finding as one line.
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s offset %d length %d sequence %d to %d: %s",
		f.Kind, f.Segment, f.Offset, f.Length, f.Seq, f.Until, f.What)
}

// Summary counts what Verify could read.
type Summary struct {
	Segments int
	Records  uint64 // readable ones
	Events   uint64 // in them
	Bytes    int64  // of them
	Damages  int    // findings but the torn tail
	Torn     bool   // there is a torn tail
	Head     Head   // the last readable record
}

// Verify reads the whole log in dir, with or without an engine running on it,
// changes nothing, and reports every damage in the order of the log. Its error
// is about reading the directory; damage is none.
func Verify(ctx context.Context, dir string, report func(Finding)) (Summary, error) {
	files, err := openDir(dir, true)
	if err != nil {
		return Summary{}, err
	}
	defer files.Close()
	return VerifyFS(ctx, files, report)
}

// VerifyFS is Verify on any filesystem; it leaves files open.
func VerifyFS(ctx context.Context, files FS, report func(Finding)) (Summary, error) {
	return walk(ctx, files, &verifier{report: report})
}

// walk verifies all segments of files.
func walk(ctx context.Context, files FS, v *verifier) (Summary, error) {
	names, err := files.List()
	if err != nil {
		return v.sum, fmt.Errorf("verify event log: list: %w", err)
	}
	fresh, err := checkFormat(files, names)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		v.find(Finding{Kind: DamagedHeader, Segment: formatFile, What: corrupt.What})
	} else if err != nil {
		return v.sum, err
	}
	if fresh {
		return v.sum, fmt.Errorf("verify event log: there is none in the directory: %w", errdefs.ErrNotFound)
	}
	found := segmentNames(names)
	if len(found) == 0 && snapshotWithoutLog(names) {
		v.find(Finding{Kind: MissingSegment, Segment: segmentName(1), Seq: 1, What: "there is a snapshot but no segment"})
	}
	v.started = true
	v.at.next = 1
	for i, name := range found {
		if err := v.named(ctx, files, found, i); err != nil {
			return v.sum, fmt.Errorf("verify event log: %s: %w", name, err)
		}
	}
	return v.sum, nil
}

// verifier walks over segments in order.
type verifier struct {
	report func(Finding)
	each   func(Record) error // gets every readable record; may be nil
	sum    Summary

	started bool     // at and root say what the next segment must follow
	at      position // where the chain stands
	root    Hash     // of the segment before; zero for the first

	// of the segment at hand
	name   string
	header header
	scan   *scanner
	tree   merkle
	whole  bool // no record is missing in tree
}

func (v *verifier) find(f Finding) {
	if f.Kind == TornTail {
		v.sum.Torn = true
	} else {
		v.sum.Damages++
	}
	v.report(f)
}

// named opens found[i] and verifies it.
func (v *verifier) named(ctx context.Context, files FS, found []string, i int) error {
	file, err := files.Open(found[i], false)
	if err != nil {
		return err
	}
	defer file.Close()
	var next uint64
	if i < len(found)-1 {
		next, _ = segmentFirst(found[i+1])
	}
	return v.segment(ctx, file, found[i], next)
}

// segment verifies one segment; next is the first sequence of the one behind
// it, 0 for the last one.
func (v *verifier) segment(ctx context.Context, file File, name string, next uint64) error {
	size, err := file.Size()
	if err != nil {
		return err
	}
	v.sum.Segments++
	v.name = name
	if err := v.begin(patient{file}); err != nil {
		return err
	}
	v.tree, v.whole = merkle{}, true
	v.scan = newScanner(patient{file}, headerSize, size)
	for over := false; !over; {
		if err := ctx.Err(); err != nil {
			return err
		}
		it, err := v.scan.next()
		if err != nil {
			return err
		}
		switch it.kind {
		case foundRecord:
			err = v.record(it)
		case foundDamage:
			over, err = v.damage(it, next)
		default:
			over, err = true, v.end(it, next)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// begin reads the header. Where none came before, it takes the header's word
// for where the chain stands.
func (v *verifier) begin(file io.ReaderAt) error {
	first, _ := segmentFirst(v.name)
	h, err := readHeader(file, v.name)
	var corrupt *CorruptError
	if err != nil && !errors.As(err, &corrupt) {
		return err
	}
	if v.started && first > v.at.next {
		v.find(Finding{Kind: MissingSegment, Segment: segmentName(v.at.next), Seq: v.at.next, Until: first - 1,
			What: fmt.Sprintf("the next segment begins with %d", first)})
		v.started = false
	}
	why := ""
	switch {
	case corrupt != nil:
		why = corrupt.What
	case v.started:
		why = follows(h, footer{Last: v.at.next - 1, LastHash: v.at.hash, Root: v.root}, v.name)
	}
	if why != "" {
		v.find(Finding{Kind: DamagedHeader, Segment: v.name, Length: headerSize, Seq: first, Until: first - 1, What: why})
	}
	if !v.started {
		v.at, v.root = position{first, h.Prev}, h.PrevRoot
	}
	v.header = header{First: first, Prev: v.at.hash, PrevRoot: v.root}
	v.started = true
	return nil
}

// record passes a readable record, and reports it if it does not fit the chain:
// it or the one before it has been changed by somebody who knew the checksum.
func (v *verifier) record(it item) error {
	if why := v.at.fits(it.record); why != "" {
		v.find(Finding{Kind: DamagedRecords, Segment: v.name, Offset: it.off, Length: v.scan.off - it.off,
			Seq: v.at.next, Until: it.record.Last(), What: why})
		v.whole = false
	}
	return v.pass(it.record)
}

func (v *verifier) pass(r Record) error {
	v.at.pass(r)
	v.tree.add(r.Hash)
	v.sum.Records++
	v.sum.Events += uint64(r.Count)
	v.sum.Bytes += int64(r.Size())
	v.sum.Head = Head{Seq: r.Last(), Hash: r.Hash}
	if v.each == nil {
		return nil
	}
	return v.each(r)
}

// damage reports bytes that are no record and goes on behind them.
func (v *verifier) damage(it item, next uint64) (over bool, err error) {
	v.whole = false
	f := Finding{Kind: DamagedRecords, Segment: v.name, Offset: it.off, Seq: v.at.next, What: it.what}
	behind, err := v.scan.resync()
	if err != nil {
		return true, err
	}
	f.Length = behind.off - it.off
	switch behind.kind {
	case foundRecord:
		f.Until = behind.record.First - 1
		if next == 0 {
			if later, err := v.laterBatch(behind, f.Seq); err != nil || !later {
				f.Kind, f.Length, f.Until = TornTail, v.scan.end-it.off, 0
				v.find(f)
				return true, err
			}
		}
		v.find(f)
		v.at = position{behind.record.First, behind.record.Prev}
		return false, v.pass(behind.record)
	case foundFooter:
		f.Until = behind.footer.Last
		v.find(f)
		v.at = position{behind.footer.Last + 1, behind.footer.LastHash}
		return true, v.end(behind, next)
	}
	f.Kind = TornTail
	if next != 0 {
		f.Kind, f.Until = DamagedEnd, next-1
		v.unknown(next)
	}
	v.find(f)
	return true, nil
}

// unknown makes the next header be believed.
func (v *verifier) unknown(next uint64) {
	v.started = false
	v.at.next = next
}

// laterBatch reports whether behind, or anything after it, shows that what is
// missing at seq had been durable.
func (v *verifier) laterBatch(behind item, seq uint64) (bool, error) {
	if behind.record.Batch > seq {
		return true, nil
	}
	ahead := newScanner(v.scan.f, v.scan.off, v.scan.end)
	for {
		it, _, err := ahead.at()
		if err == nil && it.kind != foundRecord && it.kind != foundFooter {
			it, err = ahead.resync()
		} else if err == nil {
			it, err = ahead.next()
		}
		switch {
		case err != nil:
			return false, err
		case it.kind == foundEnd:
			return false, nil
		case it.kind == foundFooter || it.record.Batch > seq:
			return true, nil
		}
	}
}

// end checks what comes after the last record.
func (v *verifier) end(it item, next uint64) error {
	f := Finding{Kind: DamagedEnd, Segment: v.name, Offset: it.off, Seq: v.at.next, Until: v.at.next - 1}
	switch {
	case it.kind == foundEnd && next == 0:
		return nil
	case it.kind == foundEnd:
		f.Until, f.What = next-1, "a segment follows, but this one has no footer"
		v.find(f)
		v.root = v.tree.root()
		if !v.whole || v.at.next != next {
			v.unknown(next)
		}
		return nil
	}
	foot := it.footer
	rest, err := lastByte(v.scan.f, it.off+footerSize, v.scan.end)
	if err != nil {
		return err
	}
	switch {
	case foot.First != v.header.First || foot.Last != v.at.next-1 || foot.LastHash != v.at.hash || foot.PrevRoot != v.header.PrevRoot:
		f.What = "footer does not match the records"
	case v.whole && (foot.Root != v.tree.root() || foot.Records != v.tree.count):
		f.What = "footer's root does not match the records"
	case rest >= 0:
		f.What = "something follows the footer"
	}
	if f.What != "" {
		v.find(f)
	}
	v.root = foot.Root
	return nil
}
