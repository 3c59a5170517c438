package stdio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"syscall"
)

// scanner reads the records of one file. At its end it may be asked again
// later: a file that is written grows.
type scanner struct {
	f     *os.File
	limit int64  // bytes of the file to read
	at    int64  // position behind the last whole record
	due   int    // bytes of the last record, still in the buffer
	buf   []byte // what one read gave
	got   []byte // the part of buf that begins at at
}

// wholeFile is the limit of who reads all there is.
const wholeFile = math.MaxInt64

// newScanner reads the records of f from its beginning on, wherever f itself stands.
func newScanner(f *os.File, limit int64) *scanner {
	return &scanner{f: f, limit: limit, buf: make([]byte, 2*(recordHeader+maxRecord))}
}

// next gives the next whole record, or io.EOF. Bytes that are no record are
// passed over up to the next one behind them, if there is any.
func (s *scanner) next() (Record, error) {
	s.skip(s.due)
	s.due = 0
	for read, moved := false, false; ; { // in this call; since the last read
		h, size, err := s.parse()
		switch {
		case err == nil:
			s.due = size
			return h.record(s.got[recordHeader:size]), nil
		case read && errors.Is(err, errNoRecord) && s.resync():
			moved = true
		case !read || moved:
			if err := s.fill(); err != nil {
				return Record{}, err
			}
			read, moved = true, false
		default:
			return Record{}, io.EOF
		}
	}
}

// parse looks at what is in the buffer. io.EOF: that is no whole record.
func (s *scanner) parse() (header, int, error) {
	if len(s.got) < recordHeader {
		return header{}, 0, io.EOF
	}
	h, err := parseHeader(s.got[:recordHeader])
	if err == nil && len(s.got) < recordHeader+h.length {
		err = io.EOF
	}
	return h, recordHeader + h.length, err
}

// fill reads on from at. Nothing is kept of what was read there before, and one call
// of the kernel gives all: a record of which only a part could be written is cut off
// again, and another stands in its place the next time.
func (s *scanner) fill() error {
	room := min(int64(len(s.buf)), max(0, s.limit-s.at))
	for {
		n, err := syscall.Pread(int(s.f.Fd()), s.buf[:room], s.at)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read log %s: %w", s.f.Name(), err)
		}
		s.got = s.buf[:n]
		return nil
	}
}

func (s *scanner) skip(n int) {
	s.got = s.got[n:]
	s.at += int64(n)
}

// resync moves to the next thing in the buffer that looks like a record, or behind
// a full one. It leaves the position where it is when there is none yet.
func (s *scanner) resync() bool {
	var magic [4]byte
	binary.LittleEndian.PutUint32(magic[:], recordMagic)
	switch i := bytes.Index(s.got[1:], magic[:]); {
	case i >= 0:
		s.skip(i + 1)
	case len(s.got) == len(s.buf):
		s.skip(len(s.got) - len(magic))
	default:
		return false
	}
	return true
}
