package eventlog_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/eventlog/faultfs"
	"github.com/gantryd/gantry/eventlog/logtest"
)

// forge changes a byte of a record, header or footer that begins at off and is
// length bytes long, and makes the checksum right again, as only a writer can.
func forge(files *faultfs.FS, name string, off, length, at int) {
	content := files.Bytes(name)
	b := content[off : off+length]
	b[at] ^= 1
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(b[8:], crc32.Update(crc32.Update(0, table, b[:8]), table, b[12:]))
	files.Put(name, content)
}

// TestForged wants that what has a good checksum but is not what was written is
// found: in a record, by the chain; in the last record of a segment and in a
// footer, by the Merkle root or the header behind; and repaired.
func TestForged(t *testing.T) {
	base, all := history(t, 12, small())
	names, _ := base.List()
	replica := eventlog.NewMem()
	if err := replica.Restore(all); err != nil {
		t.Fatal(err)
	}
	size := len(base.Bytes(firstSegment))
	lastSegment := names[len(names)-1]
	length := func(name string, off int) int {
		return int(binary.LittleEndian.Uint32(base.Bytes(name)[off+4:]))
	}
	for what, change := range map[string]func(*faultfs.FS){
		"payload":     func(f *faultfs.FS) { forge(f, firstSegment, 96, length(firstSegment, 96), 80) },
		"prev":        func(f *faultfs.FS) { forge(f, firstSegment, 96, length(firstSegment, 96), 50) },
		"flags":       func(f *faultfs.FS) { forge(f, lastSegment, 96, length(lastSegment, 96), 42) },
		"footer root": func(f *faultfs.FS) { forge(f, firstSegment, size-136, 136, 45) },
		"count":       func(f *faultfs.FS) { forge(f, firstSegment, size-136, 136, 16) },
		"footer last": func(f *faultfs.FS) { forge(f, firstSegment, size-136, 136, 110) },
		"header prev": func(f *faultfs.FS) { forge(f, names[2], 0, 96, 30) },
		"header root": func(f *faultfs.FS) { forge(f, names[2], 0, 96, 60) },
	} {
		t.Run(what, func(t *testing.T) {
			files := base.Clone()
			change(files)
			if what != "count" { // only verification reads it
				refused(t, files, small(), what)
			}
			if found := verify(t, files); len(found) == 0 || found[0].Kind == eventlog.TornTail {
				t.Fatalf("verify found %v", found)
			}
			if _, err := eventlog.RepairFS(context.Background(), files, replica); err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if !bytes.Equal(files.Bytes(name), base.Bytes(name)) {
					t.Fatalf("%s differs after repair", name)
				}
			}
		})
	}
}

// TestMissingSegment takes each segment but the last away.
func TestMissingSegment(t *testing.T) {
	base, all := history(t, 12, small())
	names, _ := base.List()
	replica := eventlog.NewMem()
	if err := replica.Restore(all); err != nil {
		t.Fatal(err)
	}
	for _, name := range names[1 : len(names)-1] {
		files := base.Clone()
		if err := files.Remove(name); err != nil {
			t.Fatal(err)
		}
		if _, err := eventlog.OpenFS(files.Clone(), small()); !errdefs.IsDataLoss(err) {
			t.Fatalf("%s missing: open: %v", name, err)
		}
		if found := verify(t, files); len(found) != 1 || found[0].Kind != eventlog.MissingSegment || found[0].Segment != name {
			t.Fatalf("%s missing: %v", name, found)
		}
		if rebuilt, err := eventlog.RepairFS(context.Background(), files, replica); err != nil || len(rebuilt) != 1 {
			t.Fatalf("%s missing: repair %v, %v", name, rebuilt, err)
		}
		if !bytes.Equal(files.Bytes(name), base.Bytes(name)) {
			t.Fatalf("%s differs after repair", name)
		}
	}
}

