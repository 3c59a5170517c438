package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// Source gives records of a replica. Any Log is one.
type Source interface {
	// Read calls f with the records from the one that holds sequence from, in
	// order. A payload needs to be valid only during the call.
	Read(from uint64, f func(Record) error) error
}

// Repair rebuilds every damaged segment of the log in dir, byte for byte: what
// is readable stays, what is missing comes from source, and only if the hash
// chain fits from the segment before to the one behind. The damaged file stays
// beside it as damaged-SEQ-N. It needs the lock, so no engine may run. A torn
// tail is left to Open. It returns the names of the segments that it rebuilt;
// what cannot be repaired ends it with data loss, and nothing is changed there.
func Repair(ctx context.Context, dir string, source Source) ([]string, error) {
	files, err := openDir(dir, false)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	return RepairFS(ctx, files, source)
}

// RepairFS is Repair on any filesystem; it takes the lock and leaves files open.
func RepairFS(ctx context.Context, files FS, source Source) ([]string, error) {
	if err := files.Lock(); err != nil {
		return nil, err
	}
	names, err := files.List()
	if err != nil {
		return nil, fmt.Errorf("repair event log: %w", err)
	}
	// The format first: nothing of a newer one may be touched.
	var corrupt *CorruptError
	if _, err := checkFormat(files, names); err != nil && !errors.As(err, &corrupt) {
		return nil, err
	}
	if err := removeUnfinished(files, names); err != nil {
		return nil, fmt.Errorf("repair event log: %w", err)
	}
	// One segment at a time, the first one first: what a segment must follow
	// is known only when all before it are whole.
	var rebuilt []string
	for {
		first, err := firstDamage(ctx, files)
		if err != nil || first == nil {
			return rebuilt, err
		}
		if slices.Contains(rebuilt, first.Segment) {
			return rebuilt, fmt.Errorf("repair event log: %s: still damaged afterwards: %w", first, errdefs.ErrDataLoss)
		}
		if first.Segment == formatFile {
			err = saveFile(files, formatFile, []byte(formatLine(formatVersion)))
		} else {
			err = rebuild(ctx, files, source, first)
		}
		if err != nil {
			return rebuilt, fmt.Errorf("repair event log: %s: %w", first, err)
		}
		rebuilt = append(rebuilt, first.Segment)
	}
}

// firstDamage is the first finding but a torn tail; nil if there is none.
func firstDamage(ctx context.Context, files FS) (*Finding, error) {
	var first *Finding
	_, err := VerifyFS(ctx, files, func(f Finding) {
		if first == nil && f.Kind != TornTail {
			first = &f
		}
	})
	return first, err
}

// rebuild makes the segment of f anew.
func rebuild(ctx context.Context, files FS, source Source, f *Finding) error {
	names, err := files.List()
	if err != nil {
		return err
	}
	found := segmentNames(names)
	if f.Kind == MissingSegment {
		found = append(found, f.Segment)
		slices.Sort(found)
	}
	i := slices.Index(found, f.Segment)
	b := &builder{files: files, name: f.Segment}
	if err := b.bounds(found, i); err != nil {
		return err
	}
	if f.Kind != MissingSegment {
		if err := b.readable(ctx); err != nil {
			return err
		}
	}
	for _, fromDisk := range []bool{true, false} {
		content, err := b.build(source, fromDisk)
		if err == nil {
			return b.replace(content, f)
		}
		if !fromDisk {
			return err
		}
	}
	return nil
}

// builder makes one segment anew.
type builder struct {
	files   FS
	name    string
	header  header   // as it must be
	after   uint64   // first sequence of the segment behind; 0 for the last one
	next    *header  // of the segment behind; nil if it is not readable
	own     *footer  // of the damaged file; nil if it is not readable
	records []Record // readable ones
	size    int64    // of the damaged file
}

// bounds finds what the segment must follow and what must follow it.
func (b *builder) bounds(found []string, i int) error {
	b.header.First = 1
	if i > 0 {
		file, err := b.files.Open(found[i-1], false)
		if err != nil {
			return err
		}
		defer file.Close()
		f, _, err := readFooter(file, found[i-1])
		if err != nil {
			return err
		}
		b.header = header{First: f.Last + 1, Prev: f.LastHash, PrevRoot: f.Root}
	}
	if i == len(found)-1 {
		return nil
	}
	file, err := b.files.Open(found[i+1], false)
	if err != nil {
		return err
	}
	defer file.Close()
	b.after, _ = segmentFirst(found[i+1])
	h, err := readHeader(file, found[i+1])
	if err == nil && h.First == b.after {
		b.next = &h
	} else if !errdefs.IsDataLoss(err) {
		return err
	}
	return nil
}

