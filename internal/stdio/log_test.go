package stdio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writer writes a log as the shim does.
type writer struct {
	t      *testing.T
	path   string
	f      *os.File
	offset uint64
}

func newWriter(t *testing.T) *writer {
	w := &writer{t: t, path: filepath.Join(t.TempDir(), "container.log")}
	w.open()
	return w
}

func (w *writer) open() {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	w.f = f
	w.t.Cleanup(func() { f.Close() })
}

func (w *writer) put(s Stream, data string) {
	w.raw(appendRecord(nil, Record{Stream: s, Time: time.Unix(1, int64(w.offset)), Offset: w.offset, Data: []byte(data)}))
	w.offset += uint64(len(data))
}

func (w *writer) gap(n uint64) {
	w.raw(appendRecord(nil, Record{Stream: Gap, Time: time.Unix(1, 0), Offset: w.offset, Lost: n}))
	w.offset += n
}

func (w *writer) raw(b []byte) {
	if _, err := w.f.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) rotate(keep int) {
	for n := keep - 2; n >= 0; n-- {
		from := w.path
		if n > 0 {
			from = fmt.Sprintf("%s.%d", w.path, n)
		}
		os.Rename(from, fmt.Sprintf("%s.%d", w.path, n+1))
	}
	w.open()
}

func open(t *testing.T, path string) *LogReader {
	r, err := OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// drain tells what there is now: text, with gaps as <n>.
func drain(t *testing.T, r *LogReader) string {
	var b strings.Builder
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.Stream == Gap {
			fmt.Fprintf(&b, "<%d>", rec.Lost)
		}
		b.Write(rec.Data)
	}
}

func TestLogReadsAndGrows(t *testing.T) {
	w := newWriter(t)
	r := open(t, w.path)
	if got := drain(t, r); got != "" {
		t.Fatalf("empty log: %q", got)
	}
	w.put(Stdout, "a\n")
	w.put(Stderr, "b\n")
	if got := drain(t, r); got != "a\nb\n" {
		t.Fatalf("%q", got)
	}
	w.gap(100)
	w.put(Stdout, "c")
	if got := drain(t, r); got != "<100>c" {
		t.Fatalf("%q", got)
	}
}

func TestLogFollowsRotation(t *testing.T) {
	w := newWriter(t)
	r := open(t, w.path)
	var want, got strings.Builder
	for i := range 200 {
		line := fmt.Sprintf("line %d\n", i)
		w.put(Stdout, line)
		want.WriteString(line)
		if i%7 == 6 {
			w.rotate(5)
		}
		if i%11 == 10 {
			got.WriteString(drain(t, r))
		}
	}
	got.WriteString(drain(t, r))
	if got.String() != want.String() {
		t.Fatalf("%q", got.String())
	}
}

func TestLogTellsWhatRotationTook(t *testing.T) {
	w := newWriter(t)
	r := open(t, w.path)
	w.put(Stdout, "0123456789")
	drain(t, r)
	for range 4 {
		w.rotate(2)
		w.put(Stdout, "0123456789")
	}
	if got := drain(t, r); got != "<20>01234567890123456789" {
		t.Fatalf("%q", got)
	}
}

func TestLogTornAtEveryByte(t *testing.T) {
	whole := appendRecord(nil, Record{Stream: Stdout, Time: time.Unix(1, 0), Offset: 6, Data: []byte("second")})
	for cut := range whole {
		w := newWriter(t)
		w.put(Stdout, "first ")
		w.raw(whole[:cut])
		if got := drain(t, open(t, w.path)); got != "first " {
			t.Fatalf("cut at %d: %q", cut, got)
		}
		next, err := RepairLog(w.path)
		if err != nil || next != 6 {
			t.Fatalf("cut at %d: repaired to %d, %v", cut, next, err)
		}
		w.put(Stderr, "third")
		if got := drain(t, open(t, w.path)); got != "first third" {
			t.Fatalf("cut at %d: %q", cut, got)
		}
	}
}

// TestLogTornRecordIsTakenBack: on a full disk the shim cuts off what was written of a
// record. A reader that has seen that much goes on with what stands there afterwards.
func TestLogTornRecordIsTakenBack(t *testing.T) {
	whole := appendRecord(nil, Record{Stream: Stdout, Time: time.Unix(1, 0), Offset: 6, Data: bytes.Repeat([]byte("x"), 300)})
	for _, cut := range []int{1, 4, recordHeader - 1, recordHeader, recordHeader + 1, len(whole) - 1} {
		w := newWriter(t)
		w.put(Stdout, "first ")
		r := open(t, w.path)
		end, err := w.f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		w.raw(whole[:cut])
		if got := drain(t, r); got != "first " {
			t.Fatalf("cut at %d: %q", cut, got)
		}
		if err := w.f.Truncate(end.Size()); err != nil {
			t.Fatal(err)
		}
		w.gap(300)
		for range 20 {
			w.put(Stderr, "0123456789")
		}
		if got, want := drain(t, r), "<300>"+strings.Repeat("0123456789", 20); got != want {
			t.Errorf("cut at %d: %q, want %q", cut, got, want)
		}
	}
}

