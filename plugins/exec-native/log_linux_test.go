package execnative

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantryd/gantry/internal/stdio"
	"golang.org/x/sys/unix"
)

// fullDisk puts a container's log on a file system without room. What it returns
// makes room.
func (b *bench) fullDisk(container string) (room func()) {
	dir := filepath.Join(b.cfg.Root, container)
	filler := filepath.Join(dir, "filler")
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if err := os.WriteFile(filler, make([]byte, 64<<10), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return func() {
		if err := os.Remove(filler); err != nil {
			b.t.Error(err)
		}
	}
}

// TestLogEndOfEarlierStart: a driver that did not start the run tells it, too.
func TestLogEndOfEarlierStart(t *testing.T) {
	b := newBench(t)
	b.closeDriver()
	r := b.request("read x; echo 0123456789; exit 3")
	r.Stdio.OpenStdin = true
	b.fullDisk(r.Container)
	b.startInChild(1, r)
	b.open()
	b.sendInput(t.Context(), r.Key, "go\n")
	if e := b.wait(r.Key); e.Code != 3 || e.LogEnd != 11 {
		t.Errorf("%+v, want a log that ends at 11", e)
	}
}

// TestLogEnd: the exit says where the output ends that the log could not take, also
// to a later driver, and the next run's log goes on behind it.
func TestLogEnd(t *testing.T) {
	for _, loose := range []bool{false, true} {
		t.Run(fmt.Sprint("non-blocking ", loose), func(t *testing.T) {
			b := newBench(t)
			r := b.request("echo 0123456789; exit 3")
			r.Stdio.Log.NonBlocking = loose
			room := b.fullDisk(r.Container)
			if out, e := b.run(r); out != "" || e.Code != 3 || e.LogEnd != 11 {
				t.Errorf("%q %+v", out, e)
			}
			b.closeDriver()
			b.open()
			first := b.wait(r.Key)
			if first.Code != 3 || first.LogEnd != 11 {
				t.Errorf("told by a later driver: %+v", first)
			}
			room()
			if err := b.d.Release(t.Context(), r.Key); err != nil {
				t.Fatal(err)
			}
			r.Run, r.Stdio.Log.From = r.Run+1, first.LogEnd
			started, err := b.d.Start(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if e := b.wait(r.Key); e.LogEnd != 0 {
				t.Errorf("with room: %+v", e)
			}
			log, err := stdio.OpenLog(started.Log)
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			if rec, err := log.Next(); err != nil || rec.Offset != 11 || string(rec.Data) != "0123456789\n" {
				t.Errorf("the next run's first record: %d %q %v", rec.Offset, rec.Data, err)
			}
		})
	}
}
