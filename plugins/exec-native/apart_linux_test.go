package execnative

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestEndBeforeRootIsApart: an end is told while the root filesystem is still
// mounted, and who writes into it or starts it again waits until it is not.
func TestEndBeforeRootIsApart(t *testing.T) {
	b := newBench(t)
	r := b.request("sleep 100")
	if _, err := b.d.Start(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	b.d.mu.Lock()
	one := b.d.runs[r.Key]
	root := one.root
	b.d.mu.Unlock()
	if root == nil {
		t.Fatal("nobody holds the root filesystem of what runs")
	}
	fd, err := unix.Dup(int(root.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	mount := os.NewFile(uintptr(fd), "root")
	defer mount.Close()
	if err := b.d.Signal(t.Context(), r.Key, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	b.wait(r.Key)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.OVERLAYFS_SUPER_MAGIC {
		t.Errorf("after the end: type %#x, %v", st.Type, err)
	}
	if err := b.d.Release(t.Context(), r.Key); err != nil {
		t.Fatal(err)
	}
	done, err := b.d.writers.take(t.Context(), r.Container)
	if err != nil {
		t.Fatal(err)
	}
	done()
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	if one.root != nil || root.Close() == nil {
		t.Error("the root filesystem is still held")
	}
}

// TestStartWaitsForRoot: a start does not mount what is being taken apart.
func TestStartWaitsForRoot(t *testing.T) {
	b := newBench(t)
	r := b.request("true")
	mine := make(chan struct{})
	if b.d.writers.begin(r.Container, mine) != nil {
		t.Fatal("a writer is there already")
	}
	begun := time.Now()
	time.AfterFunc(100*time.Millisecond, func() { b.d.writers.end(r.Container, mine) })
	if _, err := b.d.Start(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < 100*time.Millisecond {
		t.Errorf("it started after %v", took)
	}
}

// TestRemoveLogIsQuick: a removed log has no name at once, and no files soon.
func TestRemoveLogIsQuick(t *testing.T) {
	b := newBench(t)
	r := b.request("echo up")
	expect(t, b, r, "up")
	if err := b.d.RemoveLog(t.Context(), r.Container); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.d.logDir(r.Container)); err == nil {
		t.Error("the log has its name still")
	}
	b.eventually("the log is gone", func() bool {
		left, _ := filepath.Glob(b.cfg.Root + "/" + gonePrefix + "*")
		return len(left) == 0
	})
	if err := b.d.RemoveLog(t.Context(), r.Container); err != nil {
		t.Errorf("once more: %v", err)
	}
}
