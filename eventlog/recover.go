package eventlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Recovery is what Open found and did.
type Recovery struct {
	// CutBytes is how long the torn tail was that was cut; 0 if there was none.
	CutBytes int64
	// CutSeq is the sequence that its first record would have had.
	CutSeq uint64
	// CutWhat says what was wrong with it.
	CutWhat string
	// CutKept is the file that has the cut bytes; empty if there was no space.
	CutKept string
	// Rewritten is the number of bytes of the last batch that were written again.
	Rewritten int64
	// Reopened says that a footer with no segment behind it was taken off.
	Reopened bool
}

const formatFile = "format"

func formatLine(version uint64) string { return fmt.Sprintf("gantry log %d\n", version) }

// open does all that Open promises; the caller closes after an error.
func (j *Journal) open() error {
	if err := j.fs.Lock(); err != nil {
		return err
	}
	names, err := j.fs.List()
	if err != nil {
		return fmt.Errorf("open event log: list: %w", err)
	}
	found := segmentNames(names)
	fresh, err := checkFormat(j.fs, names)
	if err != nil {
		return err
	}
	if err := removeUnfinished(j.fs, names); err != nil {
		return fmt.Errorf("open event log: %w", err)
	}
	if fresh {
		if err := saveFile(j.fs, formatFile, []byte(formatLine(formatVersion))); err != nil {
			return fmt.Errorf("make event log: %w", classed(err))
		}
	}
	if len(found) == 0 {
		return j.begin(names)
	}
	if err := j.openSegments(found); err != nil {
		return err
	}
	// After kill -9 the names may be in memory only.
	if err := j.fs.SyncDir(); err != nil {
		return fmt.Errorf("open event log: sync directory: %w", err)
	}
	return j.refill()
}

// removeUnfinished takes away what a crash has left half made.
func removeUnfinished(files FS, names []string) error {
	for _, name := range names {
		if strings.HasSuffix(name, newSuffix) {
			if err := files.Remove(name); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	return nil
}

// begin makes the first segment of a new log.
func (j *Journal) begin(names []string) error {
	if snapshotWithoutLog(names) {
		return &CorruptError{Segment: segmentName(1), Seq: 1, What: "there is a snapshot but no segment"}
	}
	first := &segment{name: segmentName(1), header: header{First: 1}, end: headerSize}
	size := headerSize + j.options.Reserve + j.options.Chunk
	if err := j.newSegment(first, size); err != nil {
		return fmt.Errorf("make event log: %w", classed(err))
	}
	j.segments = []*segment{first}
	j.end, j.allocated = headerSize, size
	if err := j.nameSegment(first); err != nil {
		return fmt.Errorf("make event log: %w", classed(err))
	}
	return nil
}

// snapshotWithoutLog is asked when there is no segment: a log that has a
// snapshot had one.
func snapshotWithoutLog(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return strings.HasPrefix(name, snapshotPrefix) && !strings.HasSuffix(name, newSuffix)
	})
}

// refill allocates ahead of the end again. A full disk is no reason not to open.
func (j *Journal) refill() error {
	size, err := j.active().file.Size()
	if err != nil {
		return fmt.Errorf("open event log: %w", err)
	}
	want := j.end + footerSize + j.options.Reserve + j.options.Chunk
	j.allocated = size
	if err := j.active().file.Allocate(j.end, max(want, size)); err != nil {
		if noSpace(err) {
			return j.active().file.Truncate(size)
		}
		return fmt.Errorf("open event log: allocate: %w", err)
	}
	j.allocated = max(want, size)
	return nil
}

// classed gives no space its class.
func classed(err error) error {
	if noSpace(err) {
		return exhausted(err)
	}
	return err
}

// segmentNames picks the segments' names, in order.
func segmentNames(names []string) []string {
	var found []string
	for _, name := range names {
		if _, ok := segmentFirst(name); ok {
			found = append(found, name)
		}
	}
	slices.Sort(found) // the numbers have a fixed width
	return found
}

// checkFormat refuses a directory that this program does not know. fresh means
// that there is nothing yet.
func checkFormat(files FS, names []string) (fresh bool, err error) {
	b, err := readFile(files, formatFile, 64)
	if errors.Is(err, fs.ErrNotExist) {
		if len(segmentNames(names)) > 0 {
			return false, &CorruptError{Segment: formatFile, What: "there are segments, but the file is missing"}
		}
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("open event log: %w", err)
	}
	number, ok := strings.CutPrefix(string(b), "gantry log ")
	version, bad := strconv.ParseUint(strings.TrimSuffix(number, "\n"), 10, 32)
	switch {
	case !ok || bad != nil:
		return false, &CorruptError{Segment: formatFile, What: fmt.Sprintf("it reads %q", b)}
	case version != formatVersion:
		return false, newerFormat(version)
	}
	return false, nil
}