// TestRepairCutShort ends a repair between any two operations on the disk, by a
// loss of power or by kill -9: the next repair finishes it, byte for byte.
func TestRepairCutShort(t *testing.T) {
	base, all := history(t, 12, small())
	replica := eventlog.NewMem()
	if err := replica.Restore(all); err != nil {
		t.Fatal(err)
	}
	for left, finished := 0, false; !finished; left++ {
		for _, end := range []func(*faultfs.FS) *faultfs.FS{(*faultfs.FS).Kill, (*faultfs.FS).Crash} {
			files := base.Clone()
			files.Flip(firstSegment, 300, 1)
			n := left
			files.SetFault(func(op faultfs.Op) faultfs.Fault {
				if op.Kind == faultfs.Read || op.Kind == faultfs.Open {
					return faultfs.Fault{}
				}
				if n--; n < 0 {
					return faultfs.Fault{Err: errCut, Short: int(op.Len / 2)}
				}
				return faultfs.Fault{}
			})
			_, err := eventlog.RepairFS(context.Background(), files, replica)
			finished = err == nil
			files = end(files)
			if _, err := eventlog.RepairFS(context.Background(), files, replica); err != nil {
				t.Fatalf("cut after %d: %v", left, err)
			}
			if !bytes.Equal(files.Bytes(firstSegment), base.Bytes(firstSegment)) {
				t.Fatalf("cut after %d: repaired file differs", left)
			}
		}
		if left > 200 {
			t.Fatal("the repair never ends")
		}
	}
}

// TestBadSector makes the disk refuse to read a block: Open and Read give its
// error, verify and export reach the rest, a replica brings it back.
func TestBadSector(t *testing.T) {
	base, all := history(t, 60, roomy())
	replica := eventlog.NewMem()
	if err := replica.Restore(all); err != nil {
		t.Fatal(err)
	}
	for _, block := range []int64{0, 4096, 8192} {
		files, replaced := base.Clone(), false
		bad := func(op faultfs.Op) faultfs.Fault {
			if op.Kind == faultfs.Read && op.Name == firstSegment && op.Off < block+4096 && op.Off+op.Len > block {
				return faultfs.Fault{Err: syscall.EIO}
			}
			return faultfs.Fault{}
		}
		files.SetFault(bad)
		if _, err := eventlog.OpenFS(files, roomy()); !errors.Is(err, syscall.EIO) {
			t.Fatalf("block %d: open: %v", block, err)
		}
		found := verify(t, files)
		sum, err := eventlog.ExportFS(context.Background(), files, io.Discard)
		if err != nil || len(found) == 0 || found[0].Kind == eventlog.TornTail || sum.Records < 80 {
			t.Fatalf("block %d: %v, %+v, %v", block, found, sum, err)
		}
		files.SetFault(func(op faultfs.Op) faultfs.Fault {
			replaced = replaced || op.Kind == faultfs.Rename // the bad block goes with the old file
			if replaced {
				return faultfs.Fault{}
			}
			return bad(op)
		})
		if _, err := eventlog.RepairFS(context.Background(), files, replica); err != nil {
			t.Fatalf("block %d: %v", block, err)
		}
		if !bytes.Equal(files.Bytes(firstSegment), base.Bytes(firstSegment)) {
			t.Fatalf("block %d: repaired file differs", block)
		}
	}
}

