package eventlog

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
)

// Options shape a journal. The zero value is what an engine wants.
type Options struct {
	// SegmentSize is the length in bytes beyond which a segment is closed;
	// 0 is 64 MiB.
	SegmentSize int64
	// Reserve is the space in bytes kept for essential frames; 0 is 16 MiB.
	Reserve int64
	// Chunk is by how many bytes the file is allocated ahead; 0 is 1 MiB.
	Chunk int64
}

func (o Options) withDefaults() Options {
	if o.SegmentSize == 0 {
		o.SegmentSize = 64 << 20
	}
	if o.Reserve == 0 {
		o.Reserve = 16 << 20
	}
	if o.Chunk == 0 {
		o.Chunk = 1 << 20
	}
	return o
}

// Journal is the Log in a directory.
type Journal struct {
	fs       FS
	options  Options
	recovery Recovery

	// writing is held by the one who appends, across write and fdatasync. It
	// guards the fields below it.
	writing   sync.Mutex
	failed    error // why nothing more is taken; nil while all is well
	tree      merkle
	end       int64  // where the next record goes in the last segment
	allocated int64  // how far the last segment's file has space
	buf       []byte // of the last batch

	// snapshots lets one snapshot be written at a time.
	snapshots sync.Mutex

	// state guards what readers see. It is never held across a read or write.
	state    sync.RWMutex
	head     Head
	segments []*segment // in order, the last one is written to
	closed   bool
}

// segment is one file. first, prev and prevRoot never change; the others are
// guarded by Journal.state and change only in the last segment.
type segment struct {
	name     string
	file     File
	header   header
	last     uint64 // last sequence in it; header.First-1 while it is empty
	end      int64  // end of the last record
	lastHash Hash   // of the last record; header.Prev while it is empty
	marks    []mark // where some records begin, ascending
}

// mark is where the record with that first sequence begins. There is one about
// every markEvery bytes, so that a reader near the head does not scan the whole
// segment.
type mark struct {
	first uint64
	off   int64
}

const markEvery = 64 << 10

func (s *segment) mark(first uint64, off int64) {
	if n := len(s.marks); n == 0 || off-s.marks[n-1].off >= markEvery {
		s.marks = append(s.marks, mark{first, off})
	}
}

// Open opens the log in dir, which is made if it is not there (its parent must
// be), and recovers from whatever crash came before. Errors: failed precondition if
// another process has it open or a newer program wrote it, CorruptError (data
// loss) if something that was durable is damaged.
func Open(dir string, options Options) (*Journal, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	files, err := openDir(dir, false)
	if err != nil {
		return nil, err
	}
	return OpenFS(files, options)
}

// OpenFS is Open on any filesystem. It closes files when the journal is closed,
// and if it cannot be opened.
func OpenFS(files FS, options Options) (*Journal, error) {
	j := &Journal{fs: files, options: options.withDefaults()}
	if err := j.open(); err != nil {
		j.closeFiles()
		return nil, err
	}
	return j, nil
}

// Recovery is what Open found and did.
func (j *Journal) Recovery() Recovery { return j.recovery }

// Head is the last durable event and the hash of its record.
func (j *Journal) Head() Head {
	j.state.RLock()
	defer j.state.RUnlock()
	return j.head
}

// Append makes one batch durable; see Log.
func (j *Journal) Append(frames []Frame) ([]Record, error) {
	j.writing.Lock()
	defer j.writing.Unlock()
	if j.failed != nil {
		return nil, j.failed
	}
	if len(frames) == 0 {
		return nil, nil
	}
	essential := true
	for _, f := range frames {
		essential = essential && f.Essential
	}
	head := j.Head()
	buf, records, err := encodeFrames(j.buf[:0], position{head.Seq + 1, head.Hash}, frames)
	if err != nil {
		return nil, err
	}
	j.buf = buf
	if err := j.commit(buf, records, essential); err != nil {
		return nil, err
	}
	return records, nil
}

