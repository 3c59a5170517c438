package eventlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
)

// MaxRecord is the greatest length of an encoded record in bytes: all that ends with
// the machine is one decision, a kilobyte for each container that ran.
const MaxRecord = 64 << 20

// recordHead is the length of a record without its payload.
const recordHead = 76

// minRecord is a head and one line of one byte.
const minRecord = recordHead + 1

const recordMagic = "\xffGR1"

// Hash is a SHA-256.
type Hash [sha256.Size]byte

// String is the hash in hexadecimal digits.
func (h Hash) String() string { return fmt.Sprintf("%x", h[:]) }

// Record is one frame as it is stored: all events of one decision.
type Record struct {
	Batch   uint64    // first sequence of the write it came in
	First   uint64    // sequence of its first event
	Count   uint32    // events in it, at least 1
	Time    time.Time // UTC, to the nanosecond, years 1678 to 2261
	Schema  uint16    // schema of the events
	Flags   uint16    // the writer's; the log only keeps them
	Prev    Hash      // hash of the record before; zero for the first
	Payload []byte    // Count lines of JSON, each ended by \n

	// Hash is the SHA-256 of the encoded record. The log sets it; EncodeRecord
	// ignores it.
	Hash Hash
}

// Last is the sequence of the record's last event.
func (r Record) Last() uint64 { return r.First + uint64(r.Count) - 1 }

// Size is the length of the encoded record in bytes.
func (r Record) Size() int { return recordHead + len(r.Payload) }

// Lines calls f with each event of the record and its sequence. The line is
// without its newline and shares the payload's memory.
func (r Record) Lines(f func(seq uint64, line []byte) error) error {
	seq, rest := r.First, r.Payload
	for len(rest) > 0 {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			end = len(rest)
		}
		if err := f(seq, rest[:end]); err != nil {
			return err
		}
		seq, rest = seq+1, rest[min(end+1, len(rest)):]
	}
	return nil
}

// EncodeRecord appends the stored bytes of r to dst: the same parts give the same
// bytes, always. It refuses (invalid argument) what could not be decoded again.
func EncodeRecord(dst []byte, r Record) ([]byte, error) {
	if err := checkParts(r); err != nil {
		return dst, err
	}
	start, le := len(dst), binary.LittleEndian
	dst = append(dst, recordMagic...)
	dst = le.AppendUint32(dst, uint32(r.Size()))
	dst = le.AppendUint32(dst, 0)
	dst = le.AppendUint32(dst, r.Count)
	dst = le.AppendUint64(dst, r.Batch)
	dst = le.AppendUint64(dst, r.First)
	dst = le.AppendUint64(dst, uint64(r.Time.UnixNano()))
	dst = le.AppendUint16(dst, r.Schema)
	dst = le.AppendUint16(dst, r.Flags)
	dst = append(dst, r.Prev[:]...)
	dst = append(dst, r.Payload...)
	le.PutUint32(dst[start+8:], checksum(dst[start:]))
	return dst, nil
}

// checksum is the CRC-32C of b without the four bytes at offset 8, where records,
// headers and footers keep it.
func checksum(b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // the one shared table: the processor's instruction
	return crc32.Update(crc32.Update(0, table, b[:8]), table, b[12:])
}

func checkParts(r Record) error {
	switch {
	case r.Size() > MaxRecord:
		return invalid("record of %d bytes: the limit is %d", r.Size(), MaxRecord)
	case r.First == 0 || r.Batch == 0 || r.Batch > r.First:
		return invalid("record %d of batch %d: sequences begin at 1 and a batch at its first", r.First, r.Batch)
	case r.First > math.MaxUint64-uint64(r.Count):
		return invalid("record %d with %d events: beyond the last sequence", r.First, r.Count)
	case r.Time.UTC().Year() < 1678 || r.Time.UTC().Year() > 2261:
		return invalid("record time %s: outside of the years 1678 to 2261", r.Time.UTC())
	}
	return checkPayload(r.Payload, r.Count)
}

func checkPayload(payload []byte, count uint32) error {
	lines := bytes.Count(payload, []byte{'\n'})
	switch {
	case count == 0 || uint64(lines) != uint64(count):
		return invalid("payload of %d lines for %d events", lines, count)
	case payload[0] == '\n' || bytes.Contains(payload, []byte("\n\n")):
		return invalid("payload with an empty line")
	case payload[len(payload)-1] != '\n':
		return invalid("payload whose last line does not end")
	case !utf8.Valid(payload):
		return invalid("payload that is not UTF-8")
	}
	return nil
}

// DecodeRecord reads the record at the start of b and how many bytes it takes.
// The payload shares b's memory; Hash is set. An error says what is wrong with
// the bytes: it is of the class data loss.
func DecodeRecord(b []byte) (Record, int, error) {
	n, err := recordLength(b)
	if err != nil {
		return Record{}, 0, err
	}
	if n > len(b) {
		return Record{}, 0, damaged("record of %d bytes cut off after %d", n, len(b))
	}
	b = b[:n]
	le := binary.LittleEndian
	if got, want := checksum(b), le.Uint32(b[8:]); got != want {
		return Record{}, 0, damaged("checksum is %08x, recorded %08x", got, want)
	}
	r := Record{
		Count:   le.Uint32(b[12:]),
		Batch:   le.Uint64(b[16:]),
		First:   le.Uint64(b[24:]),
		Time:    time.Unix(0, int64(le.Uint64(b[32:]))).UTC(),
		Schema:  le.Uint16(b[40:]),
		Flags:   le.Uint16(b[42:]),
		Payload: b[recordHead:n:n],
		Hash:    sha256.Sum256(b),
	}
	copy(r.Prev[:], b[44:])
	if r.Count == 0 || r.First == 0 || r.Batch == 0 || r.Batch > r.First ||
		r.First > math.MaxUint64-uint64(r.Count) || b[n-1] != '\n' ||
		uint64(bytes.Count(r.Payload, []byte{'\n'})) != uint64(r.Count) {
		return Record{}, 0, damaged("record %d of batch %d with %d events cannot be", r.First, r.Batch, r.Count)
	}
	return r, n, nil
}

// recordLength is the length of the record that begins at b, which may hold
// only its first 8 bytes.
func recordLength(b []byte) (int, error) {
	if len(b) < 8 {
		return 0, damaged("%d bytes where a record should begin", len(b))
	}
	if string(b[:4]) != recordMagic {
		return 0, damaged("no record begins with %x", b[:4])
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n < minRecord || n > MaxRecord {
		return 0, damaged("record of %d bytes cannot be", n)
	}
	return int(n), nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

func damaged(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrDataLoss)...)
}
