// Package logtest is the contract of eventlog.Log as tests. Every
// implementation runs it.
package logtest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/eventlog"
)

// Opened is a log under test.
type Opened struct {
	Log eventlog.Log
	// Reopen ends Log as a process ends and gives what the next one opens. A log
	// that lives as long as its process gives itself.
	Reopen func(t *testing.T) eventlog.Log
}

// Frame makes a frame of count events; n makes its content different from others'.
func Frame(n, count int) eventlog.Frame {
	var payload strings.Builder
	for i := range count {
		fmt.Fprintf(&payload, `{"event":"test.happened","n":%d,"i":%d,"text":"ä %s"}`+"\n", n, i, strings.Repeat("x", n%40))
	}
	return eventlog.Frame{Count: uint32(count), Time: time.Unix(1_700_000_000+int64(n), 123456789),
		Schema: 7, Flags: uint16(n), Payload: []byte(payload.String())}
}

// Records reads all records from a sequence on, with payloads of their own.
func Records(t testing.TB, log eventlog.Log, from uint64) []eventlog.Record {
	t.Helper()
	var all []eventlog.Record
	err := log.Read(from, func(r eventlog.Record) error {
		r.Payload = bytes.Clone(r.Payload)
		all = append(all, r)
		return nil
	})
	if err != nil {
		t.Fatalf("read from %d: %v", from, err)
	}
	return all
}

// Same fails unless both lists are the same records with the same bytes.
func Same(t testing.TB, got, want []eventlog.Record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range got {
		a, errA := eventlog.EncodeRecord(nil, got[i])
		b, errB := eventlog.EncodeRecord(nil, want[i])
		if errA != nil || errB != nil || !bytes.Equal(a, b) || got[i].Hash != want[i].Hash {
			t.Fatalf("record %d is %+v, want %+v (%v, %v)", i, got[i], want[i], errA, errB)
		}
	}
}

// Append appends one batch and fails the test if it is refused.
func Append(t testing.TB, log eventlog.Log, frames ...eventlog.Frame) []eventlog.Record {
	t.Helper()
	records, err := log.Append(frames)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return records
}

// Run checks the whole contract; open gives a new, empty log each time.
func Run(t *testing.T, open func(t *testing.T) Opened) {
	tests := []struct {
		name string
		test func(*testing.T, Opened)
	}{
		{"empty", empty}, {"append", appends}, {"read from anywhere", readFrom}, {"read stops", readStops},
		{"refusals", refusals}, {"restore", restore}, {"restore refuses", restoreRefuses},
		{"snapshots", snapshots}, {"snapshot refusals", snapshotRefusals}, {"reopen", reopen},
		{"read beside append", readBeside}, {"closed", closed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.test(t, open(t)) })
	}
}

func wantClass(t *testing.T, what string, err error, is func(error) bool) {
	t.Helper()
	if err == nil || !is(err) {
		t.Fatalf("%s: got error %v of another class", what, err)
	}
}

func empty(t *testing.T, o Opened) {
	if head := o.Log.Head(); head != (eventlog.Head{}) {
		t.Fatalf("head of an empty log is %+v", head)
	}
	Same(t, Records(t, o.Log, 0), nil)
	_, err := o.Log.LoadSnapshot(1)
	wantClass(t, "snapshot of an empty log", err, errdefs.IsNotFound)
	if records, err := o.Log.Append(nil); err != nil || len(records) != 0 {
		t.Fatalf("append of nothing: %v, %v", records, err)
	}
}

