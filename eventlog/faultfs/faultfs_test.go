package faultfs

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/eventlog"
)

func always(n int) func(int) int {
	return func(bound int) int { return min(n, bound-1) }
}

func create(t *testing.T, files *FS, name, content string) eventlog.File {
	t.Helper()
	f, err := files.Open(name, true)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, content, 0)
	return f
}

func write(t *testing.T, f eventlog.File, content string, off int64) {
	t.Helper()
	if _, err := f.WriteAt([]byte(content), off); err != nil {
		t.Fatal(err)
	}
}

// TestWhatSurvives checks the model: which bytes and names are there after kill
// and crash.
func TestWhatSurvives(t *testing.T) {
	build := func(choice int) *FS {
		files := New(always(choice))
		f := create(t, files, "a", "synced")
		if err := errors.Join(f.Datasync(), files.SyncDir()); err != nil {
			t.Fatal(err)
		}
		write(t, f, "SY", 0)
		create(t, files, "b", "b")
		if err := files.Rename("a", "c"); err != nil {
			t.Fatal(err)
		}
		return files
	}
	if got := build(0).Kill().Bytes("c"); string(got) != "SYnced" {
		t.Fatalf("after kill: %q", got)
	}
	lost := build(0).Crash()
	if string(lost.Bytes("a")) != "synced" || lost.Bytes("b") != nil || lost.Bytes("c") != nil {
		t.Fatalf("after a crash that keeps nothing: %q %q %q", lost.Bytes("a"), lost.Bytes("b"), lost.Bytes("c"))
	}
	if half := build(1).Crash(); string(half.Bytes("a")) != "SYnced" || half.Bytes("b") == nil || half.Bytes("c") != nil {
		t.Fatalf("after a crash that keeps one name: %q %q", half.Bytes("a"), half.Bytes("b"))
	}
}

// TestSyncFails wants what Linux does: the second fsync says that all is well,
// and it is not.
func TestSyncFails(t *testing.T) {
	files := New(always(0))
	f := create(t, files, "a", "old")
	if err := errors.Join(f.Datasync(), files.SyncDir()); err != nil {
		t.Fatal(err)
	}
	write(t, f, "new", 0)
	files.SetFault(func(op Op) Fault {
		if op.Kind == Datasync {
			return Fault{Err: syscall.EIO}
		}
		return Fault{}
	})
	if err := f.Datasync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	files.SetFault(nil)
	if err := f.Datasync(); err != nil || string(files.Bytes("a")) != "new" {
		t.Fatalf("second fsync: %v, cache %q", err, files.Bytes("a"))
	}
	if got := files.Crash().Bytes("a"); string(got) != "old" {
		t.Fatalf("on the disk is %q", got)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a write after the crash: %v", err)
	}
}

// TestTorn wants each sector of a write whole or not at all, and every mix to
// occur.
func TestTorn(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	seen := map[string]bool{}
	for range 200 {
		files := New(random.IntN)
		f := create(t, files, "a", "")
		if err := errors.Join(f.Allocate(0, 3*Sector), f.Datasync(), files.SyncDir()); err != nil {
			t.Fatal(err)
		}
		write(t, f, string(bytes.Repeat([]byte("x"), 3*Sector)), 0)
		got, mix := files.Crash().Bytes("a"), ""
		for sector := range 3 {
			part := got[sector*Sector : (sector+1)*Sector]
			switch bytes.Count(part, []byte("x")) {
			case 0:
				mix += "-"
			case Sector:
				mix += "x"
			default:
				t.Fatal("half a sector")
			}
		}
		seen[mix] = true
	}
	if len(seen) != 8 {
		t.Fatalf("only %v", seen)
	}
}

func TestFullAndLocked(t *testing.T) {
	files := New(always(0))
	files.SetCapacity(100)
	f := create(t, files, "a", "")
	if n, err := f.WriteAt(make([]byte, 150), 0); n != 100 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("wrote %d: %v", n, err)
	}
	if err := f.Truncate(60); err != nil {
		t.Fatal(err)
	}
	if err := f.Allocate(0, 200); !errors.Is(err, syscall.ENOSPC) || files.Used() != 100 {
		t.Fatalf("allocated %d: %v", files.Used(), err)
	}
	if _, err := files.Open("b", false); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := files.Lock(); err != nil {
		t.Fatal(err)
	}
	if err := files.Lock(); !errdefs.IsFailedPrecondition(err) {
		t.Fatalf("second lock: %v", err)
	}
	if err := errors.Join(files.Close(), files.Lock()); err != nil {
		t.Fatal(err)
	}
}
