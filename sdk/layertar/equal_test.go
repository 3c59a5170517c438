package layertar

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBothFormsMeanTheSame unpacks stacks of random layers in both forms, and
// the overlay mounted by the kernel must show what Apply left.
func TestBothFormsMeanTheSame(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 7))
		top := t.TempDir()
		applied := top + "/applied"
		mustMkdir(t, applied, top+"/upper", top+"/work", top+"/merged")
		var lowers []string // top first
		var story strings.Builder
		for i := range 2 + r.IntN(3) {
			entries := randomLayer(r, i)
			for _, e := range entries {
				fmt.Fprintf(&story, "layer %d: %c %s %q\n", i, e.Typeflag, e.Name, e.Linkname)
			}
			dir := fmt.Sprintf("%s/l%d", top, i)
			mustMkdir(t, dir)
			o := Options{Whiteouts: Overlay}
			for _, l := range lowers {
				o.Lowers = append(o.Lowers, openDir(t, l))
			}
			res, errOverlay := unpackInto(t, dir, o, entries...)
			_, errApply := unpackInto(t, applied, Options{Whiteouts: Apply}, entries...)
			if (errOverlay == nil) != (errApply == nil) {
				t.Fatalf("seed %d: one form refused: %v / %v\n%s", seed, errOverlay, errApply, &story)
			}
			if errOverlay != nil {
				lowers = nil
				break
			}
			if res.OpaqueRoot {
				lowers = nil
			}
			lowers = append([]string{dir}, lowers...)
		}
		if lowers == nil {
			continue
		}
		got, want := mergedTree(t, top, lowers), strings.Join(tree(t, applied), "\n")
		if got != want {
			t.Fatalf("seed %d: %s\nthe overlay shows\n%s\napplied is\n%s", seed, &story, got, want)
		}
	}
}

func mustMkdir(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// randomLayer makes entries over few names, so that they meet.
func randomLayer(r *rand.Rand, n int) []ent {
	names := []string{"a", "b", "a/b", "a/c", "b/a", "a/b/c", "a/b/d"}
	var out []ent
	for range 1 + r.IntN(7) {
		name := names[r.IntN(len(names))]
		switch r.IntN(8) {
		case 0, 1:
			e := dirEnt(name, 0o700+int64(r.IntN(8)))
			e.Uid = r.IntN(3)
			out = append(out, e)
		case 2, 3:
			out = append(out, fileEnt(name, fmt.Sprint(n)))
		case 4:
			out = append(out, symEnt(name, "a"))
		case 5, 6:
			dir, base := "", name
			if i := strings.LastIndex(name, "/"); i >= 0 {
				dir, base = name[:i+1], name[i+1:]
			}
			out = append(out, fileEnt(dir+whiteoutPrefix+base, ""))
		case 7:
			if i := strings.LastIndex(name, "/"); i >= 0 || n > 1 {
				// First, as the specification recommends: what entries
				// before it took from the layers below is not defined.
				out = append([]ent{fileEnt(name[:i+1]+opaqueName, "")}, out...)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b ent) int { // outer ones before inner ones
		if !strings.HasSuffix(a.Name, opaqueName) || !strings.HasSuffix(b.Name, opaqueName) {
			return 0
		}
		return len(a.Name) - len(b.Name)
	})
	// Whiteouts below what the layer itself deletes make no sense, and in an
	// overlay leave an empty directory.
	for _, name := range names {
		dir, base := path.Split(name)
		if slices.ContainsFunc(out, func(e ent) bool { return e.Name == dir+whiteoutPrefix+base }) {
			out = slices.DeleteFunc(out, func(e ent) bool {
				return strings.HasPrefix(e.Name, name+"/") && strings.Contains(e.Name, whiteoutPrefix)
			})
		}
	}
	if r.IntN(3) == 0 {
		out = append([]ent{{Header: tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711}}}, out...)
	}
	return out
}

// mergedTree mounts an overlay in a mount namespace of its own and describes it.
func mergedTree(t *testing.T, top string, lowers []string) string {
	t.Helper()
	type result struct {
		tree string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		defer close(done)      // also when tree ends the goroutine
		runtime.LockOSThread() // never unlocked: the namespace ends with the thread
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			// Read-only: without an upper directory the root is the top layer's.
			data := "lowerdir=" + strings.Join(append(lowers, top+"/upper"), ":")
			err = unix.Mount("overlay", top+"/merged", "overlay", 0, data)
		}
		if err != nil {
			done <- result{"", err}
			return
		}
		seen := strings.Join(tree(t, top+"/merged"), "\n")
		done <- result{seen, unix.Unmount(top+"/merged", unix.MNT_DETACH)}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.tree
}
