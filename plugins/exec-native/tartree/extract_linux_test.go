package tartree

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestFarTimes: times that nanoseconds in 64 bits do not reach come through both ways.
func TestFarTimes(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "gantry-tartree") // disks may have narrower times
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	far := time.Date(2300, 1, 2, 3, 4, 5, 6, time.UTC)
	var in, out bytes.Buffer
	w := tar.NewWriter(&in)
	for _, h := range []tar.Header{{Typeflag: tar.TypeDir, Name: "d/"}, {Typeflag: tar.TypeReg, Name: "d/f"}, {Typeflag: tar.TypeSymlink, Name: "d/l", Linkname: "f"}} {
		h.ModTime, h.Mode, h.Format = far, 0o755, tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	same := func(uid, gid int) (int, int, error) { return uid, gid, nil }
	if err := Extract(t.Context(), &in, root, "/", Options{Owner: same}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d", "d/f", "d/l"} {
		if st, err := os.Lstat(filepath.Join(dir, name)); err != nil || !st.ModTime().Equal(far) {
			t.Errorf("%s: %v %v, want %v", name, st, err, far)
		}
	}
	if err := Write(t.Context(), &out, root, "d", "d", same); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&out)
	for range 3 {
		if h, err := r.Next(); err != nil || h.ModTime.Unix() != far.Unix() {
			t.Errorf("written: %+v %v", h, err)
		}
	}
}

// TestLinksThatGo: what goes while a tree is read is left out, a link too.
func TestLinksThatGo(t *testing.T) {
	dir := t.TempDir()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for link := filepath.Join(dir, "l"); ; {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Symlink("to", link)
			_ = os.Remove(link)
		}
	}()
	same := func(uid, gid int) (int, int, error) { return uid, gid, nil }
	for range 3000 {
		if err := Write(t.Context(), io.Discard, root, ".", "", same); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	<-stopped
}
