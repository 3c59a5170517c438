package stdio

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
)

// Stream says where bytes of a log come from.
type Stream uint8

// The streams of a log.
const (
	Stdout Stream = 1
	Stderr Stream = 2
	Gap    Stream = 3 // bytes that are not there; Record.Lost tells how many
)

// Record is one piece of a log: what the shim read at once.
type Record struct {
	Stream Stream
	Time   time.Time
	Offset uint64 // running offset of the first byte
	Data   []byte // valid until the next call of the reader; nil for a Gap
	Lost   uint64 // bytes missing from Offset on, of a Gap
}

// End is the running offset behind the record.
func (r Record) End() uint64 {
	if r.Stream == Gap {
		return r.Offset + r.Lost
	}
	return r.Offset + uint64(len(r.Data))
}

const (
	recordMagic  = 0x31524c47 // "GLR1"
	recordHeader = 32
	maxRecord    = MaxFrame
)

var errNoRecord = errors.New("not a record")

// header is the fixed part of a record.
type header struct {
	length int
	time   int64
	offset uint64
	stream Stream
}

func parseHeader(b []byte) (header, error) {
	le := binary.LittleEndian
	if le.Uint32(b) != recordMagic || crc32.ChecksumIEEE(b[:28]) != le.Uint32(b[28:]) {
		return header{}, errNoRecord
	}
	h := header{
		length: int(le.Uint32(b[4:])),
		time:   int64(le.Uint64(b[8:])),
		offset: le.Uint64(b[16:]),
		stream: Stream(b[24]),
	}
	if h.length > maxRecord || (h.stream == Gap && h.length != 8) {
		return header{}, errNoRecord
	}
	return h, nil
}

func (h header) record(payload []byte) Record {
	r := Record{Stream: h.stream, Time: time.Unix(0, h.time), Offset: h.offset}
	if h.stream == Gap {
		r.Lost = binary.LittleEndian.Uint64(payload)
	} else {
		r.Data = payload
	}
	return r
}

// appendRecord encodes a record as the shim does; tests and only tests write
// logs from Go.
func appendRecord(b []byte, r Record) []byte {
	data := r.Data
	if r.Stream == Gap {
		data = binary.LittleEndian.AppendUint64(nil, r.Lost)
	}
	at := len(b)
	le := binary.LittleEndian
	b = le.AppendUint32(b, recordMagic)
	b = le.AppendUint32(b, uint32(len(data)))
	b = le.AppendUint64(b, uint64(r.Time.UnixNano()))
	b = le.AppendUint64(b, r.Offset)
	b = append(b, byte(r.Stream), 0, 0, 0)
	b = le.AppendUint32(b, crc32.ChecksumIEEE(b[at:]))
	return append(b, data...)
}