// TestRepairRefusesAnotherHistory wants that nothing is changed by a replica
// that does not fit.
func TestRepairRefusesAnotherHistory(t *testing.T) {
	files, _ := history(t, 12, small())
	_, other := history(t, 13, small())
	foreign := eventlog.NewMem()
	logtest.Append(t, foreign, logtest.Frame(5, 3))
	for i := range 12 {
		logtest.Append(t, foreign, logtest.Frame(i, 1), logtest.Frame(i+100, 2))
	}
	files.Flip(firstSegment, 200, 3)
	before := files.Bytes(firstSegment)
	for name, source := range map[string]eventlog.Source{"foreign": foreign, "empty": eventlog.NewMem(), "lying": lying(other)} {
		if _, err := eventlog.RepairFS(context.Background(), files.Clone(), source); !errdefs.IsDataLoss(err) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if !bytes.Equal(files.Bytes(firstSegment), before) {
		t.Fatal("the segment was changed")
	}
}

// lying gives records with one byte changed, whatever they claim to be.
type lying []eventlog.Record

func (l lying) Read(from uint64, f func(eventlog.Record) error) error {
	for _, r := range l {
		r.Payload = bytes.Replace(r.Payload, []byte("test"), []byte("tent"), 1)
		if r.Last() >= from {
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestRestoreTorn takes the power away in the middle of a restore of many batches:
// each has its own fdatasync, so it is a torn tail and never corruption.
func TestRestoreTorn(t *testing.T) {
	_, all := history(t, 6, roomy())
	for seed := range uint64(200) {
		choose := seeded(seed)
		files := faultfs.New(choose)
		log := openFS(t, files, roomy())
		left := choose(12)
		files.SetFault(func(op faultfs.Op) faultfs.Fault {
			if left--; left < 0 {
				return faultfs.Fault{Err: errCut, Short: int(op.Len)}
			}
			return faultfs.Fault{}
		})
		_ = log.Restore(all)
		head := log.Head()
		files = files.Crash()
		log = openFS(t, files, roomy())
		if log.Head().Seq < head.Seq {
			t.Fatalf("seed %d: %+v, was %+v", seed, log.Head(), head)
		}
		rest := all
		for len(rest) > 0 && rest[0].First <= log.Head().Seq {
			rest = rest[1:]
		}
		if err := log.Restore(rest); err != nil {
			t.Fatal(err)
		}
		logtest.Same(t, logtest.Records(t, log, 1), all)
	}
}

// TestRefusedStaysRefused takes the power away right after a refusal.
func TestRefusedStaysRefused(t *testing.T) {
	for seed := range uint64(50) {
		files := faultfs.New(seeded(seed))
		log := openFS(t, files, roomy())
		first := logtest.Append(t, log, logtest.Frame(1, 1))
		writes := 0
		files.SetFault(func(op faultfs.Op) faultfs.Fault {
			if op.Kind == faultfs.Write {
				if writes++; writes == 1 {
					return faultfs.Fault{Err: syscall.ENOSPC, Short: int(op.Len) - 1}
				}
			}
			return faultfs.Fault{}
		})
		_, err := log.Append([]eventlog.Frame{logtest.Frame(2, 1), logtest.Frame(3, 1)})
		if !errdefs.IsResourceExhausted(err) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		logtest.Same(t, logtest.Records(t, openFS(t, files.Crash(), roomy()), 1), first)
	}
}

// TestSecondOpener wants a clear refusal while the first lives, also from
// repair, and verify and export to work all the same.
func TestSecondOpener(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	log := openDir(t, dir, eventlog.Options{})
	records := logtest.Append(t, log, logtest.Frame(1, 2))
	if _, err := eventlog.Open(dir, eventlog.Options{}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatalf("second opener: %v", err)
	}
	if _, err := eventlog.Repair(context.Background(), dir, eventlog.NewMem()); !errdefs.IsFailedPrecondition(err) {
		t.Fatalf("repair beside an engine: %v", err)
	}
	sum, err := eventlog.Verify(context.Background(), dir, func(f eventlog.Finding) { t.Error(f) })
	if err != nil || sum.Events != 2 || sum.Head != log.Head() {
		t.Fatalf("verify: %+v, %v", sum, err)
	}
	var out bytes.Buffer
	if _, err := eventlog.Export(context.Background(), dir, &out); err != nil || !bytes.Equal(out.Bytes(), records[0].Payload) {
		t.Fatalf("export: %q, %v", out.Bytes(), err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	openDir(t, dir, eventlog.Options{})
}

// TestNewerFormat wants a clear refusal of everything.
func TestNewerFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	openDir(t, dir, eventlog.Options{}).Close()
	if err := os.WriteFile(filepath.Join(dir, "format"), []byte("gantry log 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := eventlog.Open(dir, eventlog.Options{})
	_, verified := eventlog.Verify(context.Background(), dir, func(eventlog.Finding) {})
	_, repaired := eventlog.Repair(context.Background(), dir, eventlog.NewMem())
	for _, err := range []error{err, verified, repaired} {
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "format 2") {
			t.Fatalf("newer format: %v", err)
		}
	}
}

// TestNotALog wants that an empty or a strange directory is not called sound, and
// that a log without its format file is refused and repaired.
func TestNotALog(t *testing.T) {
	files := faultfs.New(seeded(1))
	files.Put("lock", nil)
	if _, err := eventlog.VerifyFS(context.Background(), files, func(eventlog.Finding) {}); !errdefs.IsNotFound(err) {
		t.Fatalf("strange directory: %v", err)
	}
	files.Put("format", []byte("gantry log 1\n"))
	files.Put("snapshot-00000000000000000002", []byte("x"))
	if found := verify(t, files); len(found) != 1 || found[0].Kind != eventlog.MissingSegment {
		t.Fatalf("snapshot without a log: %v", found)
	}
	if _, err := eventlog.OpenFS(files, roomy()); !errdefs.IsDataLoss(err) {
		t.Fatalf("snapshot without a log: %v", err)
	}
	files, all := history(t, 2, roomy())
	if err := files.Remove("format"); err != nil {
		t.Fatal(err)
	}
	if _, err := eventlog.OpenFS(files.Clone(), roomy()); !errdefs.IsDataLoss(err) {
		t.Fatalf("no format file: %v", err)
	}
	if _, err := eventlog.RepairFS(context.Background(), files, eventlog.NewMem()); err != nil {
		t.Fatal(err)
	}
	logtest.Same(t, logtest.Records(t, openFS(t, files.Clone(), roomy()), 1), all)
}

// TestDamagedSnapshots flips every byte of a snapshot: it is never used.
func TestDamagedSnapshots(t *testing.T) {
	base := faultfs.New(seeded(1))
	log := openFS(t, base, roomy())
	var names []string
	for n := range 3 {
		r := logtest.Append(t, log, logtest.Frame(n, 1))[0]
		s := eventlog.Snapshot{Schema: 1, Seq: r.Last(), Chain: r.Hash, State: []byte("the state")}
		if err := log.SaveSnapshot(s); err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("snapshot-%020d", r.Last()))
	}
	if base.Bytes(names[0]) != nil || base.Bytes(names[1]) == nil {
		t.Fatal("not the newest two are kept")
	}
	for at := range base.Bytes(names[2]) {
		files := base.Clone()
		files.Flip(names[2], int64(at), at%8)
		log := openFS(t, files, roomy())
		if s, err := log.LoadSnapshot(1); err != nil || s.Seq != 2 {
			t.Fatalf("byte %d: snapshot %+v, %v", at, s, err)
		}
		if files.Bytes(names[2]) != nil {
			t.Fatalf("byte %d: the damaged one is still there", at)
		}
	}
}

// TestKilledBySignal kills a real process in the middle of appending and wants
// every sequence that it printed. The process is this test itself.
func TestKilledBySignal(t *testing.T) {
	const variable = "EVENTLOG_TEST_DIR"
	if dir := os.Getenv(variable); dir != "" {
		log := openDir(t, dir, eventlog.Options{SegmentSize: 100_000})
		for n := 0; ; n++ {
			fmt.Printf("acked %d\n", logtest.Append(t, log, logtest.Frame(n, 1), logtest.Frame(n, 2))[1].Last())
		}
	}
	dir := filepath.Join(t.TempDir(), "log")
	for round := range 5 {
		child := exec.Command(os.Args[0], "-test.run", "^TestKilledBySignal$")
		child.Env = append(os.Environ(), variable+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		var acked uint64
		for range 200 + 70*round {
			if _, err := fmt.Fscanf(out, "acked %d\n", &acked); err != nil {
				t.Fatal(err)
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait() // it was killed
		log := openDir(t, dir, eventlog.Options{SegmentSize: 100_000})
		if log.Head().Seq < acked {
			t.Fatalf("the log ends at %d, %d was acknowledged", log.Head().Seq, acked)
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if sum, err := eventlog.Verify(context.Background(), dir, func(f eventlog.Finding) { t.Error(f) }); err != nil || sum.Segments < 3 {
		t.Fatalf("%+v, %v", sum, err)
	}
}