// readFile reads a file of at most limit bytes; what is longer is refused.
func readFile(files FS, name string, limit int64) ([]byte, error) {
	file, err := files.Open(name, false)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s is %d bytes long: %w", name, size, errdefs.ErrDataLoss)
	}
	b := make([]byte, size)
	if n, err := file.ReadAt(b, 0); int64(n) < size {
		return nil, err
	}
	return b, nil
}

// openSegments opens all, checks how they follow each other, and recovers the
// last one.
func (j *Journal) openSegments(names []string) error {
	before := footer{} // of a log that has not begun
	for i, name := range names {
		file, err := j.fs.Open(name, false)
		if err != nil {
			return fmt.Errorf("open event log: %w", err)
		}
		s := &segment{name: name, file: file}
		j.segments = append(j.segments, s)
		if s.header, err = readHeader(file, name); err != nil {
			return err
		}
		if why := follows(s.header, before, name); why != "" {
			return &CorruptError{Segment: name, Seq: before.Last + 1, What: why}
		}
		if i == len(names)-1 {
			return j.recoverLast(s)
		}
		if before, err = j.openClosed(s); err != nil {
			return err
		}
	}
	return nil
}

func readHeader(file io.ReaderAt, name string) (header, error) {
	b := make([]byte, headerSize)
	n, err := file.ReadAt(b, 0)
	if n < headerSize && !isEOF(err) {
		return header{}, fmt.Errorf("open event log: read %s: %w", name, err)
	}
	h, err := decodeHeader(b[:n])
	if errdefs.IsDataLoss(err) {
		first, _ := segmentFirst(name)
		return h, &CorruptError{Segment: name, Seq: first, What: err.Error()}
	}
	return h, err
}

// follows says why a segment with header h does not follow the one that ended
// with f, or nothing.
func follows(h header, f footer, name string) string {
	first, _ := segmentFirst(name)
	switch {
	case first != f.Last+1:
		return fmt.Sprintf("the segment with sequence %d is missing, there is %d", f.Last+1, first)
	case h.First != first:
		return fmt.Sprintf("header says first sequence %d, the name %d", h.First, first)
	case h.Prev != f.LastHash:
		return "it does not follow the last record of the segment before"
	case h.PrevRoot != f.Root:
		return "it does not follow the root of the segment before"
	}
	return ""
}

// openClosed reads a closed segment's footer; its records are VerifyOlder's
// business. It cuts zeros that a crash has left.
func (j *Journal) openClosed(s *segment) (footer, error) {
	f, end, err := readFooter(s.file, s.name)
	if err != nil {
		return f, err
	}
	if f.First != s.header.First || f.PrevRoot != s.header.PrevRoot {
		return f, &CorruptError{Segment: s.name, Offset: end, Seq: s.header.First, What: "footer and header do not belong together"}
	}
	s.last, s.lastHash, s.end = f.Last, f.LastHash, end
	size, err := s.file.Size()
	if err == nil && size > end+footerSize {
		err = s.file.Truncate(end + footerSize)
	}
	if err != nil {
		return f, fmt.Errorf("open event log: cut %s: %w", s.name, err)
	}
	return f, nil
}

// readFooter finds the footer at the end of a closed segment, zeros behind it
// or not.
func readFooter(file File, name string) (footer, int64, error) {
	size, err := file.Size()
	if err != nil {
		return footer{}, 0, fmt.Errorf("open event log: %w", err)
	}
	b := make([]byte, footerSize)
	end := size - footerSize
	if end >= headerSize {
		if _, err := file.ReadAt(b, end); err != nil {
			return footer{}, 0, fmt.Errorf("open event log: read %s: %w", name, err)
		}
		if f, err := decodeFooter(b); err == nil {
			return f, end, nil
		}
	}
	return searchFooter(file, name, size)
}

// searchFooter walks through the segment, for the footer may be followed by zeros.
func searchFooter(file File, name string, size int64) (footer, int64, error) {
	scan := newScanner(file, headerSize, size)
	for {
		it, err := scan.next()
		switch {
		case err != nil:
			return footer{}, 0, fmt.Errorf("open event log: read %s: %w", name, err)
		case it.kind == foundRecord:
			continue
		case it.kind == foundEnd:
			return footer{}, 0, &CorruptError{Segment: name, Offset: it.off, What: "a segment follows, but this one has no footer"}
		case it.kind == foundDamage:
			return footer{}, 0, &CorruptError{Segment: name, Offset: it.off, What: it.what}
		}
		rest, err := lastByte(file, it.off+footerSize, size)
		if err != nil {
			return footer{}, 0, fmt.Errorf("open event log: read %s: %w", name, err)
		}
		if rest >= 0 {
			return footer{}, 0, &CorruptError{Segment: name, Offset: it.off + footerSize, What: "something follows the footer"}
		}
		return it.footer, it.off, nil
	}
}
