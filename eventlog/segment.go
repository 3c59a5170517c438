package eventlog

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

const (
	formatVersion = 1
	headerSize    = 96
	footerSize    = 136
	headerMagic   = "\xffGSEGM\x00\x01"
	footerMagic   = "\xffGFOOT\x00\x01"
)

// header begins a segment.
type header struct {
	First    uint64 // sequence of the first event
	Prev     Hash   // of the record before
	PrevRoot Hash   // of the segment before
}

func (h header) encode() []byte {
	b, le := make([]byte, headerSize), binary.LittleEndian
	copy(b, headerMagic)
	le.PutUint32(b[12:], formatVersion)
	le.PutUint64(b[16:], h.First)
	copy(b[24:], h.Prev[:])
	copy(b[56:], h.PrevRoot[:])
	le.PutUint32(b[8:], checksum(b))
	return b
}

func decodeHeader(b []byte) (header, error) {
	var h header
	le := binary.LittleEndian
	switch {
	case len(b) < headerSize:
		return h, damaged("segment header cut off after %d bytes", len(b))
	case string(b[:8]) != headerMagic:
		return h, damaged("no segment begins with %x", b[:8])
	case checksum(b[:headerSize]) != le.Uint32(b[8:]):
		return h, damaged("segment header with a wrong checksum")
	case le.Uint32(b[12:]) != formatVersion:
		return h, newerFormat(uint64(le.Uint32(b[12:])))
	}
	h.First = le.Uint64(b[16:])
	copy(h.Prev[:], b[24:])
	copy(h.PrevRoot[:], b[56:])
	return h, nil
}

// footer ends a closed segment.
type footer struct {
	Records     uint64 // how many
	First, Last uint64 // sequences
	Root        Hash   // Merkle root of the record hashes
	PrevRoot    Hash   // of the segment before
	LastHash    Hash   // of the last record
}

func (f footer) encode() []byte {
	b, le := make([]byte, footerSize), binary.LittleEndian
	copy(b, footerMagic)
	le.PutUint64(b[16:], f.Records)
	le.PutUint64(b[24:], f.First)
	le.PutUint64(b[32:], f.Last)
	copy(b[40:], f.Root[:])
	copy(b[72:], f.PrevRoot[:])
	copy(b[104:], f.LastHash[:])
	le.PutUint32(b[8:], checksum(b))
	return b
}

func decodeFooter(b []byte) (footer, error) {
	var f footer
	le := binary.LittleEndian
	switch {
	case len(b) < footerSize:
		return f, damaged("segment footer cut off after %d bytes", len(b))
	case string(b[:8]) != footerMagic:
		return f, damaged("no segment footer begins with %x", b[:8])
	case checksum(b[:footerSize]) != le.Uint32(b[8:]):
		return f, damaged("segment footer with a wrong checksum")
	}
	f.Records = le.Uint64(b[16:])
	f.First = le.Uint64(b[24:])
	f.Last = le.Uint64(b[32:])
	copy(f.Root[:], b[40:])
	copy(f.PrevRoot[:], b[72:])
	copy(f.LastHash[:], b[104:])
	return f, nil
}

const (
	segmentPrefix = "segment-"
	segmentSuffix = ".log"
	newSuffix     = ".new"
)

func segmentName(first uint64) string {
	return fmt.Sprintf("%s%020d%s", segmentPrefix, first, segmentSuffix)
}

// segmentFirst is the sequence in a segment's name.
func segmentFirst(name string) (uint64, bool) {
	middle, ok := strings.CutPrefix(name, segmentPrefix)
	if !ok {
		return 0, false
	}
	if middle, ok = strings.CutSuffix(middle, segmentSuffix); !ok {
		return 0, false
	}
	first, err := strconv.ParseUint(middle, 10, 64)
	return first, err == nil && first > 0 && segmentName(first) == name
}

// merkle computes the root over record hashes as they come, after RFC 6962.
// stack holds the roots of full subtrees, greatest first; their sizes are the
// powers of two in count.
type merkle struct {
	count uint64
	stack []Hash
}

func (m *merkle) add(record Hash) {
	var leaf [1 + sha256.Size]byte
	copy(leaf[1:], record[:])
	node := Hash(sha256.Sum256(leaf[:]))
	for n := m.count; n&1 == 1; n >>= 1 {
		top := len(m.stack) - 1
		node = merkleNode(m.stack[top], node)
		m.stack = m.stack[:top]
	}
	m.stack = append(m.stack, node)
	m.count++
}

// root is the tree's root; of an empty tree, as in the RFC, the hash of nothing.
func (m *merkle) root() Hash {
	if len(m.stack) == 0 {
		return sha256.Sum256(nil)
	}
	node := m.stack[len(m.stack)-1]
	for i := len(m.stack) - 2; i >= 0; i-- {
		node = merkleNode(m.stack[i], node)
	}
	return node
}

func merkleNode(left, right Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}