func appends(t *testing.T, o Opened) {
	first := Append(t, o.Log, Frame(1, 1), Frame(2, 3))
	second := Append(t, o.Log, Frame(3, 2))
	all := append(first, second...)
	var prev eventlog.Hash
	next := uint64(1)
	for i, want := range []struct{ batch, first uint64 }{{1, 1}, {1, 2}, {5, 5}} {
		r := all[i]
		if r.Batch != want.batch || r.First != want.first || r.First != next || r.Prev != prev {
			t.Fatalf("record %d is %+v, want %+v after %s", i, r, want, prev)
		}
		if !r.Time.Equal(Frame(i+1, 1).Time) || r.Schema != 7 || r.Flags != uint16(i+1) {
			t.Fatalf("record %d lost its parts: %+v", i, r)
		}
		b, err := eventlog.EncodeRecord(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		decoded, n, err := eventlog.DecodeRecord(b)
		if err != nil || n != len(b) || decoded.Hash != r.Hash {
			t.Fatalf("record %d: decoded %+v of %d bytes: %v", i, decoded, n, err)
		}
		prev, next = r.Hash, r.Last()+1
	}
	if head := o.Log.Head(); head != (eventlog.Head{Seq: 6, Hash: prev}) {
		t.Fatalf("head is %+v", head)
	}
	Same(t, Records(t, o.Log, 0), all)
}

func readFrom(t *testing.T, o Opened) {
	var all []eventlog.Record
	for n := range 200 {
		all = append(all, Append(t, o.Log, Frame(n, 1+n%3))...)
	}
	for from := uint64(1); from <= o.Log.Head().Seq+2; from += 3 {
		want := all
		for len(want) > 0 && want[0].Last() < from {
			want = want[1:]
		}
		Same(t, Records(t, o.Log, from), want)
	}
}

func readStops(t *testing.T, o Opened) {
	Append(t, o.Log, Frame(1, 1), Frame(2, 1))
	stop, calls := errors.New("stop"), 0
	err := o.Log.Read(1, func(eventlog.Record) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Fatalf("%d calls, error %v", calls, err)
	}
}

func refusals(t *testing.T, o Opened) {
	Append(t, o.Log, Frame(1, 1))
	head := o.Log.Head()
	change := func(f func(*eventlog.Frame)) eventlog.Frame {
		frame := Frame(2, 2)
		f(&frame)
		return frame
	}
	bad := map[string]eventlog.Frame{
		"no events":     change(func(f *eventlog.Frame) { f.Count, f.Payload = 0, nil }),
		"one line less": change(func(f *eventlog.Frame) { f.Count = 3 }),
		"no last end":   change(func(f *eventlog.Frame) { f.Payload = append([]byte("\n"), f.Payload[:len(f.Payload)-1]...) }),
		"empty line":    change(func(f *eventlog.Frame) { f.Payload = []byte("{}\n\n") }),
		"not UTF-8":     change(func(f *eventlog.Frame) { f.Payload = []byte("{}\n\"\xff\"\n") }),
		"too long": change(func(f *eventlog.Frame) {
			f.Count, f.Payload = 1, append(bytes.Repeat([]byte("x"), eventlog.MaxRecord), '\n')
		}),
		"year 3000": change(func(f *eventlog.Frame) { f.Time = time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC) }),
	}
	for name, frame := range bad {
		_, err := o.Log.Append([]eventlog.Frame{Frame(9, 1), frame})
		wantClass(t, name, err, errdefs.IsInvalidArgument)
	}
	_, err := o.Log.Append([]eventlog.Frame{change(func(f *eventlog.Frame) { f.First = 3 })})
	wantClass(t, "wrong first", err, errdefs.IsFailedPrecondition)
	if o.Log.Head() != head {
		t.Fatalf("a refused append moved the head to %+v", o.Log.Head())
	}
	good := change(func(f *eventlog.Frame) { f.First = 2 })
	Append(t, o.Log, good)
}

// replica gives the records of a log that began as o.Log did and is ahead.
func replica(t *testing.T, common int) []eventlog.Record {
	t.Helper()
	other := eventlog.NewMem()
	for n := range common + 3 {
		Append(t, other, Frame(n, 2), Frame(n+50, 1))
	}
	return Records(t, other, 0)
}

func restore(t *testing.T, o Opened) {
	records := replica(t, 2)
	for n := range 2 {
		Append(t, o.Log, Frame(n, 2), Frame(n+50, 1))
	}
	if err := o.Log.Restore(records[4:]); err != nil {
		t.Fatalf("restore: %v", err)
	}
	Append(t, o.Log, Frame(99, 1))
	log := o.Reopen(t)
	got := Records(t, log, 0)
	Same(t, got[:len(records)], records)
}

