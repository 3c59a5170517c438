package layerstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
)

func openStore(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(root, "e1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func addLayer(t *testing.T, s *Store, id, parent string) {
	t.Helper()
	stage, err := s.Stage()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CommitLayer(stage, Layer{ID: id, Parent: parent}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestKeysNeverBecomePaths(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	s := openStore(t, root)
	for _, key := range []string{"../../up", "/abs", "", ".", "..", "a/b", "sha256:abc"} {
		addLayer(t, s, "layer "+key, "")
		stage, err := s.Stage()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CommitRootfs(stage, Rootfs{Container: key, Targets: []driver.Target{}}); err != nil {
			t.Fatal(err)
		}
		if dir := filepath.Dir(s.RootfsDir(key)); dir != filepath.Join(root, "rootfs") {
			t.Errorf("%q lies in %s", key, dir)
		}
	}
	s.Close()
	s = openStore(t, root)
	if got := len(s.List()); got != 14 {
		t.Errorf("%d items after opening again, want 14", got)
	}
	if beside, _ := os.ReadDir(filepath.Dir(root)); len(beside) != 1 {
		t.Errorf("beside the store: %v", beside)
	}
}

func TestRefusesALaterVersionAndForeignMarks(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	addLayer(t, s, "l1", "")
	s.Close()
	other, err := Open(root, "another engine")
	if err != nil {
		t.Fatal(err)
	}
	if items := other.List(); len(items) != 0 {
		t.Errorf("another engine's list has %v", items)
	}
	other.Close()
	file := filepath.Join(s.LayerDir(Name("l1")), "layer.json")
	if err := os.WriteFile(file, []byte(`{"version":2,"id":"l1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root, "e1"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a later version: %v", err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root, "e1"); !errdefs.IsDataLoss(err) {
		t.Errorf("a damaged layer: %v", err)
	}
}

func TestSharedDirectoriesStayWhileUsed(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	made := 0
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.Share(context.Background(), "used", func(string) error { made++; return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.Share(context.Background(), "unused", func(string) error { return nil }); err != nil || made != 1 {
		t.Errorf("made %d times, %v", made, err)
	}
	if err := s.Share(context.Background(), "bad", func(string) error { return errors.New("no") }); err == nil {
		t.Errorf("a failed fill counts")
	}
	stage, _ := s.Stage()
	if err := s.CommitRootfs(stage, Rootfs{Container: "c", Shared: "used", Targets: []driver.Target{}}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openStore(t, root)
	s.Wait()
	if left, _ := os.ReadDir(filepath.Join(root, "shared")); len(left) != 1 || left[0].Name() != "used" {
		t.Errorf("shared holds %v", left)
	}
}

func TestLockEndsWithItsContext(t *testing.T) {
	s := openStore(t, t.TempDir())
	unlock, err := s.Lock(context.Background(), "k")
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Lock(short, "k"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if other, err := s.Lock(context.Background(), "other"); err != nil {
		t.Errorf("another key waits: %v", err)
	} else {
		other()
	}
	unlock()
	if again, err := s.Lock(context.Background(), "k"); err != nil {
		t.Error(err)
	} else {
		again()
	}
}

func TestCloseWaitsForWhatRuns(t *testing.T) {
	s := openStore(t, t.TempDir())
	unlock, err := s.Lock(context.Background(), "k")
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for closing := false; !closing; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		closing = s.closed
		s.mu.Unlock()
	}
	select {
	case <-closed:
		t.Errorf("closed under running work")
	case <-time.After(20 * time.Millisecond):
	}
	if _, err := s.Lock(context.Background(), "k"); !errdefs.IsUnavailable(err) {
		t.Errorf("new work while closing: %v", err)
	}
	unlock()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestMakeLayerMakesOnceAndDiscardsWhatFails(t *testing.T) {
	s := openStore(t, t.TempDir())
	fills := 0
	makeLayer := func(id, parent string, failing error) (Layer, error) {
		return s.MakeLayer(t.Context(), id, parent, func(stage string, below Layer) (Layer, error) {
			fills++
			if failing != nil {
				return Layer{}, failing
			}
			if below.ID != parent {
				t.Errorf("layer on %q was given %q as its parent", parent, below.ID)
			}
			l := Layer{ID: id, Parent: parent, Size: 7}
			return l, s.CommitLayer(stage, l, nil)
		})
	}
	if _, err := makeLayer("a", "", os.ErrClosed); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a fill that fails: %v", err)
	}
	s.Wait()
	if left, err := os.ReadDir(filepath.Join(s.root, "work")); err != nil || len(left) > 0 {
		t.Errorf("a fill that fails leaves %v, %v", left, err)
	}
	for range 2 {
		if l, err := makeLayer("a", "", nil); err != nil || l.Size != 7 {
			t.Errorf("layer a: %+v, %v", l, err)
		}
	}
	if _, err := makeLayer("b", "a", nil); err != nil || fills != 3 {
		t.Errorf("layer b on a: %v; %d fills, want 3", err, fills)
	}
	if _, err := makeLayer("c", "gone", nil); !errdefs.IsNotFound(err) {
		t.Errorf("layer on one that is not there: %v", err)
	}
	for _, id := range []string{"", "d"} {
		if _, err := makeLayer(id, id, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("layer %q on itself: %v", id, err)
		}
	}
}

// A layer stays as long as another one is being made on it.
func TestLayerThatIsBuiltOnStays(t *testing.T) {
	s := openStore(t, t.TempDir())
	fill := func(id, parent string, meanwhile func()) func(string, Layer) (Layer, error) {
		return func(stage string, _ Layer) (Layer, error) {
			meanwhile()
			l := Layer{ID: id, Parent: parent}
			return l, s.CommitLayer(stage, l, nil)
		}
	}
	if _, err := s.MakeLayer(t.Context(), "a", "", fill("a", "", func() {})); err != nil {
		t.Fatal(err)
	}
	_, err := s.MakeLayer(t.Context(), "b", "a", fill("b", "a", func() {
		if err := s.RemoveLayer(t.Context(), "a"); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("a layer is removed while another one is made on it: %v", err)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	_, done, err := s.Use("b")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveLayer(t.Context(), "b"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a layer in use is removed: %v", err)
	}
	done()
	for _, id := range []string{"b", "a"} {
		if err := s.RemoveLayer(t.Context(), id); err != nil {
			t.Errorf("layer %s that nothing stands on: %v", id, err)
		}
	}
	if items := s.List(); len(items) > 0 || len(s.using) > 0 {
		t.Errorf("left: %v, in use: %v", items, s.using)
	}
	if _, _, err := s.Use("a"); !errdefs.IsNotFound(err) {
		t.Errorf("a layer that was removed: %v", err)
	}
}
