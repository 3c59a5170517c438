package eventlog_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/eventlog/faultfs"
	"github.com/gantryd/gantry/eventlog/logtest"
)

// errCut is what operations get after the power has gone.
var errCut = errors.New("power is gone")

// story is one seed: a writer, its disk, and what it was told.
type story struct {
	t      *testing.T
	seed   uint64
	choose func(int) int
	files  *faultfs.FS
	log    *eventlog.Journal
	acked  []eventlog.Record
	trying []eventlog.Frame // the batch that was neither acknowledged nor refused
	count  int
	seen   map[string]int // what happened, so that a test that does nothing fails
}

func (s *story) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("seed %d: %s", s.seed, fmt.Sprintf(format, args...))
}

// TestCrashes runs seeds of appends, snapshots, full disks, failing fsyncs,
// kills and losses of power between any two operations on the disk. Whatever
// was acknowledged must be there afterwards, in order; what was refused must
// not; of the batch in between any number of whole frames.
func TestCrashes(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(400) {
		s := &story{t: t, seed: seed, choose: seeded(seed), seen: seen}
		s.files = faultfs.New(s.choose)
		for range 12 {
			s.live()
		}
	}
	t.Logf("%v", seen)
	for _, what := range []string{"append", "crash", "kill", "died while opening", "refused: no space", "fatal",
		"torn tail", "reopened footer", "unacknowledged kept", "unacknowledged lost", "snapshot used", "several segments", "opened on a full disk"} {
		if seen[what] == 0 {
			t.Errorf("%q never happened", what)
		}
	}
}

// live is one process: open, check, work, end.
func (s *story) live() {
	if s.choose(5) == 0 {
		s.sound()
	}
	left := 1 + s.choose(120)
	fsync := s.choose(6) == 0
	s.files.SetFault(func(op faultfs.Op) faultfs.Fault {
		left--
		switch {
		case left <= 0 && op.Kind == faultfs.Write && op.Len > 0:
			return faultfs.Fault{Err: errCut, Short: s.choose(int(op.Len) + 1)}
		case left <= 0:
			return faultfs.Fault{Err: errCut}
		case fsync && left < 10 && op.Kind == faultfs.Datasync:
			return faultfs.Fault{Err: syscall.EIO}
		}
		return faultfs.Fault{}
	})
	full := s.choose(4) == 0
	if full {
		s.files.SetCapacity(max(1, s.files.Used()-int64(s.choose(2000))))
	}
	log, err := eventlog.OpenFS(s.files, small())
	s.log = log
	if err == nil && full && len(s.acked) > 0 {
		s.seen["opened on a full disk"]++
	}
	if err == nil {
		if s.check() {
			s.work()
		}
	} else {
		if !errors.Is(err, errCut) && !errors.Is(err, syscall.EIO) && (len(s.acked) > 0 || !errdefs.IsResourceExhausted(err)) {
			s.fatalf("open: %v", err)
		}
		s.seen["died while opening"]++
	}
	s.files.SetFault(nil)
	s.files.SetCapacity(0)
	if s.choose(2) == 0 {
		s.seen["kill"]++
		s.files = s.files.Kill()
	} else {
		s.seen["crash"]++
		s.files = s.files.Crash()
	}
}

// sound opens a copy of what is left and wants that verify finds nothing
// afterwards.
func (s *story) sound() {
	files := s.files.Clone()
	files.SetCapacity(0)
	log, err := eventlog.OpenFS(files, small())
	if err != nil {
		s.fatalf("open: %v", err)
	}
	if err := log.Close(); err != nil {
		s.fatalf("close: %v", err)
	}
	if found := verify(s.t, files); len(found) > 0 {
		s.fatalf("after recovery: %v", found)
	}
}

// check compares what Open found with what was acknowledged. It says false if
// the power went meanwhile.
func (s *story) check() bool {
	var got []eventlog.Record
	err := s.log.Read(1, func(r eventlog.Record) error {
		r.Payload = append([]byte(nil), r.Payload...)
		got = append(got, r)
		return nil
	})
	if errors.Is(err, errCut) {
		s.seen["died while opening"]++
		return false
	}
	if err != nil || len(got) < len(s.acked) {
		s.fatalf("%d of %d acknowledged records: %v", len(got), len(s.acked), err)
	}
	logtest.Same(s.t, got[:len(s.acked)], s.acked)
	more := got[len(s.acked):]
	if len(more) > len(s.trying) {
		s.fatalf("%d records too many", len(more)-len(s.trying))
	}
	for i, r := range more {
		if string(r.Payload) != string(s.trying[i].Payload) {
			s.fatalf("record %d was refused: %s", r.First, r.Payload)
		}
	}
	if len(s.trying) > 0 {
		s.seen[map[bool]string{true: "unacknowledged kept", false: "unacknowledged lost"}[len(more) > 0]]++
	}
	s.note()
	// What Open showed may have been acted on: from now on it counts.
	s.acked, s.trying = got, nil
	if snapshot, err := s.log.LoadSnapshot(1); err == nil {
		s.seen["snapshot used"]++
		if string(snapshot.State) != fmt.Sprint("state ", snapshot.Seq) {
			s.fatalf("snapshot at %d is %q", snapshot.Seq, snapshot.State)
		}
	} else if !errdefs.IsNotFound(err) && !errors.Is(err, errCut) {
		s.fatalf("load snapshot: %v", err)
	}
	return true
}

