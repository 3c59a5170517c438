package crash

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/test/rig"
)

// TestPowerCut copies the disk that the engine's data are on while containers
// come and go, as a loss of power leaves it: what no fsync has reached is not in
// the copy. An engine on the copy has all that was acknowledged.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	image := filepath.Join(t.TempDir(), "disk")
	dir := mountNew(t, image, 256)
	w := newWorld(t, rig.Options{Root: filepath.Join(dir, "root")})
	w.load()
	acked := &acked{}
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { acked.keepStarting(w, stop) })
	var cuts []cut
	for end := time.Now().Add(limit); len(acked.now().ids) == 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	for n := range 3 {
		time.Sleep(time.Duration(200+70*n) * time.Millisecond)
		c := acked.now()
		c.image = w.cutPower(image, n)
		if len(c.ids) == 0 {
			t.Error("nothing was acknowledged before the cut")
		}
		cuts = append(cuts, c)
	}
	close(stop)
	sending.Wait()
	if acked.err != nil {
		t.Error(acked.err)
	}
	w.must(w.Close())
	for _, c := range cuts {
		c.after(t, w.Name)
	}
}

// cut is the disk as it was at a moment, and what had been acknowledged.
type cut struct {
	image string
	ids   []core.ContainerID
	seq   uint64
}

// acked is what the engine has given receipts for.
type acked struct {
	mu  sync.Mutex // guards all below
	ids []core.ContainerID
	seq uint64
	err error
}

func (a *acked) now() cut {
	a.mu.Lock()
	defer a.mu.Unlock()
	return cut{ids: append([]core.ContainerID(nil), a.ids...), seq: a.seq}
}

// keepStarting starts containers, a few at a time: a slow machine has addresses for
// all of them.
func (a *acked) keepStarting(w *world, stop chan struct{}) {
	const atOnce = 10
	var jobs []string
	for {
		select {
		case <-stop:
			return
		default:
		}
		c := w.container("echo begun; sleep 0.1")
		jobs = append(jobs, rig.NewJob())
		r, err := w.client.Send(w.within(), jobs[len(jobs)-1], c)
		if err == nil && len(jobs) >= atOnce {
			_, err = w.client.Ended(w.within(), jobs[len(jobs)-atOnce])
		}
		a.mu.Lock()
		if err != nil {
			a.err = err
			a.mu.Unlock()
			return
		}
		a.ids, a.seq = append(a.ids, c.ID), max(a.seq, r.Seq)
		a.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
}

// cutPower stops every process that writes to the disk, copies it, and lets
// them go on.
func (w *world) cutPower(image string, n int) string {
	w.t.Helper()
	pids := append(w.Pids(), w.Pid())
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
			w.t.Fatal(err)
		}
	}
	defer func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended
		}
	}()
	before, err := os.ReadFile(image)
	for range 50 {
		after, again := os.ReadFile(image)
		w.must(errors.Join(err, again))
		if bytes.Equal(before, after) { // a moment, not a smear
			name := fmt.Sprint(image, n)
			w.must(os.WriteFile(name, after, 0o600))
			return name
		}
		before = after
	}
	w.t.Fatal("the disk does not stand still")
	return ""
}

// after starts an engine on the copy.
func (c cut) after(t *testing.T, name string) {
	t.Helper()
	dir := mountImage(t, c.image)
	w := newWorld(t, rig.Options{Name: name, Root: filepath.Join(dir, "root")})
	sum, err := w.VerifyLog(w.within())
	if err != nil && (sum.Damages > 0 || !sum.Torn) || sum.Head.Seq < c.seq {
		t.Errorf("the log ends at %d, acknowledged was %d: %v", sum.Head.Seq, c.seq, err)
	}
	list, err := w.client.Containers(w.within())
	w.must(err)
	have := map[core.ContainerID]bool{}
	for _, k := range list {
		have[k.ID] = true
	}
	for _, id := range c.ids {
		if !have[id] {
			t.Errorf("container %.12s was acknowledged and is lost", id)
		}
	}
	// The image was loaded: its files are whole.
	k := w.container("sha256sum /pattern; cat /second; exit 7")
	w.must(w.client.Do(w.within(), k))
	d := w.ended(k.ID, nil)
	out, err := w.client.Logs(w.within(), string(k.ID))
	w.must(err)
	want := sha256.Sum256(rig.Pattern())
	if d.Exit == nil || d.Exit.Code != 7 || !strings.HasPrefix(string(out), hex.EncodeToString(want[:])) || !strings.Contains(string(out), "second layer") {
		t.Errorf("a container of the image ended as %+v with %q", d.Exit, out)
	}
	list, err = w.client.Containers(w.within())
	w.must(err)
	for _, k := range list {
		w.gone(k.ID)
	}
	w.must(w.client.Agrees(w.within(), w.Engine))
	w.must(w.Close())
	w.must(exec.Command("umount", dir).Run())
}

// mountNew makes a filesystem in a file and mounts it.
func mountNew(t *testing.T, image string, mib int64) string {
	t.Helper()
	err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, mib<<20),
		exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image).Run())
	if err != nil {
		t.Fatal(err)
	}
	return mountImage(t, image)
}

// mountImage mounts it such that nothing is written that nobody asks for.
func mountImage(t *testing.T, image string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gantry-disk-")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "loop,commit=600", image, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount %s: %v: %s", image, err, out)
	}
	t.Cleanup(func() {
		_ = syscall.Unmount(dir, syscall.MNT_DETACH) // it is unmounted already if all went well
		_ = os.Remove(dir)
	})
	return dir
}
