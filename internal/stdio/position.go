package stdio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// Seek goes to the byte with this running offset: the next record begins
// there, or behind it if it is gone. It works in both directions.
func (r *LogReader) Seek(offset uint64) error {
	files, err := r.files()
	if err != nil {
		return fmt.Errorf("seek log %s: %w", r.path, err)
	}
	best := -1
	for i, f := range files {
		if !f.empty && (best < 0 || f.first <= offset) {
			best = i
		}
	}
	r.from, r.any, r.next = offset, false, 0
	if err := r.use(files, best); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("seek log %s: %w", r.path, err)
	}
	return nil
}

// Tail goes to the last n lines of what is there now, both streams counted
// together; a last line without its newline is one.
func (r *LogReader) Tail(n int) error {
	files, err := r.files()
	if err != nil {
		return fmt.Errorf("tail of log %s: %w", r.path, err)
	}
	defer r.release(files)
	if n <= 0 {
		return r.seekEnd(files)
	}
	first, lines := len(files), 0
	for first > 0 && lines <= n {
		first--
		if err := eachRecord(&files[first], func(rec Record) {
			lines += bytes.Count(rec.Data, []byte{'\n'})
		}); err != nil {
			return fmt.Errorf("tail of log %s: %w", r.path, err)
		}
	}
	starts := lineStarts{max: n}
	for i := range files[first:] {
		if err := eachRecord(&files[first+i], starts.add); err != nil {
			return fmt.Errorf("tail of log %s: %w", r.path, err)
		}
	}
	return r.Seek(starts.oldest())
}

func (r *LogReader) seekEnd(files []file) error {
	var end uint64
	for i := range files {
		if err := eachRecord(&files[i], func(rec Record) { end = max(end, rec.End()) }); err != nil {
			return fmt.Errorf("end of log %s: %w", r.path, err)
		}
	}
	return r.Seek(end)
}

// eachRecord reads a file from its beginning.
func eachRecord(f *file, do func(Record)) error {
	s := newScanner(f.f, f.limit)
	for {
		rec, err := s.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		do(rec)
	}
}

// lineStarts keeps the offsets of the last max beginnings of lines.
type lineStarts struct {
	max  int
	ring []uint64
	at   int
	mid  [4]bool // this stream is inside a line
}

func (l *lineStarts) add(rec Record) {
	at := rec.Offset
	for data := rec.Data; len(data) > 0; {
		if !l.mid[rec.Stream&3] {
			l.push(at)
		}
		i := bytes.IndexByte(data, '\n')
		l.mid[rec.Stream&3] = i < 0
		if i < 0 {
			return
		}
		data = data[i+1:]
		at += uint64(i + 1)
	}
}

func (l *lineStarts) push(offset uint64) {
	if len(l.ring) < l.max {
		l.ring = append(l.ring, offset)
		return
	}
	l.ring[l.at] = offset
	l.at = (l.at + 1) % l.max
}

func (l *lineStarts) oldest() uint64 {
	if len(l.ring) == 0 {
		return 0
	}
	return l.ring[l.at]
}

// RepairLog makes a log ready for another run, when no shim writes it: a torn
// last record is cut off, and the running offset behind the last whole one is
// returned (plan.Log.Offset). A log that is not there begins at 0.
func RepairLog(path string) (uint64, error) {
	r := &LogReader{path: path}
	files, err := r.files()
	if err != nil {
		return 0, fmt.Errorf("repair log %s: %w", path, err)
	}
	defer closeAll(files)
	var end uint64
	for i := len(files) - 1; i >= 0 && end == 0; i-- {
		if !files[i].empty {
			if err := eachRecord(&files[i], func(rec Record) { end = max(end, rec.End()) }); err != nil {
				return 0, fmt.Errorf("repair log %s: %w", path, err)
			}
		}
	}
	return end, cutTorn(path)
}

func cutTorn(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("repair log: %w", err)
	}
	defer f.Close()
	s := newScanner(f, wholeFile)
	for {
		_, err := s.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("repair log: %w", err)
		}
	}
	info, err := f.Stat()
	if err != nil || info.Size() == s.at {
		return err
	}
	if err := f.Truncate(s.at); err != nil {
		return fmt.Errorf("repair log: %w", err)
	}
	return nil
}
