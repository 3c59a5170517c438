package eventlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"
)

// TestRecordBytes pins the format: these bytes must be read for ever.
func TestRecordBytes(t *testing.T) {
	r := Record{Batch: 5, First: 7, Count: 2, Time: time.Unix(1, 2).UTC(), Schema: 3, Flags: 4,
		Prev: Hash{0: 0xaa, 31: 0xbb}, Payload: []byte("{}\n[]\n")}
	b, err := EncodeRecord(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	const want = "ff475231" + "52000000" + "5f3f62e5" + "02000000" + "0500000000000000" + "0700000000000000" +
		"02ca9a3b00000000" + "0300" + "0400" + "aa000000000000000000000000000000000000000000000000000000000000bb" +
		"7b7d0a5b5d0a"
	if got := hex.EncodeToString(b); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	back, n, err := DecodeRecord(append(b, "more"...))
	if err != nil || n != len(b) || back.Hash != sha256.Sum256(b) || back.Last() != 8 {
		t.Fatalf("decoded %+v of %d bytes: %v", back, n, err)
	}
	var lines []string
	var seqs []uint64
	err = back.Lines(func(seq uint64, line []byte) error {
		lines, seqs = append(lines, string(line)), append(seqs, seq)
		return nil
	})
	if err != nil || len(lines) != 2 || lines[0] != "{}" || lines[1] != "[]" || seqs[1] != 8 {
		t.Fatalf("lines %q %v: %v", lines, seqs, err)
	}
}

// TestRebuiltFromMessages takes a record apart as the replica does, one message
// for each event with the frame's parts in headers, and gets the identical
// bytes back.
func TestRebuiltFromMessages(t *testing.T) {
	log := NewMem()
	records, err := log.Append([]Frame{frameOf(1, 10, false), {Count: 3, Time: time.Unix(9, 9), Schema: 2, Flags: 1, Payload: []byte("{\"a\":1}\n{\"b\":\"ä\"}\n{}\n")}})
	if err != nil {
		t.Fatal(err)
	}
	r := records[1]
	stored, err := EncodeRecord(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	var messages [][]byte
	if err := r.Lines(func(_ uint64, line []byte) error { messages = append(messages, bytes.Clone(line)); return nil }); err != nil {
		t.Fatal(err)
	}
	rebuilt, err := EncodeRecord(nil, Record{Batch: r.Batch, First: r.First, Count: uint32(len(messages)),
		Time: time.Unix(0, r.Time.UnixNano()), Schema: r.Schema, Flags: r.Flags, Prev: r.Prev,
		Payload: append(bytes.Join(messages, []byte("\n")), '\n')})
	if err != nil || !bytes.Equal(rebuilt, stored) || len(messages) != 3 {
		t.Fatalf("%d messages give %x, stored is %x: %v", len(messages), rebuilt, stored, err)
	}
}

// TestMerkle compares with the recursive definition of RFC 6962.
func TestMerkle(t *testing.T) {
	var define func(leaves []Hash) Hash
	define = func(leaves []Hash) Hash {
		switch len(leaves) {
		case 0:
			return sha256.Sum256(nil)
		case 1:
			return sha256.Sum256(append([]byte{0}, leaves[0][:]...))
		}
		k := 1
		for k*2 < len(leaves) {
			k *= 2
		}
		left, right := define(leaves[:k]), define(leaves[k:])
		return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
	}
	var tree merkle
	var leaves []Hash
	for n := range 70 {
		if tree.root() != define(leaves) {
			t.Fatalf("root of %d leaves differs", n)
		}
		leaf := Hash{0: byte(n)}
		leaves = append(leaves, leaf)
		tree.add(leaf)
	}
}

// FuzzDecodeRecord wants no panic, and that what decodes is what encodes.
func FuzzDecodeRecord(f *testing.F) {
	good, err := EncodeRecord(nil, Record{Batch: 1, First: 1, Count: 1, Time: time.Unix(0, 0), Payload: []byte("{}\n")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:40])
	f.Add([]byte(recordMagic + "\xff\xff\xff\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, fixed := range [][]byte{b, withChecksum(b)} {
			r, n, err := DecodeRecord(fixed)
			if err != nil {
				continue
			}
			again, err := EncodeRecord(nil, r)
			if err != nil {
				continue // a payload that no writer of ours makes
			}
			if !bytes.Equal(again, fixed[:n]) {
				t.Fatalf("decoded %x, encodes to %x", fixed[:n], again)
			}
		}
	})
}

// withChecksum makes the fuzzer get past the checksum.
func withChecksum(b []byte) []byte {
	if len(b) < minRecord {
		return b
	}
	b = bytes.Clone(b)
	copy(b, recordMagic)
	b[4], b[5], b[6], b[7] = byte(len(b)), byte(len(b)>>8), byte(len(b)>>16), byte(len(b)>>24)
	sum := checksum(b)
	b[8], b[9], b[10], b[11] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	return b
}

// FuzzScan gives any bytes as a segment: the scanner ends, and goes forward only.
func FuzzScan(f *testing.F) {
	good, err := EncodeRecord(header{First: 1}.encode(), Record{Batch: 1, First: 1, Count: 1, Time: time.Unix(0, 0), Payload: []byte("{}\n")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(good, footer{Records: 1, First: 1, Last: 1}.encode()...))
	f.Fuzz(func(t *testing.T, b []byte) {
		scan := newScanner(bytes.NewReader(b), 0, int64(len(b)))
		for last := int64(-1); ; {
			it, err := scan.next()
			if err == nil && it.kind == foundDamage {
				it, err = scan.resync()
			}
			if err != nil {
				t.Fatal(err)
			}
			if it.kind == foundEnd {
				return
			}
			if it.off <= last {
				t.Fatalf("found offset %d after %d", it.off, last)
			}
			last = it.off
		}
	})
}
