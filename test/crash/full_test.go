package crash

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/test/rig"
)

// TestFullDisk fills the disk under an engine: loads and runs fail and say why,
// the engine goes on, stop and remove work, and with space again all does.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := mountNew(t, filepath.Join(t.TempDir(), "disk"), 160)
	w := newWorld(t, rig.Options{Root: filepath.Join(dir, "root")})
	w.load()
	w.takeStock()
	running, stopped := w.container("while true; do sleep 0.05; done"), w.container("exit 0")
	for _, c := range []*core.CreateContainer{running, stopped} {
		w.must(w.client.Do(w.within(), c))
	}
	w.ended(stopped.ID, nil)
	w.must(w.client.Load(w.within(), os.Getenv(archiveEnv))) // the same again: nothing new
	w.unloadOther(t)

	// The archive is uploaded, read into the store, and unpacked: each copy is
	// 4 MiB, and there is room for none, one, two.
	filler := fill(t, dir)
	for _, room := range []int64{0, 9 << 20, 12 << 20} {
		w.must(fillUpTo(filler, dir, room))
		err := w.client.Load(w.within(), os.Getenv(otherEnv))
		if err == nil {
			t.Errorf("a load with %d bytes left went well", room)
		} else {
			t.Logf("with %d bytes left: %v", room, err)
		}
		w.must(w.client.Agrees(w.within(), w.Engine))
	}
	w.must(fillUpTo(filler, dir, 0))
	w.must(w.client.Settle(w.within()))
	w.must(w.client.Do(w.within(), &core.StopContainer{ID: running.ID, Timeout: new(time.Duration)}))
	w.gone(running.ID)
	w.gone(stopped.ID)
	w.must(w.client.Agrees(w.within(), w.Engine))
	w.must(w.Kill())
	w.restart()
	w.must(w.client.Agrees(w.within(), w.Engine))

	w.must(os.Remove(filler))
	w.must(w.client.Load(w.within(), os.Getenv(otherEnv)))
	c := w.container("exit 7")
	w.must(w.client.Do(w.within(), c))
	if d := w.ended(c.ID, nil); d.Exit == nil || d.Exit.Code != 7 {
		t.Errorf("with space again a run ended as %+v, fault %+v", d.Exit, d.Fault)
	}
	w.gone(c.ID)
	w.must(w.client.Agrees(w.within(), w.Engine))
	w.must(w.Close())
}

// unloadOther makes sure that the other image comes anew.
func (w *world) unloadOther(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	w.must(w.client.Load(ctx, os.Getenv(otherEnv)))
	w.must(w.client.Do(ctx, &core.DropImage{Image: otherName, Force: true}))
	w.must(w.client.Settle(ctx))
}

// fillUpTo changes the filler until only room bytes are left.
func fillUpTo(filler, dir string, room int64) error {
	var st unix.Statfs_t
	info, err := os.Stat(filler)
	if err = errors.Join(err, unix.Statfs(dir, &st)); err != nil {
		return err
	}
	size := info.Size() + int64(st.Bfree)*st.Bsize - room
	if size <= info.Size() {
		return os.Truncate(filler, size)
	}
	f, err := os.OpenFile(filler, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(make([]byte, size-info.Size()))
	if errors.Is(err, unix.ENOSPC) {
		err = nil
	}
	return err
}

// fill takes all space of a filesystem.
func fill(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
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
