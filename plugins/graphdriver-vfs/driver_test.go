package vfs

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

var ctx = context.Background()

func open(t *testing.T, root string) *Driver {
	t.Helper()
	d, err := New(driver.Config{EngineID: "e1", EngineName: "test", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.(io.Closer).Close() })
	return d.(*Driver)
}

// layer writes a tar of lines "path", "path/", "path=content" or
// "path:mode" and describes it.
func layer(t testing.TB, id, parent string, lines ...string) graphdriver.ApplyLayer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, line := range lines {
		name, body, _ := strings.Cut(line, "=")
		name, mode, _ := strings.Cut(name, ":")
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if mode != "" {
			fmt.Sscanf(mode, "%o", &h.Mode)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, body)
	}
	w.Close()
	file := filepath.Join(t.TempDir(), "layer.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(b.Bytes()))
	return graphdriver.ApplyLayer{ID: id, Parent: parent, Archive: file, Digest: sum, DiffID: sum}
}

func apply(t *testing.T, d *Driver, layers ...graphdriver.ApplyLayer) {
	t.Helper()
	for _, l := range layers {
		if _, err := d.ApplyLayer(ctx, l, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// prepare makes a root filesystem and says where it is.
func prepare(t *testing.T, d *Driver, r graphdriver.PrepareRootfs) string {
	t.Helper()
	m, err := d.PrepareRootfs(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if len(m) != 1 || m[0].Type != "bind" || m[0].Target != "/" {
		t.Fatalf("mounts %v", m)
	}
	return m[0].Source
}

// listing describes what is below root, one line each, with owners.
func listing(t *testing.T, root string) string {
	t.Helper()
	var out []string
	err := filepath.Walk(root, func(path string, fi os.FileInfo, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		st := fi.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %v %d", rel, fi.Mode(), st.Uid)
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %s", st.Nlink, b)
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

func want(t *testing.T, root, want string) {
	t.Helper()
	if got := listing(t, root); got != strings.TrimSpace(want) {
		t.Errorf("seen\n%s\nwant\n%s", got, strings.TrimSpace(want))
	}
}

func TestLayersAreApplied(t *testing.T) {
	d := open(t, t.TempDir())
	apply(t, d,
		layer(t, "l1", "", "a/", "a/1=one", "a/2=two", "b/:1777", "b/x=x", "c/", "c/y=y", "gone=g"),
		layer(t, "l2", "l1", "a/.wh.1", "b/new=n", "c/z=z", "c/.wh..wh..opq", ".wh.gone"))
	root := prepare(t, d, graphdriver.PrepareRootfs{Container: "c1", Layer: "l2"})
	want(t, root, `
a drwxr-xr-x 0
a/2 -rw-r--r-- 0 1 two
b dtrwxrwxrwx 0
b/new -rw-r--r-- 0 1 n
b/x -rw-r--r-- 0 1 x
c drwxr-xr-x 0
c/z -rw-r--r-- 0 1 z`)
	want(t, d.layerFS("l1"), `
a drwxr-xr-x 0
a/1 -rw-r--r-- 0 1 one
a/2 -rw-r--r-- 0 1 two
b dtrwxrwxrwx 0
b/x -rw-r--r-- 0 1 x
c drwxr-xr-x 0
c/y -rw-r--r-- 0 1 y
gone -rw-r--r-- 0 1 g`)
}

func TestDiffIsALayerAgain(t *testing.T) {
	d := open(t, t.TempDir())
	apply(t, d, layer(t, "l1", "", "a/", "a/1=one", "a/2=two", "b/", "b/x=x", "keep=k"))
	targets := []driver.Target{{Path: "/proc"}, {Path: "/etc/hosts", File: true}, {Path: "/keep", File: true}, {Path: "/vol/data"}}
	root := prepare(t, d, graphdriver.PrepareRootfs{Container: "c1", Layer: "l1", Targets: targets})
	var b bytes.Buffer
	if err := d.Diff(ctx, "c1", &b); err != nil || names(t, &b) != "" {
		t.Errorf("diff of an untouched root filesystem, %v", err)
	}
	fi, _ := os.Stat(root + "/a/2")
	err := errors.Join(os.Remove(root+"/a/1"), os.RemoveAll(root+"/b"), os.WriteFile(root+"/b", []byte("y"), 0o711),
		os.WriteFile(root+"/a/2", []byte("TWO"), 0o644), os.Chtimes(root+"/a/2", fi.ModTime(), fi.ModTime()),
		os.Link(root+"/b", root+"/z"), os.WriteFile(root+"/vol/in", nil, 0o600), unix.Setxattr(root+"/b", "user.k", []byte("v"), 0))
	if err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if err := d.Diff(ctx, "c1", &b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "diff.tar")
	os.WriteFile(file, b.Bytes(), 0o600)
	if got := names(t, &b); got != "a/ a/.wh.1 a/2 b vol/ vol/in z" {
		t.Errorf("diff holds %s", got)
	}
	apply(t, d, graphdriver.ApplyLayer{ID: "l2", Parent: "l1", Archive: file})
	want(t, prepare(t, d, graphdriver.PrepareRootfs{Container: "c2", Layer: "l2"}), `
a drwxr-xr-x 0
a/2 -rw-r--r-- 0 1 TWO
b -rwx--x--x 0 2 y
keep -rw-r--r-- 0 1 k
vol drwxr-xr-x 0
vol/in -rw------- 0 1 
z -rwx--x--x 0 2 y`)
}

func names(t *testing.T, r io.Reader) string {
	t.Helper()
	var out []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(out, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Name)
	}
}

func TestIDMapOwnsTheCopy(t *testing.T) {
	d := open(t, t.TempDir())
	apply(t, d, layer(t, "l1", "", "a/", "a/1=one"))
	if err := unix.Setxattr(d.layerFS("l1")+"/a/1", "security.capability", []byte("\x01\x00\x00\x02"+strings.Repeat("\x00", 16)), 0); err != nil {
		t.Fatal(err)
	}
	maps := []driver.IDMapping{{Container: 0, Host: 100000, Size: 65536}}
	root := prepare(t, d, graphdriver.PrepareRootfs{Container: "c1", Layer: "l1",
		IDMap: driver.IDMap{UIDs: maps, GIDs: maps}, Targets: []driver.Target{{Path: "/proc"}}})
	want(t, root, `
a drwxr-xr-x 100000
a/1 -rw-r--r-- 100000 1 one
proc drwxr-xr-x 100000`)
	if fi, _ := os.Stat(root); fi.Sys().(*syscall.Stat_t).Uid != 100000 {
		t.Errorf("the root is not its root's")
	}
	var b bytes.Buffer
	if err := d.Diff(ctx, "c1", &b); err != nil || names(t, &b) != "" {
		t.Errorf("diff of an untouched root filesystem, %v", err)
	}
	if _, err := d.PrepareRootfs(ctx, graphdriver.PrepareRootfs{Container: "c1", Layer: "l1"}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a copy of mapped owners is given to the host's: %v", err)
	}
}

func TestRestartAndRelease(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	apply(t, d, layer(t, "l1", "", "a=1"))
	r := graphdriver.PrepareRootfs{Container: "c1", Layer: "l1", Targets: []driver.Target{{Path: "/proc"}}}
	at := prepare(t, d, r)
	os.WriteFile(at+"/mine", []byte("m"), 0o600)
	d.Close()
	os.MkdirAll(filepath.Join(root, "work/9/fs/deep"), 0o755) // of a killed process
	d = open(t, root)
	if again := prepare(t, d, r); again != at {
		t.Errorf("at %s, was at %s", again, at)
	}
	want(t, at, "a -rw-r--r-- 0 1 1\nmine -rw------- 0 1 m\nproc drwxr-xr-x 0")
	if err := d.RemoveLayer(ctx, "l1"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removed a layer in use: %v", err)
	}
	if items, _ := d.List(ctx); len(items) != 2 {
		t.Errorf("holds %v", items)
	}
	if err := errors.Join(d.ReleaseRootfs(ctx, "c1"), d.ReleaseRootfs(ctx, "c1"), d.RemoveLayer(ctx, "l1"), d.RemoveLayer(ctx, "l1")); err != nil {
		t.Fatal(err)
	}
	d.store.Wait()
	for _, dir := range []string{"work", "layers", "rootfs"} {
		if left, _ := os.ReadDir(filepath.Join(root, dir)); len(left) != 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
}

func TestFullDiskLeavesNothing(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	d := open(t, root)
	apply(t, d, layer(t, "l1", "", "a="+strings.Repeat("x", 600<<10)))
	if _, err := d.ApplyLayer(ctx, layer(t, "l2", "l1", "b=2"), nil); !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v", err)
	}
	if _, err := d.PrepareRootfs(ctx, graphdriver.PrepareRootfs{Container: "c", Layer: "l1"}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(root, "work")); len(left) != 0 {
		t.Errorf("left in work: %v", left)
	}
	if items, _ := d.List(ctx); len(items) != 1 {
		t.Errorf("holds %v", items)
	}
}