// TestLogWhileItIsRotated: whoever looks between two renames of a rotation sees one
// file's name free, and all files.
func TestLogWhileItIsRotated(t *testing.T) {
	for free := range 4 {
		w := newWriter(t)
		for i := range 4 {
			if i > 0 {
				w.rotate(5)
			}
			w.put(Stdout, fmt.Sprint(i))
		}
		for n := 3; n >= free; n-- {
			from := fmt.Sprintf("%s.%d", w.path, n)
			if n == 0 {
				from = w.path
			}
			if err := os.Rename(from, fmt.Sprintf("%s.%d", w.path, n+1)); err != nil {
				t.Fatal(err)
			}
		}
		if got := drain(t, open(t, w.path)); got != "0123" {
			t.Errorf("while file %d moves: %q", free, got)
		}
	}
}

func TestLogDamageLosesOneRecord(t *testing.T) {
	w := newWriter(t)
	for range 3 {
		w.put(Stdout, "0123456789")
	}
	b, _ := os.ReadFile(w.path)
	size := len(b) / 3
	for at := size; at < size+recordHeader; at++ {
		bad := bytes.Clone(b)
		bad[at] ^= 0x40
		path := filepath.Join(t.TempDir(), "log")
		os.WriteFile(path, bad, 0o600)
		if got := drain(t, open(t, path)); got != "0123456789<10>0123456789" {
			t.Fatalf("byte %d: %q", at, got)
		}
	}
}

