package plan

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/stdio"
)

// TestLogRotates writes far more than the log may hold while a reader follows.
func TestLogRotates(t *testing.T) {
	const size = 3 << 20
	s := newShim(t, Monitor{Flags: WaitAttach, GateMilli: never}, 256<<10).
		host("/bin/sh", "-c", fmt.Sprintf("seq -w 1 99999999 | head -c %d; echo end >&2", size))
	s.start().until(ReportGate)
	r, err := stdio.OpenLog(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := s.attach(stdio.Hello{Stdout: true, Lossless: true})
	// What a client has not taken is far less than the log keeps.
	f := &followingWriter{t: t, r: r}
	if _, err := collect(c, f, io.Discard); err != nil {
		t.Fatal(err)
	}
	s.until(ReportExited)
	f.follow()
	if f.logged[stdio.Stdout].String() != f.sent.String() || f.sent.Len() != size || f.logged[stdio.Stderr].String() != "end\n" {
		t.Errorf("%d bytes sent, %d in the log, and %q", f.sent.Len(), f.logged[stdio.Stdout].Len(), f.logged[stdio.Stderr].String())
	}
	files, _ := filepath.Glob(filepath.Join(s.dir, "log*"))
	if len(files) != 5 {
		t.Errorf("%v", files)
	}
	for _, f := range files {
		if info, _ := os.Stat(f); info.Size() > 256<<10 {
			t.Errorf("%s has %d bytes", f, info.Size())
		}
	}
}

// followingWriter reads the log as far as it goes whenever it is given something.
type followingWriter struct {
	t      *testing.T
	r      *stdio.LogReader
	sent   strings.Builder
	logged [4]strings.Builder
}

func (w *followingWriter) Write(p []byte) (int, error) {
	w.follow()
	return w.sent.Write(p)
}

func (w *followingWriter) follow() {
	for {
		rec, err := w.r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil || rec.Stream == stdio.Gap {
			w.t.Fatalf("a gap of %d bytes before a reader that keeps up, %v", rec.Lost, err)
		}
		w.logged[rec.Stream&3].Write(rec.Data)
	}
}

// TestLogOnFullDisk fills the log's file system: the program runs on, and what
// could not be written is counted once there is room again.
func TestLogOnFullDisk(t *testing.T) {
	s := newShim(t, Monitor{Flags: WaitAttach | OpenStdin, GateMilli: never}, 0)
	disk := s.smallDisk(128 << 10)
	s.host("/bin/sh", "-c", "head -c 400000 /dev/zero; echo full >&2; read x; echo after; exit 2").start().until(ReportGate)
	c := s.attach(stdio.Hello{Stdout: true, Stderr: true, Stdin: true, Lossless: true})
	for {
		f, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == stdio.FrameStderr {
			break
		}
	}
	os.Remove(filepath.Join(disk, "filler"))
	io.WriteString(c, "go\n")
	if r := s.until(ReportExited); r.Code != 2 || r.LogEnd != 0 {
		t.Fatalf("%+v", r)
	}
	r, err := stdio.OpenLog(filepath.Join(disk, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	at, lost, last := uint64(1000), uint64(0), ""
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.Offset != at {
			t.Fatalf("a record at %d, not %d", rec.Offset, at)
		}
		at = rec.End()
		lost += rec.Lost
		last = string(rec.Data)
	}
	if at != 1000+400000+5+6 || lost == 0 || last != "after\n" {
		t.Errorf("ended at %d, %d lost, last %q", at, lost, last)
	}
}

// smallDisk has the log on a file system of 256 KiB, of which the file "filler" takes
// some, and begins it at 1000.
func (s *shim) smallDisk(filler int) (path string) {
	t := s.t
	t.Helper()
	disk := filepath.Join(s.dir, "disk")
	os.Mkdir(disk, 0o700)
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	os.WriteFile(filepath.Join(disk, "filler"), make([]byte, filler), 0o600)
	d, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	s.Add(StageMonitor, Log{Dir: s.add(d), Name: "log", MaxBytes: 1 << 20, MaxFiles: 2, Offset: 1000})
	return disk
}

// TestLogOnDiskThatStaysFull: what no gap could tell any more is told with the exit;
// where there was room for the gap at the end, it is in the log.
func TestLogOnDiskThatStaysFull(t *testing.T) {
	const size = 400000
	for name, c := range map[string]struct {
		policy LogPolicy
		script string
		end    uint64
	}{
		"blocking":     {script: "", end: 1000 + size},
		"non-blocking": {policy: LogPolicy{NonBlocking: true, BufferBytes: 1 << 20}, end: 1000 + size},
		"room again":   {script: "; rm $1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t, Monitor{}, 0)
			disk := s.smallDisk(256 << 10)
			if c.policy.NonBlocking {
				s.Add(StageMonitor, c.policy)
			}
			taken := s.fifo("taken")
			s.host("/bin/sh", "-c", fmt.Sprintf("head -c %d /dev/zero; read x < $2%s; exit 2", size, c.script), "sh",
				filepath.Join(disk, "filler"), taken.Name()).start().until(ReportRunning)
			eventually(t, "the shim to read all of it", func() bool { return s.offset() == 1000+size })
			fmt.Fprintln(taken)
			if r := s.until(ReportExited); r.Code != 2 || r.LogEnd != c.end || s.readRecord().LogEnd != c.end {
				t.Errorf("%+v, want the log's end %d", r, c.end)
			}
			r, err := stdio.OpenLog(filepath.Join(disk, "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var last stdio.Record
			for rec, err := r.Next(); err == nil; rec, err = r.Next() {
				last = rec
			}
			if told := last.End() == 1000+size && last.Lost == size; told != (c.end == 0) {
				t.Errorf("the log ends at %d with %d lost", last.End(), last.Lost)
			}
		})
	}
}

// TestLogSpeed compares a flood into the log with the same into a file: the
// best of some, since others use the machine too.
func TestLogSpeed(t *testing.T) {
	const size = 128 << 20
	if _, err := buildShim(); err != nil { // not part of the time
		t.Fatal(err)
	}
	script := fmt.Sprintf("head -c %d /dev/zero", size)
	var best float64
	for i := 0; i < 5 && best < 0.6; i++ {
		begin := time.Now()
		s := newShim(t, Monitor{}, 64<<20).host("/bin/sh", "-c", script)
		s.start().until(ReportExited)
		logged := time.Since(begin)
		begin = time.Now()
		plain := newShim(t, Monitor{}, 0)
		plain.host("/bin/sh", "-c", script+" | cat > "+filepath.Join(plain.dir, "plain")).start().until(ReportExited)
		file := time.Since(begin)
		best = max(best, file.Seconds()/logged.Seconds())
		t.Logf("into the log %v, through cat into a file %v: ratio %.2f", logged, file, file.Seconds()/logged.Seconds())
	}
	if best < 0.3 {
		t.Errorf("far slower than a file")
	}
}