// readable collects the records that can be read.
func (b *builder) readable(ctx context.Context) error {
	file, err := b.files.Open(b.name, false)
	if err != nil {
		return err
	}
	defer file.Close()
	if b.size, err = file.Size(); err != nil {
		return err
	}
	v := &verifier{report: func(Finding) {}, each: func(r Record) error {
		r.Payload = slices.Clone(r.Payload)
		b.records = append(b.records, r)
		return nil
	}}
	if err := v.segment(ctx, file, b.name, b.after); err != nil {
		return err
	}
	if f, _, err := readFooter(file, b.name); err == nil {
		b.own = &f
	}
	return nil
}

// last is the last sequence of the segment, as far as the directory tells.
func (b *builder) last() uint64 {
	if b.after != 0 {
		return b.after - 1
	}
	if n := len(b.records); n > 0 {
		return b.records[n-1].Last()
	}
	return 0
}

// build gives the segment's bytes: readable records from disk if they may be
// used, all others from the source.
func (b *builder) build(source Source, fromDisk bool) ([]byte, error) {
	content, tree := b.header.encode(), merkle{}
	at := position{b.header.First, b.header.Prev}
	add := func(r Record) error {
		if why := at.fits(r); why != "" {
			return fmt.Errorf("%s: %w", why, errdefs.ErrDataLoss)
		}
		start := len(content)
		var err error
		if content, err = EncodeRecord(content, r); err != nil {
			return err
		}
		r.Hash = hashOf(content[start:])
		tree.add(r.Hash)
		at.pass(r)
		return nil
	}
	var stored []Record
	if fromDisk {
		stored = b.records
	}
	for _, r := range stored {
		if r.First > at.next {
			if err := take(source, at.next, r.First-1, add); err != nil {
				return nil, err
			}
		}
		if err := add(r); err != nil {
			return nil, err
		}
	}
	if at.next <= b.last() {
		if err := take(source, at.next, b.last(), add); err != nil {
			return nil, err
		}
	}
	return b.finish(content, tree, at)
}

// take gets exactly the records with the sequences from..to.
func take(source Source, from, to uint64, add func(Record) error) error {
	next := from
	err := source.Read(from, func(r Record) error {
		if r.First != next || r.Last() > to {
			return fmt.Errorf("replica gives record %d to %d for %d to %d: %w", r.First, r.Last(), next, to, errdefs.ErrDataLoss)
		}
		if err := add(r); err != nil {
			return fmt.Errorf("replica: %w", err)
		}
		if next = r.Last() + 1; next > to {
			return errStop{}
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop{}) {
		return err
	}
	if next <= to {
		return fmt.Errorf("replica does not have sequences %d to %d: %w", next, to, errdefs.ErrDataLoss)
	}
	return nil
}

// finish checks the end against the segment behind, or against the segment's own
// footer if that is damaged too, and adds the footer; for the last segment, the
// zeros that were behind it.
func (b *builder) finish(content []byte, tree merkle, at position) ([]byte, error) {
	if b.after == 0 {
		if tree.count == 0 {
			return nil, fmt.Errorf("nothing says where the segment ends: %w", errdefs.ErrDataLoss)
		}
		return append(content, make([]byte, max(0, b.size-int64(len(content))))...), nil
	}
	f := footer{Records: tree.count, First: b.header.First, Last: at.next - 1,
		Root: tree.root(), PrevRoot: b.header.PrevRoot, LastHash: at.hash}
	switch {
	case b.next != nil:
		if why := follows(*b.next, f, segmentName(b.after)); why != "" {
			return nil, fmt.Errorf("the segment behind: %s: %w", why, errdefs.ErrDataLoss)
		}
	case b.own == nil || *b.own != f:
		return nil, fmt.Errorf("neither its footer nor the header behind it says how it ends: %w", errdefs.ErrDataLoss)
	}
	return append(content, f.encode()...), nil
}

// replace keeps the damaged file and puts the new one in its place.
func (b *builder) replace(content []byte, f *Finding) error {
	if f.Kind != MissingSegment {
		file, err := b.files.Open(b.name, false)
		if err != nil {
			return err
		}
		defer file.Close()
		if _, err := keepBytes(b.files, "damaged", b.header.First, patient{file}, 0, b.size); err != nil {
			return fmt.Errorf("keep the damaged file: %w", classed(err))
		}
	}
	return saveFile(b.files, b.name, content)
}
