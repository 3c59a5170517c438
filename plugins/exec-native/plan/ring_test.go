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
	s := nonBlocking(t, 16<<20)
	written := s.fifo("written")
	s.host("/bin/sh", "-c", fmt.Sprintf("seq -w 1 99999999 | head -c %d; echo end >&2; read x < %s; exit 3", size, written.Name())).start()
	eventually(t, "the log to have it", func() bool { _, errs := s.readLog(); return errs == "end\n" })
	fmt.Fprintln(written)
	if r := s.until(ReportExited); r.Code != 3 || r.LogEnd != 0 {
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
	words := s.fifo("words")
	s.host("/bin/sh", "-c", fmt.Sprintf("exec < %s; while read x && [ $x = more ]; do head -c %d /dev/zero; done", words.Name(), minRing)).start()
	for i := range times {
		fmt.Fprintln(words, "more")
		eventually(t, "the log to have it", func() bool { out, _ := s.readLog(); return len(out) == (i+1)*minRing })
	}
	fmt.Fprintln(words, "end")
	s.until(ReportExited)
}

// TestRoomOfWhatIsWritten: what the disk is about to take has left its room in the
// ring to what comes next.
func TestRoomOfWhatIsWritten(t *testing.T) {
	part := os.Getpagesize() // which a pipe takes, and gives, at once
	s := nonBlocking(t, minRing)
	disk := stalled(t, s)
	onePage(t, disk)
	words := s.fifo("words")
	s.host("/bin/sh", "-c", fmt.Sprintf("exec < %s; while read n && [ $n -gt 0 ]; do head -c $n /dev/zero; done", words.Name())).start().until(ReportRunning)
	fmt.Fprintln(words, part)
	eventually(t, "a part to be on its way to the disk", func() (full bool) {
		onFD(t, disk, func(fd int) error {
			n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
			full = n == os.Getpagesize()
			return err
		})
		return full
	})
	fmt.Fprintln(words, minRing)
	eventually(t, "the shim to read all of it", func() bool { return s.offset() == uint64(part)+minRing })
	log := copied(t, disk)
	fmt.Fprintln(words, 0)
	if r := s.until(ReportExited); r.LogEnd != 0 {
		t.Errorf("%+v", r)
	}
	if end, lost := extent(t, log()); end != uint64(part)+minRing || lost != 0 {
		t.Errorf("the log ends at %d, %d lost", end, lost)
	}
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

// onePage leaves a FIFO that stands for a disk room for no more.
func onePage(t *testing.T, disk *os.File) {
	t.Helper()
	onFD(t, disk, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, os.Getpagesize())
		return err
	})
}

// onFD does something with a file's descriptor, which Fd would make a blocking one.
func onFD(t *testing.T, f *os.File, do func(fd int) error) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var done error
	err = raw.Control(func(fd uintptr) { done = do(int(fd)) })
	if err := errors.Join(err, done); err != nil {
		t.Fatal(err)
	}
}

// extent reads a log: where it ends, and how much is missing before.
func extent(t *testing.T, path string) (at, lost uint64) {
	t.Helper()
	r, err := stdio.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return at, lost
		}
		if err != nil || rec.Offset != at {
			t.Fatalf("record at %d, not %d: %v", rec.Offset, at, err)
		}
		at = rec.End()
		lost += rec.Lost
	}
}

// TestStalledDisk: a program whose log is delivered without blocking runs on
// while the disk stands still, what the ring did not take is counted; the same
// program under a blocking log waits.
func TestStalledDisk(t *testing.T) {
	const size = 3 << 20
	written := func(s *shim) string { return filepath.Join(s.dir, "written") }
	script := func(s *shim, then string) *shim {
		return s.host("/bin/sh", "-c", fmt.Sprintf("head -c %d /dev/zero; : > %s; %s", size, written(s), then))
	}
	through := func(s *shim) bool { _, err := os.Stat(written(s)); return err == nil }
	s := newShim(t, Monitor{}, 64<<20)
	disk := stalled(t, s)
	// The disk may stand still before the exec was told.
	script(s, "").start().until(ReportInit)
	time.Sleep(500 * time.Millisecond)
	if through(s) {
		t.Error("a blocking log did not hold its program up")
	}
	go io.Copy(io.Discard, disk)
	s.until(ReportExited)

	s = nonBlocking(t, 256<<10)
	disk = stalled(t, s)
	runs := s.fifo("runs")
	script(s, fmt.Sprintf("read x < '%s'; kill -9 $$", runs.Name())).start().until(ReportRunning)
	eventually(t, "the program to have written all", func() bool { return through(s) })
	log := copied(t, disk)
	fmt.Fprintln(runs)
	if r := s.until(ReportExited); r.Signal != 9 || r.LogEnd != 0 {
		t.Errorf("%+v", r)
	}
	if end, lost := extent(t, log()); end != size || lost < size/2 || lost == size {
		t.Errorf("the log ends at %d, %d lost", end, lost)
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
	onePage(t, disk)
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
