package eventlog

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// itemKind says what a scanner found.
type itemKind int

const (
	foundEnd    itemKind = iota // nothing but zeros to the end
	foundRecord                 //
	foundFooter                 //
	foundDamage                 // item.what says why
)

// item is one thing in a segment.
type item struct {
	kind   itemKind
	off    int64 // where it begins
	record Record
	footer footer
	what   string
}

// scanner walks over a segment's bytes from off to end. A record's payload lies
// in its buffer and is valid until the next call.
type scanner struct {
	f        io.ReaderAt
	off, end int64
	buf      []byte // bytes from base on
	base     int64
	readSize int
}

const scanBuffer = 1 << 20

func newScanner(f io.ReaderAt, off, end int64) *scanner {
	return &scanner{f: f, off: off, end: end, base: off, readSize: int(min(scanBuffer, max(end-off, 1)))}
}

// move goes on at another offset.
func (s *scanner) move(off int64) { s.off, s.base, s.buf = off, off, s.buf[:0] }

// peek gives n bytes at off, fewer only at the end.
func (s *scanner) peek(n int) ([]byte, error) {
	n = int(min(int64(n), s.end-s.off))
	have := s.buf[min(s.off-s.base, int64(len(s.buf))):]
	if len(have) >= n {
		return have[:n], nil
	}
	size := max(n, s.readSize)
	if cap(s.buf) < size {
		grown := make([]byte, len(have), size)
		copy(grown, have)
		s.buf = grown
	} else {
		s.buf = append(s.buf[:0], have...)
	}
	s.base = s.off
	want := int(min(int64(cap(s.buf)), s.end-s.off))
	got, err := s.f.ReadAt(s.buf[len(have):want], s.off+int64(len(have)))
	s.buf = s.buf[:len(have)+got]
	if errors.Is(err, io.EOF) {
		s.end = s.off + int64(len(s.buf)) // cut behind our back: what is there counts
	} else if err != nil {
		return nil, err
	}
	return s.buf[:min(n, len(s.buf))], nil
}

// next reads what begins at off and passes it, if it is a record or a footer.
// The error is of the disk, not of the bytes.
func (s *scanner) next() (item, error) {
	it, n, err := s.at()
	s.off += int64(n)
	return it, err
}

// at reads what begins at off, and its length.
func (s *scanner) at() (item, int, error) {
	it := item{off: s.off}
	b, err := s.peek(8)
	switch {
	case err != nil:
		return it, 0, err
	case len(b) == 0 || b[0] == 0:
		return s.zeros(it)
	case string(b) == footerMagic:
		if b, err = s.peek(footerSize); err != nil {
			return it, 0, err
		}
		if it.footer, err = decodeFooter(b); err != nil {
			return it.damage(err), 0, nil
		}
		it.kind = foundFooter
		return it, footerSize, nil
	}
	n, err := recordLength(b)
	if err != nil {
		return it.damage(err), 0, nil
	}
	if b, err = s.peek(n); err != nil {
		return it, 0, err
	}
	it.record, n, err = DecodeRecord(b)
	if err != nil {
		return it.damage(err), 0, nil
	}
	it.kind = foundRecord
	return it, n, nil
}

func (it item) damage(err error) item {
	it.kind, it.what = foundDamage, err.Error()
	return it
}

// zeros is the clean end if nothing follows them.
func (s *scanner) zeros(it item) (item, int, error) {
	last, err := lastByte(s.f, s.off, s.end)
	if err != nil {
		return it, 0, err
	}
	if last < 0 {
		it.kind = foundEnd
		return it, 0, nil
	}
	it.kind, it.what = foundDamage, fmt.Sprintf("zeros, and behind them something else up to offset %d", last)
	return it, 0, nil
}

// resync looks behind damage at off for the next thing that is whole.
func (s *scanner) resync() (item, error) {
	for {
		s.off++
		b, err := s.peek(scanBuffer)
		if err != nil {
			return item{}, err
		}
		if len(b) == 0 {
			return item{kind: foundEnd, off: s.end}, nil
		}
		at := bytes.IndexByte(b, recordMagic[0])
		if at < 0 {
			s.off += int64(len(b)) - 1
			continue
		}
		s.off += int64(at)
		it, n, err := s.at()
		if err != nil {
			return it, err
		}
		if it.kind == foundRecord || it.kind == foundFooter {
			s.off += int64(n)
			return it, nil
		}
	}
}

// lastByte is the offset of the last byte in from..to that is not zero, or -1.
func lastByte(f io.ReaderAt, from, to int64) (int64, error) {
	last, buf := int64(-1), make([]byte, min(scanBuffer, max(to-from, 0)))
	for from < to {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), to-from)], from)
		if bytes.Count(buf[:n], []byte{0}) < n { // quick: an empty tail is 17 MiB of zeros
			last = from + int64(len(bytes.TrimRight(buf[:n], "\x00"))) - 1
		}
		from += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	return last, nil
}

// patient reads on where the disk cannot: what it refuses to read is filler
// that is no record, no footer and no clean end. It is for verification, which
// must reach the rest; Open and Read give the disk's error.
type patient struct{ io.ReaderAt }

// patientBlock is the piece in which it finds out what can be read, in bytes.
const patientBlock = 4096

// unreadableByte fills what could not be read.
const unreadableByte = 0xee

func (p patient) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.ReaderAt.ReadAt(b, off)
	if !badSector(err) {
		return n, err
	}
	for n = 0; n < len(b); {
		size := min(int(patientBlock-(off+int64(n))%patientBlock), len(b)-n)
		got, err := p.ReaderAt.ReadAt(b[n:n+size], off+int64(n))
		if badSector(err) {
			for i := range b[n : n+size] {
				b[n+i] = unreadableByte
			}
			got, err = size, nil
		}
		n += got
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// badSector says that the disk, or the filesystem's own checksum, refuses to
// give the data.
func badSector(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EBADMSG) || errors.Is(err, syscall.EUCLEAN)
}

func hashOf(b []byte) Hash { return sha256.Sum256(b) }
