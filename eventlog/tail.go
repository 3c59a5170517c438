package eventlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// recoverLast reads the last segment, tells a torn tail from corruption, cuts the
// one and refuses the other, and makes the last batch durable.
func (j *Journal) recoverLast(s *segment) error {
	s.last, s.lastHash, s.end = s.header.First-1, s.header.Prev, headerSize
	size, err := s.file.Size()
	if err != nil {
		return fmt.Errorf("open event log: %w", err)
	}
	scan := newScanner(s.file, headerSize, size)
	at := position{s.header.First, s.header.Prev}
	batch, batchOff := uint64(0), int64(headerSize)
	for {
		it, err := scan.next()
		if err != nil {
			return fmt.Errorf("open event log: read %s: %w", s.name, err)
		}
		if it.kind != foundRecord {
			if err := j.recoverEnd(s, scan, it, at); err != nil {
				return err
			}
			break
		}
		if why := at.fits(it.record); why != "" {
			return &CorruptError{Segment: s.name, Offset: it.off, Seq: at.next, What: why}
		}
		if it.record.Batch != batch {
			batch, batchOff = it.record.Batch, it.off
		}
		at.pass(it.record)
		s.mark(it.record.First, it.off)
		j.tree.add(it.record.Hash)
		s.last, s.lastHash, s.end = it.record.Last(), it.record.Hash, scan.off
	}
	j.end, j.head = s.end, Head{Seq: s.last, Hash: s.lastHash}
	return j.rewrite(s, batchOff)
}

// recoverEnd deals with what comes after the last good record.
func (j *Journal) recoverEnd(s *segment, scan *scanner, it item, at position) error {
	if it.kind == foundEnd {
		return nil
	}
	if it.kind == foundFooter {
		return j.takeOffFooter(s, scan, it)
	}
	for {
		later, err := scan.resync()
		switch {
		case err != nil:
			return fmt.Errorf("open event log: read %s: %w", s.name, err)
		case later.kind == foundEnd:
			return j.cut(s, it, at, scan.end)
		case later.kind == foundFooter:
			return &CorruptError{Segment: s.name, Offset: it.off, Seq: at.next,
				What: it.what + "; the segment was closed after it"}
		case later.record.Batch > at.next:
			return &CorruptError{Segment: s.name, Offset: it.off, Seq: at.next,
				What: fmt.Sprintf("%s; record %d of the later batch %d is whole", it.what, later.record.First, later.record.Batch)}
		}
	}
}

// takeOffFooter opens a closed segment again: the next one did not come to be.
func (j *Journal) takeOffFooter(s *segment, scan *scanner, it item) error {
	f := it.footer
	if f.Records != j.tree.count || f.First != s.header.First || f.Last != s.last || f.Root != j.tree.root() ||
		f.PrevRoot != s.header.PrevRoot || f.LastHash != s.lastHash {
		return &CorruptError{Segment: s.name, Offset: it.off, Seq: s.last + 1, What: "footer does not match the records"}
	}
	rest, err := lastByte(s.file, scan.off, scan.end)
	if err != nil {
		return fmt.Errorf("open event log: read %s: %w", s.name, err)
	}
	if rest >= 0 {
		return &CorruptError{Segment: s.name, Offset: scan.off, Seq: s.last + 1, What: "something follows the footer"}
	}
	if err := wipe(s.file, it.off, it.off+footerSize); err != nil {
		return fmt.Errorf("open event log: take off the footer of %s: %w", s.name, err)
	}
	j.recovery.Reopened = true
	return nil
}

// cut takes a torn tail out: its bytes are kept beside the log, then it is zeros.
func (j *Journal) cut(s *segment, it item, at position, size int64) error {
	last, err := lastByte(s.file, it.off, size)
	if err != nil {
		return fmt.Errorf("open event log: read %s: %w", s.name, err)
	}
	end := last + 1
	kept, err := keepBytes(j.fs, "torn", at.next, s.file, it.off, end)
	if err != nil && !noSpace(err) {
		return fmt.Errorf("open event log: keep the torn tail: %w", err)
	}
	if err := wipe(s.file, it.off, end); err != nil {
		return fmt.Errorf("open event log: cut the torn tail of %s: %w", s.name, err)
	}
	if err := s.file.Datasync(); err != nil {
		return fmt.Errorf("open event log: cut the torn tail of %s: %w", s.name, err)
	}
	j.recovery.CutBytes, j.recovery.CutSeq = end-it.off, at.next
	j.recovery.CutWhat, j.recovery.CutKept = it.what, kept
	return nil
}

// rewrite writes the last batch again as it is and makes it durable: after kill
// -9, or after a failed fdatasync, it may be in memory only.
func (j *Journal) rewrite(s *segment, from int64) error {
	b := make([]byte, s.end-from)
	if _, err := s.file.ReadAt(b, from); err != nil && !isEOF(err) {
		return fmt.Errorf("open event log: read %s: %w", s.name, err)
	}
	if err := writeSynced(s.file, b, from); err != nil {
		return fmt.Errorf("open event log: write the last batch of %s again: %w", s.name, err)
	}
	j.recovery.Rewritten = int64(len(b))
	return nil
}

// maxKept bounds the search for a free name.
const maxKept = 1000

// keepBytes copies from..to of a file to KIND-SEQ-N and returns its name.
func keepBytes(files FS, kind string, seq uint64, source io.ReaderAt, from, to int64) (string, error) {
	for n := range maxKept {
		name := fmt.Sprintf("%s-%d-%d", kind, seq, n)
		file, err := files.Open(name, true)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		_, err = io.Copy(&offsetWriter{file, 0}, io.NewSectionReader(source, from, to-from))
		if err == nil {
			err = file.Datasync()
		}
		if closed := file.Close(); err == nil {
			err = closed
		}
		if err != nil {
			_ = files.Remove(name) // half a copy is worth nothing
			return "", err
		}
		return name, files.SyncDir()
	}
	return "", fmt.Errorf("%d files %s-%d-… are there already", maxKept, kind, seq)
}

// offsetWriter writes to a file one piece after the other.
type offsetWriter struct {
	file io.WriterAt
	off  int64
}

func (w *offsetWriter) Write(b []byte) (int, error) {
	n, err := w.file.WriteAt(b, w.off)
	w.off += int64(n)
	return n, err
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
