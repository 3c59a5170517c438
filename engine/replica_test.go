package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/server"
	"github.com/gantryd/gantry/eventlog"
)

// stream is a replica as the repair sees it.
type stream struct {
	t   *testing.T
	bus *server.Server
}

func (s stream) Read(from uint64, f func(eventlog.Record) error) error {
	return s.bus.ReadStream(s.t.Context(), from, func(b bus.Frame) error { return f(RecordOf(b)) })
}

// copied is a log of records frames with its stream; the journal is closed, the
// bus is not.
func copied(t *testing.T, dir string, records int) *server.Server {
	t.Helper()
	journal, err := eventlog.Open(dir, eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := server.Start(server.Config{Node: "n1", Store: t.TempDir(), Run: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	seq := 0
	for i := range records {
		frame := eventlog.Frame{Time: time.Unix(int64(i), 5).UTC(), Schema: 1, Flags: uint16(i % 3)}
		for range 1 + i%3 {
			seq++
			frame.Count++
			frame.Payload = fmt.Appendf(frame.Payload, `{"seq":%d,"event":"container.created","noun":"container","id":"c%d"}`+"\n", seq, i)
		}
		if _, err := journal.Append([]eventlog.Frame{frame}); err != nil {
			t.Fatal(err)
		}
	}
	publisher, _, err := b.OpenStream(t.Context(), NewJournal(journal))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := publisher.WaitCopied(ctx, journal.Head().Seq); err != nil {
		t.Fatal(err)
	}
	publisher.Close()
	if err := journal.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRecordFromStream damages a record of the log and takes it back from the
// stream: the file is the same again, byte for byte.
func TestRecordFromStream(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	b := copied(t, dir, 50)
	segments, err := filepath.Glob(filepath.Join(dir, "segment-*"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments: %v %v", segments, err)
	}
	whole, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(whole, []byte(`"id":"c20"`))
	damaged := bytes.Clone(whole)
	clear(damaged[at-40 : at+40])
	if err := os.WriteFile(segments[0], damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := eventlog.Open(dir, eventlog.Options{}); err == nil {
		t.Fatal("a damaged log was opened for writing")
	}
	if _, err := eventlog.Repair(t.Context(), dir, stream{t, b}); err != nil {
		t.Fatal(err)
	}
	repaired, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.TrimRight(repaired, "\x00"), bytes.TrimRight(whole, "\x00")) {
		t.Fatal("the repaired log differs from the one before the damage")
	}
}
