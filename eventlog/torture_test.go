package eventlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/eventlog/faultfs"
	"github.com/gantryd/gantry/eventlog/logtest"
)

const firstSegment = "segment-00000000000000000001.log"

// roomy keeps everything in one segment with little space ahead.
func roomy() eventlog.Options {
	return eventlog.Options{Reserve: 4 << 10, Chunk: 4 << 10}
}

// history is a closed log of n batches of two frames, and its records.
func history(t testing.TB, n int, options eventlog.Options) (*faultfs.FS, []eventlog.Record) {
	t.Helper()
	files := faultfs.New(seeded(7))
	log := openFS(t, files, options)
	var all []eventlog.Record
	for i := range n {
		all = append(all, logtest.Append(t, log, logtest.Frame(i, 1), logtest.Frame(i+100, 2))...)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return files, all
}

func sizeOf(records []eventlog.Record) int64 {
	var size int64
	for _, r := range records {
		size += int64(r.Size())
	}
	return size
}

// reopened opens a damaged log, wants exactly these records, appends, and wants
// a clean verify.
func reopened(t *testing.T, files *faultfs.FS, want []eventlog.Record) *eventlog.Journal {
	t.Helper()
	log := openFS(t, files, roomy())
	logtest.Same(t, logtest.Records(t, log, 0), want)
	logtest.Append(t, log, logtest.Frame(1000, 1))
	if found := verify(t, files); len(found) > 0 {
		t.Fatalf("after recovery: %v", found)
	}
	return log
}

func verify(t testing.TB, files eventlog.FS) []eventlog.Finding {
	t.Helper()
	var found []eventlog.Finding
	if _, err := eventlog.VerifyFS(context.Background(), files, func(f eventlog.Finding) { found = append(found, f) }); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestTornAtEveryByte cuts the file at, or zeros it from, every byte of the
// last record.
func TestTornAtEveryByte(t *testing.T) {
	base, all := history(t, 5, roomy())
	content, end := base.Bytes(firstSegment), 96+sizeOf(all)
	last := all[len(all)-1]
	for cut := end - int64(last.Size()); cut < end; cut++ {
		for name, tear := range map[string]func() []byte{
			"short": func() []byte { return content[:cut] },
			"zeros": func() []byte { return append(bytes.Clone(content[:cut]), make([]byte, 5000)...) },
		} {
			files := base.Clone()
			files.Put(firstSegment, tear())
			found := verify(t, files)
			log := reopened(t, files, all[:len(all)-1])
			torn := cut > end-int64(last.Size())
			r := log.Recovery()
			if (r.CutBytes > 0) != torn || (len(found) == 1 && found[0].Kind == eventlog.TornTail) != torn {
				t.Fatalf("%s at %d: recovery %+v, verify said %v", name, cut, r, found)
			}
			if torn && !bytes.Equal(files.Bytes(r.CutKept), bytes.TrimRight(tear()[end-int64(last.Size()):], "\x00")) {
				t.Fatalf("%s at %d: cut bytes are not in %q", name, cut, r.CutKept)
			}
		}
	}
}

// TestFlippedInTheLastBatch flips every bit of the last batch's records: a torn
// tail from the damaged record on, never an error, never a wrong record.
func TestFlippedInTheLastBatch(t *testing.T) {
	base, all := history(t, 3, roomy())
	off := 96 + sizeOf(all[:4])
	for i, r := range all[4:] {
		for at := off; at < off+int64(r.Size()); at++ {
			for bit := range 8 {
				files := base.Clone()
				files.Flip(firstSegment, at, bit)
				log := openFS(t, files, roomy())
				logtest.Same(t, logtest.Records(t, log, 0), all[:4+i])
				if log.Recovery().CutSeq != r.First {
					t.Fatalf("byte %d bit %d: %+v", at, bit, log.Recovery())
				}
			}
		}
		off += int64(r.Size())
	}
}

// TestFlippedAnywhere flips every bit before the last batch, in several segments:
// Open or a reader refuses, verify names the place, export reads the rest, and a
// replica brings the identical bytes back.
func TestFlippedAnywhere(t *testing.T) {
	for name, options := range map[string]eventlog.Options{"segments": small(), "one segment": roomy()} {
		t.Run(name, func(t *testing.T) {
			base, all := history(t, 12, options)
			names, _ := base.List()
			for _, segment := range names {
				if strings.HasPrefix(segment, "segment-") {
					flipSegment(t, base, segment, all, options)
				}
			}
		})
	}
}

func flipSegment(t *testing.T, base *faultfs.FS, segment string, all []eventlog.Record, options eventlog.Options) {
	replica := eventlog.NewMem()
	if err := replica.Restore(all); err != nil {
		t.Fatal(err)
	}
	original := bytes.TrimRight(base.Bytes(segment), "\x00")
	end := len(original)
	if tail := sizeOf(all[len(all)-2:]); bytes.HasSuffix(original, all[len(all)-1].Payload) {
		end -= int(tail) // the last batch is another test's
	}
	for at := 0; at < end; at += 1 + at%3 {
		files := base.Clone()
		files.Flip(segment, int64(at), at%8)
		refused(t, files, options, fmt.Sprintf("%s byte %d", segment, at))
		found := verify(t, files)
		if len(found) == 0 || found[0].Kind == eventlog.TornTail || found[0].Segment != segment ||
			found[0].Offset > int64(at) || int64(at) >= found[0].Offset+max(found[0].Length, 136) {
			t.Fatalf("%s byte %d: verify says %v", segment, at, found)
		}
		exported(t, files, found, all)
		if _, err := eventlog.RepairFS(context.Background(), files.Clone(), eventlog.NewMem()); !errdefs.IsDataLoss(err) && at >= 96 && at < end-136 {
			t.Fatalf("%s byte %d: repair from an empty replica: %v", segment, at, err)
		}
		if _, err := eventlog.RepairFS(context.Background(), files, replica); err != nil {
			t.Fatalf("%s byte %d: %v", segment, at, err)
		}
		if !bytes.Equal(files.Bytes(segment), base.Bytes(segment)) {
			t.Fatalf("%s byte %d: repaired file differs", segment, at)
		}
	}
}

// refused wants that the damage is met on opening and reading, and the files
// stay as they are.
func refused(t *testing.T, files *faultfs.FS, options eventlog.Options, what string) {
	t.Helper()
	copied := files.Clone()
	log, err := eventlog.OpenFS(copied, options)
	if err == nil {
		err = log.Read(1, func(eventlog.Record) error { return nil })
		var older []eventlog.Finding
		if _, err := log.VerifyOlder(context.Background(), func(f eventlog.Finding) { older = append(older, f) }); err != nil || len(older) == 0 {
			t.Fatalf("%s: background verification found %v, %v", what, older, err)
		}
	}
	var corrupt *eventlog.CorruptError
	if !errors.As(err, &corrupt) || !errdefs.IsDataLoss(err) {
		t.Fatalf("%s: got %v", what, err)
	}
}

// exported wants every event but the missing ones, and the damage in between.
func exported(t *testing.T, files *faultfs.FS, found []eventlog.Finding, all []eventlog.Record) {
	t.Helper()
	var out, want bytes.Buffer
	if _, err := eventlog.ExportFS(context.Background(), files, &out); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if !(found[0].Seq <= r.First && r.Last() <= found[0].Until) {
			want.Write(r.Payload)
		}
	}
	var events bytes.Buffer
	damages := 0
	for line := range bytes.Lines(out.Bytes()) {
		if bytes.HasPrefix(line, []byte(`{"damage":`)) {
			damages++
		} else {
			events.Write(line)
		}
	}
	if damages != len(found) || !bytes.Equal(events.Bytes(), want.Bytes()) {
		t.Fatalf("%v: export has %d damages and %d bytes of events, want %d", found, damages, events.Len(), want.Len())
	}
}

// TestManyFlips damages many places at once and repairs them all.
func TestManyFlips(t *testing.T) {
	base, all := history(t, 300, eventlog.Options{SegmentSize: 20_000, Reserve: 8 << 10, Chunk: 4 << 10})
	replica := eventlog.NewMem()
	if err := replica.Restore(all); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(60) {
		choose, files := seeded(seed), base.Clone()
		names, _ := base.List()
		names = names[1 : len(names)-1] // without "format"; the last segment is another test's
		for range 1 + choose(8) {
			name := names[choose(len(names))]
			files.Flip(name, int64(choose(len(files.Bytes(name))-136)), choose(8))
		}
		if _, err := eventlog.RepairFS(context.Background(), files, replica); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, name := range names {
			if !bytes.Equal(files.Bytes(name), base.Bytes(name)) {
				t.Fatalf("seed %d: %s differs", seed, name)
			}
		}
	}
}

// TestFailingFsync wants that nothing is acknowledged after one, for ever.
func TestFailingFsync(t *testing.T) {
	files := faultfs.New(seeded(3))
	log := openFS(t, files, roomy())
	logtest.Append(t, log, logtest.Frame(1, 1))
	head := log.Head()
	fail := true
	files.SetFault(func(op faultfs.Op) faultfs.Fault {
		if op.Kind == faultfs.Datasync && fail {
			fail = false // the kernel would call the next one good
			return faultfs.Fault{Err: syscall.EIO}
		}
		return faultfs.Fault{}
	})
	for range 3 {
		_, err := log.Append([]eventlog.Frame{logtest.Frame(2, 1)})
		if !eventlog.IsFatal(err) || !errdefs.IsInternal(err) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("append after a failed fsync: %v", err)
		}
	}
	if log.Head() != head {
		t.Fatal("the head moved")
	}
	logtest.Same(t, logtest.Records(t, log, 2), nil)
	// The process stops; the page cache still has the record. Open must bring
	// it to the disk before anybody sees it.
	files = files.Kill()
	seen := openFS(t, files, roomy()).Head()
	if after := openFS(t, files.Crash(), roomy()).Head(); after != seen {
		t.Fatalf("the next process saw %+v, after a loss of power it is %+v", seen, after)
	}
}
