package eventlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// The tests of this file mount real filesystems and need root.

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a filesystem")
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// makeImage makes an ext4 filesystem in a file and nothing in it is left for later.
func makeImage(t *testing.T, mib int64) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, mib<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
	return image
}

// mount mounts an image and gives the directory and what unmounts it.
func mount(t *testing.T, image string) (string, func()) {
	t.Helper()
	dir := t.TempDir()
	run(t, "mount", "-o", "loop,commit=600", image, dir)
	mounted := true
	unmount := func() {
		if mounted {
			mounted = false
			run(t, "umount", dir)
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}

func frameOf(n, size int, essential bool) Frame {
	payload := append(append(fmt.Appendf(nil, `{"n":%d,"x":"`, n), bytes.Repeat([]byte("x"), size)...), "\"}\n"...)
	return Frame{Count: 1, Time: time.Unix(1_700_000_000, 0), Payload: payload, Essential: essential}
}

// fill takes all space of the filesystem that dir is on.
func fill(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096, 1} {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	return name
}

// TestFullDisk fills a real ext4 and a real tmpfs to the last byte: ordinary
// appends are refused, essential ones have their 16 MiB, a restart on the full
// disk works, and with space again all goes on.
func TestFullDisk(t *testing.T) {
	needRoot(t)
	t.Run("ext4", func(t *testing.T) {
		dir, _ := mount(t, makeImage(t, 64))
		fullDisk(t, dir)
	})
	t.Run("tmpfs", func(t *testing.T) {
		dir := t.TempDir()
		run(t, "mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", dir)
		t.Cleanup(func() { run(t, "umount", dir) })
		fullDisk(t, dir)
	})
}

func fullDisk(t *testing.T, dir string) {
	logDir := filepath.Join(dir, "log")
	log, err := Open(logDir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	appendOne := func(n, size int, essential bool) error {
		_, err := log.Append([]Frame{frameOf(n, size, essential)})
		return err
	}
	if err := appendOne(1, 100, false); err != nil {
		t.Fatal(err)
	}
	filler := fill(t, dir)
	for err == nil {
		err = appendOne(2, 100_000, false)
	}
	if !errdefs.IsResourceExhausted(err) || IsFatal(err) {
		t.Fatalf("full disk: %v", err)
	}
	fill(t, dir)
	var size int64
	for err = nil; err == nil; size += 8 << 10 {
		err = appendOne(3, 8<<10, true)
		if size%(1<<20) == 0 {
			fill(t, dir) // somebody else wants every block
		}
		if size == 8<<20 {
			err = errors.Join(err, log.Close())
			again, opened := Open(logDir, Options{})
			if log = again; opened != nil {
				t.Fatalf("open on a full disk: %v", opened)
			}
		}
	}
	if !errdefs.IsResourceExhausted(err) || size < 14<<20 {
		t.Fatalf("after %d bytes of essential records: %v", size, err)
	}
	head := log.Head()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := appendOne(4, 1000, false); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	sum, err := Verify(context.Background(), logDir, func(f Finding) { t.Error(f) })
	if err != nil || sum.Head.Seq != head.Seq+1 {
		t.Fatalf("%+v, %v", sum, err)
	}
}

// cutFS calls cut before and after each operation that changes the disk.
type cutFS struct {
	FS
	cut func(where string)
}

type cutFile struct {
	File
	cut func(where string)
}

func (c cutFS) Open(name string, create bool) (File, error) {
	f, err := c.FS.Open(name, create)
	if err != nil {
		return nil, err
	}
	return cutFile{f, c.cut}, nil
}

func (c cutFS) Rename(from, to string) error {
	c.cut("before rename")
	defer c.cut("after rename")
	return c.FS.Rename(from, to)
}

func (c cutFS) SyncDir() error {
	defer c.cut("after syncdir")
	return c.FS.SyncDir()
}

func (c cutFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := c.File.WriteAt(b[:len(b)/2], off)
	if err != nil {
		return n, err
	}
	c.cut("in the middle of a write")
	m, err := c.File.WriteAt(b[len(b)/2:], off+int64(n))
	c.cut("after a write")
	return n + m, err
}

func (c cutFile) Datasync() error {
	defer c.cut("after fdatasync")
	return c.File.Datasync()
}

func (c cutFile) Truncate(size int64) error {
	defer c.cut("after truncate")
	return c.File.Truncate(size)
}

// hangingFS has files whose fdatasync, once armed, says so at reached and hangs
// until gate is closed.
type hangingFS struct {
	FS
	armed         *atomic.Bool
	reached, gate chan struct{}
}

type hangingFile struct {
	File
	fs hangingFS
}

func (h hangingFS) Open(name string, create bool) (File, error) {
	f, err := h.FS.Open(name, create)
	return hangingFile{f, h}, err
}

func (f hangingFile) Datasync() error {
	if f.fs.armed.Load() {
		f.fs.reached <- struct{}{}
		<-f.fs.gate
	}
	return f.File.Datasync()
}

// TestReadersDoNotWait reads while an fdatasync hangs: what is durable is there
// at once, what is not is not shown.
func TestReadersDoNotWait(t *testing.T) {
	files, err := openDir(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	hanging := hangingFS{files, new(atomic.Bool), make(chan struct{}), make(chan struct{})}
	log, err := OpenFS(hanging, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if _, err := log.Append([]Frame{frameOf(1, 10, false)}); err != nil {
		t.Fatal(err)
	}
	hanging.armed.Store(true)
	appended := make(chan error)
	go func() {
		_, err := log.Append([]Frame{frameOf(2, 10, false)})
		appended <- err
	}()
	<-hanging.reached
	var seen uint64
	err = log.Read(1, func(r Record) error { seen = r.Last(); return nil })
	if err != nil || seen != 1 || log.Head().Seq != 1 {
		t.Errorf("while fdatasync hangs: read to %d, head %d: %v", seen, log.Head().Seq, err)
	}
	close(hanging.gate)
	if err := <-appended; err != nil || log.Head().Seq != 2 {
		t.Fatalf("head %d: %v", log.Head().Seq, err)
	}
}

// TestPowerCut copies the image of a mounted ext4 while the log writes to it,
// as a loss of power leaves a disk, and wants in each copy all that was
// acknowledged by then.
func TestPowerCut(t *testing.T) {
	needRoot(t)
	image := makeImage(t, 16)
	dir, unmount := mount(t, image)
	logDir := filepath.Join(dir, "log")
	options := Options{SegmentSize: 20_000, Reserve: 64 << 10, Chunk: 8 << 10}
	if err := makeDir(logDir); err != nil {
		t.Fatal(err)
	}
	files, err := openDir(logDir, false)
	if err != nil {
		t.Fatal(err)
	}
	var log *Journal
	var copies []powerCopy
	ops, seen := 0, map[string]int{}
	log, err = OpenFS(cutFS{files, func(where string) {
		if log == nil {
			return
		}
		if ops++; seen[where] < 2 || ops%97 == 0 {
			seen[where]++
			copies = append(copies, powerCopy{where, copyStill(t, image, len(copies)), log.Head()})
		}
	}}, options)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 200 {
		if _, err := log.Append([]Frame{frameOf(n, 300, false), frameOf(n, 200, false)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	unmount()
	if len(seen) != 7 {
		t.Fatalf("cut only at %v", seen)
	}
	for _, c := range copies {
		c.check(t, options)
	}
	t.Logf("%d copies: %v", len(copies), seen)
}

// powerCopy is the disk as it was at a moment, and what had been acknowledged.
type powerCopy struct {
	where string
	image string
	acked Head
}

// copyStill copies the image until two copies are the same, so that it is a
// moment and not a smear: nobody but the kernel's own write-back writes meanwhile.
func copyStill(t *testing.T, image string, n int) string {
	t.Helper()
	before, err := os.ReadFile(image)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		after, again := os.ReadFile(image)
		if err = errors.Join(err, again); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(before, after) {
			name := filepath.Join(filepath.Dir(image), fmt.Sprint("copy", n))
			if err := os.WriteFile(name, after, 0o600); err != nil {
				t.Fatal(err)
			}
			return name
		}
		before = after
	}
	t.Fatal("the image does not stand still")
	return ""
}

func (c powerCopy) check(t *testing.T, options Options) {
	t.Helper()
	dir, unmount := mount(t, c.image)
	defer unmount()
	log, err := Open(filepath.Join(dir, "log"), options)
	if err != nil {
		t.Fatalf("%s: %v", c.where, err)
	}
	defer log.Close()
	if log.Head().Seq < c.acked.Seq {
		t.Fatalf("%s: the log ends at %d, acknowledged was %d", c.where, log.Head().Seq, c.acked.Seq)
	}
	err = log.Read(1, func(r Record) error {
		if r.Last() == c.acked.Seq && r.Hash != c.acked.Hash {
			return errors.New("another record")
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", c.where, err)
	}
	if _, err := log.Append([]Frame{frameOf(0, 10, false)}); err != nil {
		t.Fatalf("%s: %v", c.where, err)
	}
}
