package stdio

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// scanner reads the records of one file. At its end it may be asked again
// later: a file that is written grows.
type scanner struct {
	f   *os.File
	b   *bufio.Reader
	due int   // bytes of the last record, still in the buffer
	at  int64 // position behind the last whole record
}

// newScanner reads records from r, which is f or a part of it from its beginning on.
func newScanner(r io.Reader, f *os.File) *scanner {
	return &scanner{f: f, b: bufio.NewReaderSize(r, 2*(recordHeader+maxRecord))}
}

// next gives the next whole record, or io.EOF. Bytes that are no record are
// passed over up to the next one behind them, if there is any.
func (s *scanner) next() (Record, error) {
	s.b.Discard(s.due)
	s.at += int64(s.due)
	s.due = 0
	for {
		b, err := s.b.Peek(recordHeader)
		if err != nil {
			return Record{}, err
		}
		h, err := parseHeader(b)
		if err != nil {
			if err := s.resync(); err != nil {
				return Record{}, err
			}
			continue
		}
		b, err = s.b.Peek(recordHeader + h.length)
		if err != nil {
			return Record{}, err
		}
		s.due = len(b)
		return h.record(b[recordHeader:]), nil
	}
}

// resync moves to the next thing that looks like a record, or leaves the
// position where it is when there is none yet.
func (s *scanner) resync() error {
	var magic [4]byte
	binary.LittleEndian.PutUint32(magic[:], recordMagic)
	b, err := s.b.Peek(s.b.Size())
	if len(b) < recordHeader {
		return err
	}
	i := bytes.Index(b[1:], magic[:])
	switch {
	case i >= 0:
		i++
	case err == nil:
		i = len(b) - len(magic)
	case errors.Is(err, io.EOF):
		return io.EOF
	default:
		return err
	}
	s.b.Discard(i)
	s.at += int64(i)
	return nil
}
