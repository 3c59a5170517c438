package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"time"
)

// maxFiles bounds the numbers of a log's files, as the plan does.
const maxFiles = 99

// poll is how often Follow looks whether a log has grown.
const poll = 20 * time.Millisecond

// LogReader reads a log from its oldest record on, over all its files, while
// it may be written and rotated. It is for one goroutine.
//
//	r, err := OpenLog("/…/c1/container.log")
//	r.Tail(10)
//	for {
//		rec, err := r.Follow(ctx) // or Next, which answers io.EOF at the end
//		…
//	}
type LogReader struct {
	path string
	cur  *scanner
	id   os.FileInfo // of cur's file
	next uint64      // running offset behind what was read
	from uint64      // bytes before this are left out (Seek)
	any  bool        // something was read: next is known

	bounded bool
	held    []file // all that is to be read, open until Close, if it is bounded
}

// file is one file of a log, open.
type file struct {
	f     *os.File
	info  os.FileInfo
	first uint64 // offset of its first record
	empty bool   // it has none yet
	limit int64  // bytes to read
}

// OpenLog opens the log whose newest file is path. A log that does not exist
// yet is no error: it has no records.
func OpenLog(path string) (*LogReader, error) {
	r := &LogReader{path: path}
	if err := r.advance(); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	return r, nil
}

// Bound makes the log what it is now: what is written afterwards is not read, and
// nothing that is there is lost to a rotation meanwhile. It is to be called first.
func (r *LogReader) Bound() error {
	files, err := r.files()
	if err != nil {
		return fmt.Errorf("hold log %s: %w", r.path, err)
	}
	if n := len(files); n > 0 {
		files[n-1].limit = files[n-1].info.Size()
	}
	if err := r.Close(); err != nil {
		closeAll(files)
		return err
	}
	r.cur, r.id, r.held, r.bounded = nil, nil, files, true
	return nil
}

// Close lets the files go.
func (r *LogReader) Close() error {
	if r.bounded {
		closeAll(r.held)
		return nil
	}
	if r.cur == nil {
		return nil
	}
	return r.cur.f.Close()
}

// Next gives the next record. io.EOF: there is none yet; it may be asked again.
func (r *LogReader) Next() (Record, error) {
	for {
		rec, err := r.read()
		if err != nil {
			return Record{}, err
		}
		if r.any && rec.Offset > r.next {
			// Records are missing: rotated away or damaged. Tell, and give this
			// one at the next call.
			gap := Record{Stream: Gap, Time: rec.Time, Offset: r.next, Lost: rec.Offset - r.next}
			r.next = rec.Offset
			r.cur.due = 0
			if rec.Offset > r.from {
				return cut(gap, r.from), nil
			}
			continue
		}
		r.any = true
		r.next = rec.End()
		if rec.End() <= r.from {
			continue
		}
		return cut(rec, r.from), nil
	}
}

// Rest is, behind the last record, the gap up to an offset that the log should reach
// and does not. io.EOF: it does.
func (r *LogReader) Rest(to uint64, at time.Time) (Record, error) {
	if to <= max(r.next, r.from) {
		return Record{}, io.EOF
	}
	gap := Record{Stream: Gap, Time: at, Offset: r.next, Lost: to - r.next}
	r.any, r.next = true, to
	return cut(gap, r.from), nil
}

// cut leaves out what lies before offset from.
func cut(rec Record, from uint64) Record {
	if rec.Offset >= from {
		return rec
	}
	n := from - rec.Offset
	if rec.Stream == Gap {
		rec.Lost -= n
	} else {
		rec.Data = rec.Data[n:]
	}
	rec.Offset = from
	return rec
}

// Follow gives the next record and waits for it if there is none yet.
func (r *LogReader) Follow(ctx context.Context) (Record, error) {
	var tick *time.Ticker
	for {
		rec, err := r.Next()
		if !errors.Is(err, io.EOF) {
			return rec, err
		}
		if tick == nil {
			tick = time.NewTicker(poll)
			defer tick.Stop()
		}
		select {
		case <-ctx.Done():
			return Record{}, ctx.Err()
		case <-tick.C:
		}
	}
}

// read gives the next record of the files as they are.
func (r *LogReader) read() (Record, error) {
	for range maxFiles + 2 {
		if r.cur != nil {
			rec, err := r.cur.next()
			if !errors.Is(err, io.EOF) {
				return rec, err
			}
			// Once another file bears the name this one grows no more; it may
			// have grown before.
			if info, statErr := os.Stat(r.path); statErr == nil && os.SameFile(info, r.id) {
				return Record{}, io.EOF
			}
			if rec, err = r.cur.next(); !errors.Is(err, io.EOF) {
				return rec, err
			}
		}
		if err := r.advance(); err != nil {
			return Record{}, err
		}
	}
	return Record{}, io.EOF
}

// advance goes on to the file that holds the record at r.next or, if that is
// gone, the first one behind it. io.EOF: there is none yet.
func (r *LogReader) advance() error {
	files, err := r.files()
	if err != nil {
		return err
	}
	return r.use(files, slices.IndexFunc(files, func(f file) bool {
		return !f.empty && f.first >= r.next && (r.id == nil || !os.SameFile(f.info, r.id))
	}))
}

// use goes on with the file at that place, and lets the others go. io.EOF: there is
// none.
func (r *LogReader) use(files []file, at int) error {
	if at < 0 {
		r.release(files)
		return io.EOF
	}
	f := files[at]
	r.release(files[:at])
	r.release(files[at+1:])
	if r.cur != nil && !r.bounded {
		r.cur.f.Close()
	}
	r.cur, r.id = newScanner(f.f, f.limit), f.info
	return nil
}

// files opens all files of the log, oldest first. Looked for from the newest
// on: a file that a rotation renames meanwhile may be met twice, never missed. The
// rotation leaves one name free at a time, and one that was cut short for good.
func (r *LogReader) files() ([]file, error) {
	if r.bounded {
		return r.held, nil
	}
	var all []file
	for n, free := 0, 0; n <= maxFiles && free < 2; n++ {
		path := r.path
		if n > 0 {
			path = fmt.Sprintf("%s.%d", r.path, n)
		}
		f, err := openFile(path)
		if errors.Is(err, os.ErrNotExist) {
			free++
			continue
		}
		if err != nil {
			closeAll(all)
			return nil, err
		}
		free = 0
		for _, other := range all {
			if os.SameFile(other.info, f.info) {
				f.f.Close()
				f.f = nil
				break
			}
		}
		if f.f != nil {
			all = append(all, f)
		}
	}
	sort.SliceStable(all, func(i, j int) bool {
		if all[i].empty != all[j].empty {
			return all[j].empty
		}
		return all[i].first < all[j].first
	})
	return all, nil
}

// release closes files that files has opened, but those that are held.
func (r *LogReader) release(files []file) {
	if !r.bounded {
		closeAll(files)
	}
}

func closeAll(files []file) {
	for _, f := range files {
		f.f.Close()
	}
}

func openFile(path string) (file, error) {
	f, err := os.Open(path)
	if err != nil {
		return file{}, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return file{}, err
	}
	rec, err := newScanner(f, wholeFile).next()
	if err == nil || errors.Is(err, io.EOF) {
		return file{f: f, info: info, first: rec.Offset, empty: err != nil, limit: wholeFile}, nil
	}
	f.Close()
	return file{}, err
}
