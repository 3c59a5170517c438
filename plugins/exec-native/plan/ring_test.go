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

// nonBlocking prepares a plan whose log is delivered through a ring.
func nonBlocking(t *testing.T, ring uint32) *shim {
	s := newShim(t, Monitor{}, 64<<20)
	s.Add(StageMonitor, LogPolicy{NonBlocking: true, BufferBytes: ring})
	return s
}

func TestNonBlockingLog(t *testing.T) {
	const size = 5 << 20
	s := nonBlocking(t, 16<<20).host("/bin/sh", "-c", fmt.Sprintf("seq -w 1 99999999 | head -c %d; echo end >&2; exit 3", size))
	if r := s.start().until(ReportExited); r.Code != 3 || r.LogEnd != 0 {
		t.Errorf("%+v", r)
	}
	out, errs := s.readLog()
	if len(out) != size || errs != "end\n" || !strings.HasPrefix(out, "00000001\n00000002\n") {
		t.Errorf("%d bytes, %q", len(out), errs)
	}
	for i, l := range strings.Split(out, "\n")[:size/9-1] {
		if l != fmt.Sprintf("%08d", i+1) {
			t.Fatalf("line %d is %q", i+1, l)
		}
	}
}

// TestSmallestRing: output as large as the whole ring goes through it, once the disk
// has taken what was there before.
func TestSmallestRing(t *testing.T) {
	const times = 8
	s := nonBlocking(t, minRing)
	gate := filepath.Join(s.dir, "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	s.host("/bin/sh", "-c", fmt.Sprintf("while read go; do head -c %d /dev/zero; done < %s", minRing, gate)).start()
	f, err := os.OpenFile(gate, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range times {
		fmt.Fprintln(f, "go")
		eventually(t, "the log to have it", func() bool { out, _ := s.readLog(); return len(out) == (i+1)*minRing })
	}
	f.Close()
	s.until(ReportExited)
}

// stalled puts a FIFO that nobody reads in the log's place: a disk that stands
// still once it has taken some.
func stalled(t *testing.T, s *shim) *os.File {
	t.Helper()
	path := filepath.Join(s.dir, "log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestStalledDisk: a program whose log is delivered without blocking runs on
// while the disk stands still, what the ring did not take is counted; the same
// program under a blocking log waits.
func TestStalledDisk(t *testing.T) {
	const size = 3 << 20
	script := fmt.Sprintf("head -c %d /dev/zero; kill -9 $$", size)
	ended := func(s *shim) func() bool {
		return func() bool { return !alive(s.init) || strings.HasPrefix(field(t, s.init, "status", "State:"), "Z") }
	}
	s := newShim(t, Monitor{}, 64<<20)
	disk := stalled(t, s)
	// The disk may stand still before the exec was told.
	s.host("/bin/sh", "-c", script).start().until(ReportInit)
	time.Sleep(500 * time.Millisecond)
	if ended(s)() {
		t.Error("a blocking log did not hold its program up")
	}
	go io.Copy(io.Discard, disk)
	s.until(ReportExited)

	s = nonBlocking(t, 256<<10)
	disk = stalled(t, s)
	s.host("/bin/sh", "-c", script).start().until(ReportRunning)
	eventually(t, "the program to end", ended(s))
	log := copied(t, disk)
	if r := s.until(ReportExited); r.Signal != 9 || r.LogEnd != 0 {
		t.Errorf("%+v", r)
	}
	r, err := stdio.OpenLog(log())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var at, lost uint64
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || rec.Offset != at {
			t.Fatalf("record at %d, not %d: %v", rec.Offset, at, err)
		}
		at = rec.End()
		lost += rec.Lost
	}
	if at != size || lost < size/2 || lost == size {
		t.Errorf("the log ends at %d, %d lost", at, lost)
	}
}

// copied takes what comes out of a FIFO into a file, until it is asked for that.
func copied(t *testing.T, fifo *os.File) (path func() string) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		io.Copy(f, fifo)
		close(done)
	}()
	return func() string {
		fifo.SetReadDeadline(time.Now())
		<-done
		fifo.SetReadDeadline(time.Time{})
		raw, err := fifo.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 64<<10)
		for n := 1; n > 0; { // until it would wait
			raw.Read(func(fd uintptr) bool {
				n, _ = unix.Read(int(fd), b)
				return true
			})
			f.Write(b[:max(n, 0)])
		}
		f.Close()
		return f.Name()
	}
}

// TestStandingDiskDoesNotKeepTheEnd: the exit is told although the disk takes
// nothing any more, and with it that the log does not reach the output's end.
func TestStandingDiskDoesNotKeepTheEnd(t *testing.T) {
	s := nonBlocking(t, 64<<10)
	disk := stalled(t, s)
	// Less than the ring holds: a writer that comes after all has been dropped could
	// otherwise put the rest into the FIFO, and behind it the word about what is missing.
	if _, err := unix.FcntlInt(disk.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil {
		t.Fatal(err)
	}
	s.host("/bin/sh", "-c", "head -c 1000000 /dev/zero; exit 4").start()
	if r := s.until(ReportExited); r.Code != 4 || r.LogEnd != 1000000 {
		t.Errorf("%+v", r)
	}
	if r := s.readRecord(); r.Code != 4 || r.LogEnd != 1000000 {
		t.Errorf("%+v", r)
	}
	eventually(t, "the shim to leave", func() bool { return !alive(s.pid) })
}

// TestLogRotatesByAge: a file that was begun long enough ago is not written on.
func TestLogRotatesByAge(t *testing.T) {
	s := newShim(t, Monitor{}, 1<<20)
	s.Add(StageMonitor, LogPolicy{MaxAge: 1})
	s.host("/bin/sh", "-c", "echo one; sleep 0.3; echo two; sleep 1.2; echo three; sleep 0.3; echo four")
	s.start().until(ReportExited)
	if out, _ := s.readLog(); out != "one\ntwo\nthree\nfour\n" {
		t.Errorf("%q", out)
	}
	r, err := stdio.OpenLog(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := 0
	var born time.Time
	for rec, err := r.Next(); err == nil; rec, err = r.Next() {
		if want == 0 || rec.Time.Sub(born) > time.Second {
			want++
			born = rec.Time
		}
	}
	files, _ := filepath.Glob(filepath.Join(s.dir, "log*"))
	if len(files) != want || want < 2 {
		t.Errorf("%v, want %d", files, want)
	}
}
