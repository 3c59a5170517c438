package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/test/rig"
)

// loadPoints are the named points of a load and of the image's removal.
func loadPoints() []string {
	return []string{
		"image.load-wanted", "image.archive-loaded", "layer.applied", "image.ready",
		"image.remove-wanted", "layer.removed", "image.removed",
	}
}

// TestLoad hurts at every point of a load and a removal. The image is whole
// afterwards, its containers run, and with it all of its content goes.
func TestLoad(t *testing.T) {
	for n, s := range strikes() {
		if s.shim || strings.HasPrefix(s.name, "net") || strings.HasPrefix(s.name, "exec") {
			continue // have no part in it
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, rig.Options{})
			w.load()
			w.takeStock()
			w.unload()
			w.empty = w.inventory()
			rnd := rand.New(rand.NewPCG(uint64(n), 2))
			for i, point := range loadPoints() {
				hit := false
				for try := 0; try < 3 && !hit; try++ {
					hit = w.hurtLoad(s, point, time.Duration(rnd.Int64N(int64(longestDelay)+1))*time.Duration(try))
				}
				if !hit {
					t.Errorf("point %s was never hit", point)
				}
				if i%2 == 1 && !s.engine {
					w.must(w.Stop())
					w.restart()
				}
			}
		})
	}
}

// unload removes the image.
func (w *world) unload() {
	w.t.Helper()
	w.must(w.client.Do(w.within(), &core.DropImage{Image: rig.Busybox, Force: true}))
	w.must(w.client.Settle(w.within()))
}

// hurtLoad loads the image, runs a container of it and removes it, and strikes
// once.
func (w *world) hurtLoad(s strike, point string, delay time.Duration) bool {
	w.t.Helper()
	k := w.strikeAt(s, bus.Filter{}, point, delay)
	w.insistLoad(k)
	c := w.container("cat /second; exit 7")
	w.insist(k, c)
	d := w.ended(c.ID, k)
	if d.Exit == nil || d.Exit.Code != 7 {
		w.t.Errorf("a container of the image ended as %+v, fault %+v", d.Exit, d.Fault)
	}
	w.insist(k, &core.RemoveContainer{ID: c.ID})
	w.insist(k, &core.DropImage{Image: rig.Busybox, Force: true})
	select {
	case <-k.done:
	case <-time.After(limit):
		w.t.Fatalf("%s: the point did not come", point)
	}
	w.must(k.err)
	if s.engine {
		w.connect()
	}
	w.must(w.client.Settle(w.within()))
	w.is(w.empty)
	w.verified()
	if w.t.Failed() {
		w.t.Fatalf("%s at %s after %v", s.name, point, delay)
	}
	return k.hit
}

// insistLoad loads the archive as a client does that sees the connection go:
// a job that was accepted is waited for, another one is sent again.
func (w *world) insistLoad(k *struck) {
	w.t.Helper()
	for {
		job := rig.NewJob()
		err := w.loadAs(job)
		if err == nil {
			return
		}
		w.regain(k, err)
		j, err := w.client.Ended(w.within(), job)
		switch {
		case errdefs.IsNotFound(err):
			continue // it was never accepted
		case err != nil:
			w.t.Fatal(err)
		case j.State != core.JobDone:
			w.t.Fatalf("the load that was accepted before the engine was killed has %s: %+v", j.State, j.Fault)
		}
		return
	}
}

func (w *world) loadAs(job string) error {
	f, err := os.Open(os.Getenv(archiveEnv))
	if err != nil {
		return err
	}
	defer f.Close()
	up, stream, err := w.client.Upload(w.within(), f)
	if err != nil {
		return err
	}
	defer stream.Close()
	if _, err := w.client.Send(w.within(), job, &core.LoadImage{Archive: up.Path}); err != nil {
		return err
	}
	j, err := w.client.Ended(w.within(), job)
	if err == nil && j.State != core.JobDone {
		err = fmt.Errorf("load: %s: %+v", j.State, j.Fault)
	}
	return err
}