// Restore takes records back from a replica; see Log.
func (j *Journal) Restore(records []Record) error {
	j.writing.Lock()
	defer j.writing.Unlock()
	for len(records) > 0 {
		if j.failed != nil {
			return j.failed
		}
		n := 1
		for n < len(records) && records[n].Batch == records[0].Batch {
			n++
		}
		head := j.Head()
		buf, batch, err := encodeRestored(j.buf[:0], position{head.Seq + 1, head.Hash}, records[:n])
		if err != nil {
			return err
		}
		j.buf = buf
		if err := j.commit(buf, batch, true); err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
}

// encodeRestored gives the bytes of records that must follow p.
func encodeRestored(buf []byte, p position, records []Record) ([]byte, []Record, error) {
	batch := slices.Clone(records)
	for i := range batch {
		if why := p.fits(batch[i]); why != "" {
			return nil, nil, fmt.Errorf("restore record %d: %s: %w", batch[i].First, why, errdefs.ErrFailedPrecondition)
		}
		start := len(buf)
		var err error
		if buf, err = EncodeRecord(buf, batch[i]); err != nil {
			return nil, nil, fmt.Errorf("restore record %d: %w", batch[i].First, err)
		}
		batch[i].Hash = hashOf(buf[start:])
		p.pass(batch[i])
	}
	return buf, batch, nil
}

// commit writes one batch and makes it durable. buf are the bytes of records.
func (j *Journal) commit(buf []byte, records []Record, essential bool) error {
	if j.end >= j.options.SegmentSize {
		if err := j.roll(); err != nil {
			return err
		}
	}
	if err := j.makeRoom(int64(len(buf)), essential); err != nil {
		return err
	}
	active := j.active()
	if _, err := active.file.WriteAt(buf, j.end); err != nil {
		return j.takeBack(active, int64(len(buf)), err)
	}
	if err := active.file.Datasync(); err != nil {
		return j.fail("fdatasync "+active.name, err)
	}
	j.publish(active, records)
	return nil
}

// publish shows durable records to readers.
func (j *Journal) publish(active *segment, records []Record) {
	j.state.Lock()
	defer j.state.Unlock()
	for i := range records {
		r := &records[i]
		active.mark(r.First, j.end)
		j.tree.add(r.Hash)
		j.end += int64(r.Size())
	}
	last := records[len(records)-1]
	active.last, active.lastHash, active.end = last.Last(), last.Hash, j.end
	j.head = Head{Seq: active.last, Hash: active.lastHash}
}

// takeBack undoes a write that did not go through. What is refused must not
// come back after a crash: the zeros are durable before the refusal.
func (j *Journal) takeBack(active *segment, n int64, cause error) error {
	if !noSpace(cause) {
		return j.fail("write "+active.name, cause)
	}
	if err := wipe(active.file, j.end, j.end+n); err != nil {
		// A copy-on-write filesystem may have no room for zeros either; cutting
		// needs none.
		if err := active.file.Truncate(j.end); err != nil {
			return j.fail("cut back "+active.name, err)
		}
		j.allocated = j.end
	}
	if err := active.file.Datasync(); err != nil {
		return j.fail("cut back "+active.name, err)
	}
	return exhausted(cause)
}

// wipe writes zeros over from..to, as far as the file goes.
func wipe(f File, from, to int64) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	to = min(to, size)
	blank := make([]byte, min(scanBuffer, max(to-from, 0)))
	for from < to {
		n, err := f.WriteAt(blank[:min(int64(len(blank)), to-from)], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

// fail ends all writing. It is for what leaves the disk's content unknown.
func (j *Journal) fail(act string, err error) error {
	j.failed = &FatalError{Act: act, Err: err}
	return j.failed
}

// active is the segment that is written to. Only the writer may call it.
func (j *Journal) active() *segment { return j.segments[len(j.segments)-1] }

// Close ends the journal; see Log.
func (j *Journal) Close() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.snapshots.Lock()
	defer j.snapshots.Unlock()
	if j.failed == nil {
		j.failed = errClosed()
	}
	return j.closeFiles()
}

func (j *Journal) closeFiles() error {
	j.state.Lock()
	defer j.state.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	var errs []error
	for _, s := range j.segments {
		if s.file != nil {
			errs = append(errs, s.file.Close())
		}
	}
	return errors.Join(append(errs, j.fs.Close())...)
}

func errClosed() error {
	return fmt.Errorf("event log is closed: %w: %w", errdefs.ErrUnavailable, os.ErrClosed)
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func exhausted(cause error) error {
	return fmt.Errorf("record: no space left for the event log: %w: %w", errdefs.ErrResourceExhausted, cause)
}