func (s *story) note() {
	recovery := s.log.Recovery()
	if recovery.CutBytes > 0 {
		s.seen["torn tail"]++
	}
	if recovery.Reopened {
		s.seen["reopened footer"]++
	}
	names, _ := s.files.List()
	if len(names) > 4 {
		s.seen["several segments"]++
	}
}

// work appends until the process dies.
func (s *story) work() {
	for range 40 {
		var batch []eventlog.Frame
		for range 1 + s.choose(4) {
			s.count++
			frame := logtest.Frame(s.count, 1+s.choose(3))
			frame.Essential = s.choose(3) == 0
			batch = append(batch, frame)
		}
		if s.choose(10) == 0 {
			s.files.SetCapacity(s.files.Used() + int64(s.choose(3000)))
		} else if s.choose(4) == 0 {
			s.files.SetCapacity(0)
		}
		s.trying = batch
		records, err := s.log.Append(batch)
		switch {
		case err == nil:
			s.seen["append"]++
			s.acked, s.trying = append(s.acked, records...), nil
		case errdefs.IsResourceExhausted(err):
			s.seen["refused: no space"]++
			s.trying = nil
		case eventlog.IsFatal(err):
			s.seen["fatal"]++
			return
		default:
			s.fatalf("append: %v", err)
		}
		if head := s.log.Head(); s.choose(8) == 0 {
			err := s.log.SaveSnapshot(eventlog.Snapshot{Schema: 1, Seq: head.Seq, Chain: head.Hash, State: fmt.Append(nil, "state ", head.Seq)})
			if err != nil && !errors.Is(err, errCut) && !errors.Is(err, syscall.EIO) && !errdefs.IsResourceExhausted(err) {
				s.fatalf("save snapshot: %v", err)
			}
		}
	}
}

// TestFullDiskInjected wants the reserve to work to its last record and the log
// to go on.
func TestFullDiskInjected(t *testing.T) {
	files := faultfs.New(seeded(1))
	options := eventlog.Options{SegmentSize: 6000, Reserve: 16 << 10, Chunk: 4 << 10}
	log := openFS(t, files, options)
	logtest.Append(t, log, logtest.Frame(1, 1))
	files.SetCapacity(files.Used())
	essential := logtest.Frame(2, 1)
	essential.Essential = true
	ordinary := 0
	for ; ; ordinary++ {
		before := log.Head()
		if _, err := log.Append([]eventlog.Frame{logtest.Frame(3, 1), essential}); err != nil {
			if !errdefs.IsResourceExhausted(err) || !errors.Is(err, syscall.ENOSPC) || log.Head() != before {
				t.Fatalf("full disk: %v", err)
			}
			break
		}
	}
	var size int64
	for {
		records, err := log.Append([]eventlog.Frame{essential})
		if errdefs.IsResourceExhausted(err) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		size += int64(records[0].Size())
	}
	if ordinary == 0 || size < options.Reserve-200 {
		t.Fatalf("%d ordinary batches, then %d bytes of essential records; the reserve is %d", ordinary, size, options.Reserve)
	}
	head := log.Head()
	// Restart while the disk is still full, then make room.
	files = files.Crash()
	log = openFS(t, files, options)
	if log.Head() != head {
		t.Fatalf("head %+v, was %+v", log.Head(), head)
	}
	if _, err := log.Append([]eventlog.Frame{logtest.Frame(3, 1)}); !errdefs.IsResourceExhausted(err) {
		t.Fatalf("still full: %v", err)
	}
	files.SetCapacity(0)
	logtest.Append(t, log, logtest.Frame(3, 1))
	if found := verify(t, files); len(found) > 0 {
		t.Fatal(found)
	}
}

// TestWriteFailsHalfway is what a copy-on-write disk does when it is full.
func TestWriteFailsHalfway(t *testing.T) {
	for name, wipeFails := range map[string]bool{"zeros written": false, "cut back": true} {
		t.Run(name, func(t *testing.T) {
			files := faultfs.New(seeded(1))
			log := openFS(t, files, roomy())
			first := logtest.Append(t, log, logtest.Frame(1, 1))
			batch := []eventlog.Frame{logtest.Frame(2, 1), logtest.Frame(3, 1)}
			writes := 0
			files.SetFault(func(op faultfs.Op) faultfs.Fault {
				if op.Kind != faultfs.Write {
					return faultfs.Fault{}
				}
				if writes++; writes == 1 {
					return faultfs.Fault{Err: syscall.ENOSPC, Short: int(op.Len) - 1} // the first frame is whole
				}
				if wipeFails {
					return faultfs.Fault{Err: syscall.ENOSPC}
				}
				return faultfs.Fault{}
			})
			if _, err := log.Append(batch); !errdefs.IsResourceExhausted(err) {
				t.Fatalf("append: %v", err)
			}
			files.SetFault(nil)
			logtest.Same(t, logtest.Records(t, openFS(t, files.Clone(), roomy()), 1), first)
			second := logtest.Append(t, log, logtest.Frame(4, 1))
			logtest.Same(t, logtest.Records(t, openFS(t, files.Crash(), roomy()), 1), append(first, second...))
		})
	}
}
