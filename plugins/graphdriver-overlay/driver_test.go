package overlay

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

func open(t *testing.T, root string) *Driver {
	t.Helper()
	d, err := New(driver.Config{EngineID: "e1", EngineName: "test", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.(io.Closer).Close() }) // a second Close does nothing
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
	return graphdriver.ApplyLayer{ID: id, Parent: parent, Archive: file, Digest: sum, DiffID: sum, MediaType: "application/vnd.oci.image.layer.v1.tar"}
}

func apply(t *testing.T, d *Driver, layers ...graphdriver.ApplyLayer) {
	t.Helper()
	for _, l := range layers {
		if _, err := d.ApplyLayer(ctx, l, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func prepare(t *testing.T, d *Driver, c, top string, targets ...driver.Target) driver.Mount {
	t.Helper()
	m, err := d.PrepareRootfs(ctx, graphdriver.PrepareRootfs{Container: c, Layer: top, Targets: targets})
	if err != nil {
		t.Fatal(err)
	}
	return m[0]
}

func wantListing(t *testing.T, m driver.Mount, want string) {
	t.Helper()
	mounted(t, m, func(root string) error {
		got, err := listing(root)
		if err == nil && got != strings.TrimSpace(want) {
			err = fmt.Errorf("seen\n%s\nwant\n%s", got, strings.TrimSpace(want))
		}
		return err
	})
}

func TestLayersAreSeenMerged(t *testing.T) {
	d := open(t, t.TempDir())
	apply(t, d,
		layer(t, "l1", "", "./:711", "a/", "a/1=one", "a/2=two", "b/:1777", "b/x=x", "c/", "c/y=y", "gone=g", "late=l"),
		layer(t, "l2", "l1", "a/.wh.1", "b/new=n", "c/.wh..wh..opq", "c/z=z", ".wh.gone", "late=again", ".wh.late"))
	m := prepare(t, d, "c1", "l2")
	wantListing(t, m, `
a drwxr-xr-x
a/2 -rw-r--r-- two
b dtrwxrwxrwx
b/new -rw-r--r-- n
b/x -rw-r--r-- x
c drwxr-xr-x
c/z -rw-r--r-- z
late -rw-r--r-- again`)
	mounted(t, m, func(root string) error {
		fi, err := os.Stat(root)
		if err == nil && fi.Mode().Perm() != 0o711 {
			err = fmt.Errorf("root has mode %v", fi.Mode())
		}
		return err
	})
}

func TestOpaqueRootHidesAllBelow(t *testing.T) {
	d := open(t, t.TempDir())
	apply(t, d, layer(t, "l1", "", "a=1"), layer(t, "l2", "l1", "b=2", ".wh..wh..opq"), layer(t, "l3", "l2", "c=3"))
	wantListing(t, prepare(t, d, "c1", "l3"), "b -rw-r--r-- 2\nc -rw-r--r-- 3")
	if err := d.RemoveLayer(ctx, "l1"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removed a layer that another stands on: %v", err)
	}
}

func TestSkeletonIsBelowEverything(t *testing.T) {
	d := open(t, t.TempDir())
	apply(t, d, layer(t, "l1", "", "etc/:700", "etc/hosts=image"))
	m := prepare(t, d, "c1", "l1", driver.Target{Path: "/proc"}, driver.Target{Path: "/etc/hosts", File: true},
		driver.Target{Path: "/etc/resolv.conf", File: true}, driver.Target{Path: "/a/b"})
	wantListing(t, m, `
a drwxr-xr-x
a/b drwxr-xr-x
etc drwx------
etc/hosts -rw-r--r-- image
etc/resolv.conf -rw-r--r-- 
proc drwxr-xr-x`)
	mounted(t, m, func(root string) error {
		return errors.Join(os.Remove(root+"/proc"), os.Remove(root+"/etc/hosts"), os.WriteFile(root+"/new", []byte("n"), 0o640))
	})
	var b bytes.Buffer
	if err := d.Diff(ctx, "c1", &b); err != nil {
		t.Fatal(err)
	}
	if got := names(t, &b); got != "etc/ etc/.wh.hosts new" {
		t.Errorf("diff holds %s", got)
	}
	again := prepare(t, d, "c1", "l1", driver.Target{Path: "/proc"}, driver.Target{Path: "/etc/hosts", File: true},
		driver.Target{Path: "/etc/resolv.conf", File: true}, driver.Target{Path: "/a/b"})
	if fmt.Sprint(again) != fmt.Sprint(m) {
		t.Errorf("other mounts when repeated:\n%v\n%v", again, m)
	}
}

func TestTargetsThatTheImageDeleted(t *testing.T) {
	d := open(t, t.TempDir())
	apply(t, d,
		layer(t, "l1", "", "mnt/", "mnt/old=x", "srv/:710", "srv/in/", "opt/", "opt/o=o", "keep/", "was=file"),
		layer(t, "l2", "l1", ".wh.mnt", "srv/.wh.in", "opt/.wh..wh..opq", ".wh.was"))
	targets := []driver.Target{{Path: "/mnt/vol/deep"}, {Path: "/srv/in", File: true}, {Path: "/opt/new"}, {Path: "/keep/k"}, {Path: "/was"}, {Path: "/proc"}}
	m := prepare(t, d, "c1", "l2", targets...)
	want := `
keep drwxr-xr-x
keep/k drwxr-xr-x
mnt drwxr-xr-x
mnt/vol drwxr-xr-x
mnt/vol/deep drwxr-xr-x
opt drwxr-xr-x
opt/new drwxr-xr-x
proc drwxr-xr-x
srv drwx--x---
srv/in -rw-r--r-- 
was drwxr-xr-x`
	wantListing(t, m, want)
	var b bytes.Buffer
	if err := d.Diff(ctx, "c1", &b); err != nil {
		t.Fatal(err)
	}
	if got := names(t, &b); got != "" {
		t.Errorf("diff of an untouched root filesystem holds %s", got)
	}
	mounted(t, m, func(root string) error { return os.WriteFile(root+"/mnt/vol/mine", nil, 0o600) })
	b.Reset()
	if err := d.Diff(ctx, "c1", &b); err != nil {
		t.Fatal(err)
	}
	if got := names(t, &b); got != "mnt/ mnt/vol/ mnt/vol/mine" {
		t.Errorf("diff holds %s", got)
	}
	if again := prepare(t, d, "c1", "l2", targets...); fmt.Sprint(again) != fmt.Sprint(m) {
		t.Errorf("other mounts when repeated")
	}
}

// A directory on the way to such a target lies in the upper directory, which nobody
// maps: its owner is who the image's is on the host.
func TestDeletedTargetsOfAMappedContainer(t *testing.T) {
	d := open(t, t.TempDir())
	apply(t, d, layer(t, "l1", "", "srv/:2710", "srv/in/"), layer(t, "l2", "l1", "srv/.wh.in"))
	ids := []driver.IDMapping{{Container: 0, Host: 100000, Size: 65536}}
	_, err := d.PrepareRootfs(ctx, graphdriver.PrepareRootfs{
		Container: "c1", Layer: "l2", Targets: []driver.Target{{Path: "/srv/in/new"}}, IDMap: driver.IDMap{UIDs: ids, GIDs: ids},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]uint32{"": 0o755, "srv": 0o2710, "srv/in": 0o755, "srv/in/new": 0o755} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(d.store.RootfsDir("c1"), "upper", path), &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != 100000 || st.Gid != 100000 || st.Mode&0o7777 != mode {
			t.Errorf("/%s belongs to %d:%d and has mode %o", path, st.Uid, st.Gid, st.Mode&0o7777)
		}
	}
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

func TestEmptyRoot(t *testing.T) {
	d := open(t, t.TempDir())
	wantListing(t, prepare(t, d, "c1", ""), "")
	wantListing(t, prepare(t, d, "c2", "", driver.Target{Path: "/x"}), "x drwxr-xr-x")
}

func TestChainOf127Layers(t *testing.T) {
	d := open(t, t.TempDir())
	parent, want := "", []string{}
	for i := range 127 {
		id := fmt.Sprintf("layer-%03d", i)
		apply(t, d, layer(t, id, parent, fmt.Sprintf("f%03d=%d", i, i)))
		parent = id
		want = append(want, fmt.Sprintf("f%03d -rw-r--r-- %d", i, i))
	}
	wantListing(t, prepare(t, d, "c1", parent, driver.Target{Path: "/proc"}), strings.Join(want, "\n")+"\nproc drwxr-xr-x")
}

func TestDiffIsALayerAgain(t *testing.T) {
	d := open(t, t.TempDir())
	apply(t, d, layer(t, "l1", "", "a/", "a/1=one", "a/2=two", "b/", "b/x=x", "keep=k"))
	m := prepare(t, d, "c1", "l1")
	var before string
	mounted(t, m, func(root string) error {
		err := errors.Join(os.Remove(root+"/a/1"), os.RemoveAll(root+"/b"), os.Mkdir(root+"/b", 0o755), os.WriteFile(root+"/b/y", []byte("y"), 0o4711),
			os.Chmod(root+"/b/y", 0o755|os.ModeSetuid), os.Link(root+"/b/y", root+"/b/z"), os.Symlink("/etc", root+"/s"), unix.Setxattr(root+"/b/y", "user.k", []byte("v"), 0),
			unix.Mkfifo(root+"/fifo", 0o600))
		if err != nil {
			return err
		}
		before, err = listing(root)
		return err
	})
	var b bytes.Buffer
	if err := d.Diff(ctx, "c1", &b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "diff.tar")
	os.WriteFile(file, b.Bytes(), 0o600)
	if _, err := d.ApplyLayer(ctx, graphdriver.ApplyLayer{ID: "l2", Parent: "l1", Archive: file}, nil); err != nil {
		t.Fatal(err)
	}
	wantListing(t, prepare(t, d, "c2", "l2"), before)
	mounted(t, prepare(t, d, "c2", "l2"), func(root string) error {
		if v, err := xattr(root+"/b/z", "user.k"); err != nil || v != "v" {
			return fmt.Errorf("attribute %q, %w", v, err)
		}
		return nil
	})
}

func xattr(path, name string) (string, error) {
	buf := make([]byte, 100)
	n, err := unix.Lgetxattr(path, name, buf)
	return string(buf[:max(n, 0)]), err
}

func TestRestartFindsAllAndRemovesLeftovers(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	apply(t, d, layer(t, "l1", "", "a=1"))
	m := prepare(t, d, "c1", "l1", driver.Target{Path: "/proc"})
	os.WriteFile(filepath.Join(root, "rootfs/c1/upper/mine"), []byte("m"), 0o600)
	d.Close()
	// What a killed ApplyLayer and ReleaseRootfs leave.
	os.MkdirAll(filepath.Join(root, "work/77/fs/deep"), 0o755)
	os.WriteFile(filepath.Join(root, "work/77/fs/deep/f"), nil, 0o000)
	d = open(t, root)
	d.store.Wait()
	if left, _ := os.ReadDir(filepath.Join(root, "work")); len(left) != 0 {
		t.Errorf("left in work: %v", left)
	}
	items, _ := d.List(ctx)
	if len(items) != 2 || items[0].Key != "l1" || items[1].Key != "c1" {
		t.Errorf("holds %v", items)
	}
	if again := prepare(t, d, "c1", "l1", driver.Target{Path: "/proc"}); fmt.Sprint(again) != fmt.Sprint(m) {
		t.Errorf("other mounts after a restart")
	}
	wantListing(t, m, "a -rw-r--r-- 1\nmine -rw------- m\nproc drwxr-xr-x")
	if err := d.ReleaseRootfs(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.ReleaseRootfs(ctx, "c1"), d.RemoveLayer(ctx, "l1"), d.RemoveLayer(ctx, "l1")); err != nil {
		t.Fatal(err)
	}
	d.store.Wait()
	d.Close() // what was made ahead goes too
	for _, dir := range []string{"work", "layers", "rootfs"} {
		if left, _ := os.ReadDir(filepath.Join(root, dir)); len(left) != 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
}

func TestLostJSONKeepsWhatWasWritten(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	apply(t, d, layer(t, "l1", "", "a=1"))
	prepare(t, d, "c1", "l1")
	os.WriteFile(filepath.Join(root, "rootfs/c1/upper/mine"), []byte("m"), 0o600)
	os.Truncate(filepath.Join(root, "rootfs/c1/rootfs.json"), 0)
	d.Close()
	d = open(t, root)
	if items, _ := d.List(ctx); len(items) != 2 || items[1].Key != "c1" {
		t.Errorf("holds %v", items)
	}
	wantListing(t, prepare(t, d, "c1", "l1"), "a -rw-r--r-- 1\nmine -rw------- m")
	if err := d.RemoveLayer(ctx, "l1"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v", err)
	}
}

func TestFullDiskLeavesNothing(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	d := open(t, root)
	big := layer(t, "big", "", "a=1", "dir/", "dir/b="+strings.Repeat("x", 2<<20))
	if _, err := d.ApplyLayer(ctx, big, nil); !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(root, "work")); len(left) != 0 {
		t.Errorf("left in work: %v", left)
	}
	if items, _ := d.List(ctx); len(items) != 0 {
		t.Errorf("holds %v", items)
	}
	apply(t, d, layer(t, "small", "", "a=1"))
}

func TestRefusals(t *testing.T) {
	d := open(t, t.TempDir())
	apply(t, d, layer(t, "l1", "", "a=1"))
	bad := layer(t, "l2", "l1", "b=2")
	bad.Digest = "sha256:" + strings.Repeat("0", 64)
	absent := layer(t, "l2", "l1", "b=2")
	absent.Archive += ".not"
	for name, c := range map[string]struct {
		do   func() error
		want func(error) bool
	}{
		"parent":  {func() error { _, err := d.ApplyLayer(ctx, layer(t, "l2", "no", "b=2"), nil); return err }, errdefs.IsNotFound},
		"digest":  {func() error { _, err := d.ApplyLayer(ctx, bad, nil); return err }, errdefs.IsDataLoss},
		"archive": {func() error { _, err := d.ApplyLayer(ctx, absent, nil); return err }, errdefs.IsNotFound},
		"hostile": {func() error { _, err := d.ApplyLayer(ctx, layer(t, "l2", "l1", "../b=2"), nil); return err }, errdefs.IsInvalidArgument},
		"layer": {func() error {
			_, err := d.PrepareRootfs(ctx, graphdriver.PrepareRootfs{Container: "c", Layer: "no"})
			return err
		}, errdefs.IsNotFound},
		"diff": {func() error { return d.Diff(ctx, "no", io.Discard) }, errdefs.IsNotFound},
		"target": {func() error {
			_, err := d.PrepareRootfs(ctx, graphdriver.PrepareRootfs{Container: "c", Layer: "l1", Targets: []driver.Target{{Path: "/a/../../x"}}})
			return err
		}, errdefs.IsInvalidArgument},
		"its work": {func() error { left, _ := os.ReadDir(d.root + "/work"); return fmt.Errorf("%d left", len(left)) }, func(err error) bool { return err.Error() == "0 left" }},
	} {
		if err := c.do(); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