func restoreRefuses(t *testing.T, o Opened) {
	records := replica(t, 1)
	Append(t, o.Log, Frame(0, 2), Frame(50, 1))
	wantClass(t, "gap", o.Log.Restore(records[3:]), errdefs.IsFailedPrecondition)
	wantClass(t, "repeat", o.Log.Restore(records[1:]), errdefs.IsFailedPrecondition)
	Append(t, o.Log, Frame(77, 2))
	head := o.Log.Head()
	wantClass(t, "another history", o.Log.Restore(records[3:]), errdefs.IsFailedPrecondition)
	if o.Log.Head() != head {
		t.Fatal("a refused restore moved the head")
	}
}

func snapshots(t *testing.T, o Opened) {
	for n := range 4 {
		r := Append(t, o.Log, Frame(n, 2))[0]
		s := eventlog.Snapshot{Schema: 3, Seq: r.Last(), Chain: r.Hash, State: []byte(fmt.Sprintf("state %d", n))}
		if err := o.Log.SaveSnapshot(s); err != nil {
			t.Fatalf("save %d: %v", n, err)
		}
	}
	Append(t, o.Log, Frame(5, 1))
	log := o.Reopen(t)
	s, err := log.LoadSnapshot(3)
	if err != nil || s.Seq != 8 || string(s.State) != "state 3" {
		t.Fatalf("loaded %+v: %v", s, err)
	}
	rest := Records(t, log, s.Seq+1)
	if len(rest) != 1 || rest[0].Prev != s.Chain {
		t.Fatalf("the rest does not follow the snapshot: %+v", rest)
	}
	_, err = log.LoadSnapshot(4)
	wantClass(t, "another schema", err, errdefs.IsNotFound)
}

func snapshotRefusals(t *testing.T, o Opened) {
	r := Append(t, o.Log, Frame(1, 2), Frame(2, 1))
	for name, s := range map[string]eventlog.Snapshot{
		"inside a record": {Seq: 1, Chain: r[0].Hash},
		"ahead":           {Seq: 4, Chain: r[1].Hash},
		"wrong chain":     {Seq: 2, Chain: r[1].Hash},
		"wrong at head":   {Seq: 3, Chain: r[0].Hash},
		"wrong at zero":   {Seq: 0, Chain: r[0].Hash},
	} {
		wantClass(t, name, o.Log.SaveSnapshot(s), errdefs.IsFailedPrecondition)
	}
	if err := o.Log.SaveSnapshot(eventlog.Snapshot{Seq: 2, Chain: r[0].Hash}); err != nil {
		t.Fatal(err)
	}
}

func reopen(t *testing.T, o Opened) {
	var all []eventlog.Record
	for n := range 30 {
		all = append(all, Append(t, o.Log, Frame(n, 1), Frame(n, 2))...)
	}
	head := o.Log.Head()
	log := o.Reopen(t)
	if log.Head() != head {
		t.Fatalf("head is %+v, was %+v", log.Head(), head)
	}
	all = append(all, Append(t, log, Frame(31, 1))...)
	Same(t, Records(t, log, 0), all)
}

func readBeside(t *testing.T, o Opened) {
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			var seen uint64
			for {
				select {
				case <-done:
					return
				default:
				}
				err := o.Log.Read(seen+1, func(r eventlog.Record) error {
					if r.First != seen+1 {
						return fmt.Errorf("record %d after %d", r.First, seen)
					}
					seen = r.Last()
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range 300 {
		Append(t, o.Log, Frame(n, 1+n%2))
	}
	close(done)
	readers.Wait()
}

func closed(t *testing.T, o Opened) {
	Append(t, o.Log, Frame(1, 1))
	for range 2 {
		if err := o.Log.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	_, err := o.Log.Append([]eventlog.Frame{Frame(2, 1)})
	wantClass(t, "append", err, errdefs.IsUnavailable)
	wantClass(t, "read", o.Log.Read(1, func(eventlog.Record) error { return nil }), errdefs.IsUnavailable)
	_, err = o.Log.LoadSnapshot(1)
	wantClass(t, "load", err, errdefs.IsUnavailable)
}