// TestRest: a log that ends before the output does is told to lack the rest, from
// wherever it is read.
func TestRest(t *testing.T) {
	w := newWriter(t)
	w.put(Stdout, "one\ntwo\n")
	for name, c := range map[string]struct {
		seek func(r *LogReader) error
		to   uint64
		want string
	}{
		"whole":    {func(*LogReader) error { return nil }, 20, "one\ntwo\n<12>"},
		"reached":  {func(*LogReader) error { return nil }, 8, "one\ntwo\n"},
		"no word":  {func(*LogReader) error { return nil }, 0, "one\ntwo\n"},
		"its tail": {func(r *LogReader) error { return r.Tail(1) }, 20, "two\n<12>"},
		"its end":  {func(r *LogReader) error { return r.Tail(0) }, 20, "<12>"},
		"part":     {func(r *LogReader) error { return r.Seek(15) }, 20, "<5>"},
		"behind":   {func(r *LogReader) error { return r.Seek(25) }, 20, ""},
	} {
		r := open(t, w.path)
		if err := c.seek(r); err != nil {
			t.Fatal(err)
		}
		got := drain(t, r)
		for rec, err := r.Rest(c.to, time.Time{}); err == nil; rec, err = r.Rest(c.to, time.Time{}) {
			got += fmt.Sprintf("<%d>", rec.Lost)
			if rec.Stream != Gap || rec.End() != c.to {
				t.Errorf("%s: %+v", name, rec)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	w.offset = 20
	r := open(t, w.path)
	drain(t, r)
	r.Rest(20, time.Time{})
	w.put(Stdout, "three")
	if got := drain(t, r); got != "three" {
		t.Errorf("what comes behind it: %q", got)
	}
	if rec, err := open(t, filepath.Join(t.TempDir(), "none")).Rest(7, time.Time{}); err != nil || rec.Lost != 7 {
		t.Errorf("a log without a record: %+v %v", rec, err)
	}
}

func TestLogTailAndSeek(t *testing.T) {
	w := newWriter(t)
	for i := range 10 {
		w.put(Stdout, fmt.Sprintf("a%d\nb%d\n", i, i))
		if i%3 == 2 {
			w.rotate(5)
		}
	}
	w.put(Stderr, "last")
	for n, want := range map[int]string{0: "", 1: "last", 2: "b9\nlast", 3: "a9\nb9\nlast", 8: "b6\na7\nb7\na8\nb8\na9\nb9\nlast"} {
		r := open(t, w.path)
		if err := r.Tail(n); err != nil {
			t.Fatal(err)
		}
		if got := drain(t, r); got != want {
			t.Errorf("tail %d: %q", n, got)
		}
	}
	r := open(t, w.path)
	if err := r.Tail(1000); err != nil {
		t.Fatal(err)
	}
	if got := drain(t, r); uint64(len(got)) != w.offset {
		t.Errorf("tail of more than there is: %d bytes of %d", len(got), w.offset)
	}
	all := drain(t, open(t, w.path))
	for at := uint64(0); at <= w.offset; at++ {
		if err := r.Seek(at); err != nil {
			t.Fatal(err)
		}
		if got := drain(t, r); got != all[at:] {
			t.Fatalf("seek %d: %q", at, got)
		}
	}
}

func TestLogFollowWaits(t *testing.T) {
	w := newWriter(t)
	r := open(t, w.path)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Follow(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("follow of an empty log: %v", err)
	}
	time.AfterFunc(30*time.Millisecond, func() { w.put(Stdout, "late") })
	ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rec, err := r.Follow(ctx)
	if err != nil || string(rec.Data) != "late" {
		t.Fatalf("%q, %v", rec.Data, err)
	}
}

func TestRepairOfNothing(t *testing.T) {
	dir := t.TempDir()
	if next, err := RepairLog(filepath.Join(dir, "none")); err != nil || next != 0 {
		t.Fatalf("%d, %v", next, err)
	}
	w := newWriter(t)
	w.put(Stdout, "abc")
	w.rotate(5) // the newest file is empty
	if next, err := RepairLog(w.path); err != nil || next != 3 {
		t.Fatalf("%d, %v", next, err)
	}
}

func FuzzLog(f *testing.F) {
	good := appendRecord(nil, Record{Stream: Stdout, Time: time.Unix(1, 0), Data: []byte("hello\n")})
	good = appendRecord(good, Record{Stream: Gap, Time: time.Unix(1, 0), Offset: 6, Lost: 4})
	good = appendRecord(good, Record{Stream: Stderr, Time: time.Unix(2, 0), Offset: 10, Data: []byte("x")})
	f.Add(good)
	for range 8 {
		bad := bytes.Clone(good)
		bad[rand.IntN(len(bad))] ^= 1 << rand.IntN(8)
		f.Add(bad)
	}
	path := filepath.Join(f.TempDir(), "log")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := OpenLog(path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for range len(b) + 2 {
			rec, err := r.Next()
			if err != nil {
				break
			}
			if len(rec.Data) > len(b) {
				t.Fatalf("%d bytes out of %d", len(rec.Data), len(b))
			}
		}
		if err := r.Tail(3); err != nil {
			t.Fatal(err)
		}
		if _, err := RepairLog(path); err != nil {
			t.Fatal(err)
		}
	})
}

// TestLogBound: what is written after the bound is not read, however often the log
// is rotated meanwhile; and all that was there is.
func TestLogBound(t *testing.T) {
	for _, c := range []struct {
		name      string
		files     []string // of the log at first
		rotations int      // while it is read, of three files
		tail      int      // lines; -1: all
		want      string
	}{
		{"one file", []string{"a\nb\n"}, 0, -1, "a\nb\n"},
		{"its tail", []string{"a\nb\n"}, 0, 1, "b\n"},
		{"two files", []string{"a\n", "b\nc\n"}, 0, -1, "a\nb\nc\n"},
		{"the tail of both", []string{"a\n", "b\nc\n"}, 0, 3, "a\nb\nc\n"},
		{"rotated", []string{"a\n", "b\n"}, 1, -1, "a\nb\n"},
		{"the tail of a rotated one", []string{"a\n", "b\n"}, 1, 2, "a\nb\n"},
		{"none", nil, 0, -1, ""},
		{"none, rotated", nil, 1, 5, ""},
		{"all has gone", []string{"a\n", "b\n"}, 4, -1, "a\nb\n"},
		{"the tail of what has gone", []string{"a\n", "b\n"}, 4, 1, "b\n"},
	} {
		w := newWriter(t)
		for i, data := range c.files {
			if i > 0 {
				w.rotate(3)
			}
			w.put(Stdout, data)
		}
		r := open(t, w.path)
		if err := r.Bound(); err != nil {
			t.Fatal(err)
		}
		for i := range c.rotations {
			w.put(Stdout, "late\n")
			w.rotate(3)
			w.put(Stdout, fmt.Sprintf("new %d\n", i))
		}
		w.put(Stderr, "last\n")
		if c.tail >= 0 {
			if err := r.Tail(c.tail); err != nil {
				t.Fatal(err)
			}
		}
		if got := drain(t, r); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
