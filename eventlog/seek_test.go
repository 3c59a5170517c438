package eventlog_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/eventlog"
)

// longLog makes a log of frames of one to three events and up to 20 kB in one closed
// segment of about 4 MB and an open one, and gives its directory and the first
// sequences of its frames.
func longLog(t *testing.T) (dir string, firsts []uint64) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "log")
	log := openDir(t, dir, eventlog.Options{SegmentSize: 4 << 20})
	next := uint64(1)
	var frames []eventlog.Frame
	for i := range 700 {
		f := eventlog.Frame{First: next, Count: uint32(1 + i%3), Time: time.Unix(1_700_000_000, 0), Schema: 1}
		for range f.Count {
			f.Payload = append(f.Payload, fmt.Sprintf("{\"text\":%q}\n", strings.Repeat("x", i*7919%9000))...)
		}
		firsts, next = append(firsts, next), next+uint64(f.Count)
		if frames = append(frames, f); len(frames) == 10 {
			if _, err := log.Append(frames); err != nil {
				t.Fatal(err)
			}
			frames = nil
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, firsts
}

// readFrom gives the first sequences of the records from one on.
func readFrom(log *eventlog.Journal, from uint64) ([]uint64, error) {
	var got []uint64
	err := log.Read(from, func(r eventlog.Record) error { got = append(got, r.First); return nil })
	return got, err
}

// TestReadBehindTheEnd reads from every place of a segment that was closed before the
// log was opened: it is searched, not read from its begin.
func TestReadBehindTheEnd(t *testing.T) {
	dir, firsts := longLog(t)
	log := openDir(t, dir, eventlog.Options{SegmentSize: 4 << 20})
	at := 0
	for from := uint64(1); from <= log.Head().Seq; from += 11 {
		for at+1 < len(firsts) && firsts[at+1] <= from {
			at++
		}
		got, err := readFrom(log, from)
		if err != nil || len(got) != len(firsts)-at || got[0] != firsts[at] || got[len(got)-1] != firsts[len(firsts)-1] {
			t.Fatalf("from %d: %d records from %v (%v), want %d from %d", from, len(got), got[:min(3, len(got))], err, len(firsts)-at, firsts[at])
		}
	}
}

// TestReadPastDamage flips a byte early in a closed segment: what is read behind it
// does not see it, what begins before it does, and so does verification.
func TestReadPastDamage(t *testing.T) {
	dir, firsts := longLog(t)
	names, err := filepath.Glob(filepath.Join(dir, "segment-*"))
	if err != nil || len(names) != 2 {
		t.Fatalf("segments: %q (%v), want two", names, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b[500_000:], []byte("xxx"))+500_000] = 'y'
	if err := os.WriteFile(names[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	log := openDir(t, dir, eventlog.Options{SegmentSize: 4 << 20})
	if got, err := readFrom(log, firsts[600]); err != nil || len(got) != 100 {
		t.Errorf("behind the damage: %d records, %v", len(got), err)
	}
	if _, err := readFrom(log, 1); !errdefs.IsDataLoss(err) {
		t.Errorf("across the damage: %v", err)
	}
	findings := 0
	if _, err := log.VerifyOlder(t.Context(), func(eventlog.Finding) { findings++ }); err != nil || findings == 0 {
		t.Errorf("verified: %d findings, %v", findings, err)
	}
}
