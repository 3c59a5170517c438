package layertar

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

var testTime = time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)

// ent is one entry of a test tar.
type ent struct {
	tar.Header
	body string
}

func dirEnt(name string, mode int64) ent {
	return ent{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
}
func fileEnt(name, body string) ent {
	return ent{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body: body}
}
func linkEnt(name, to string) ent {
	return ent{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}}
}
func symEnt(name, to string) ent {
	return ent{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}}
}

// makeTar writes entries; unlike tar programs it writes any name.
func makeTar(t testing.TB, entries ...ent) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.body))
		if h.ModTime.IsZero() {
			h.ModTime = testTime
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openDir(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func unpackInto(t testing.TB, dir string, o Options, entries ...ent) (Result, error) {
	t.Helper()
	return Unpack(context.Background(), openDir(t, dir), bytes.NewReader(makeTar(t, entries...)), o)
}

// tree describes everything below dir, one line each.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		st := fi.Sys().(*unixStat)
		rel, _ := filepath.Rel(dir, path)
		line := fmt.Sprintf("%s %v %d:%d", rel, fi.Mode(), st.Uid, st.Gid)
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(b)
		}
		if fi.Mode()&os.ModeSymlink != 0 {
			to, _ := os.Readlink(path)
			line += " -> " + to
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUnpackKeepsWhatTheTarSays(t *testing.T) {
	dir := t.TempDir()
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	ping := fileEnt("bin/ping", "elf")
	ping.Mode, ping.Uid, ping.Gid = 0o4755, 7, 8
	ping.PAXRecords = map[string]string{xattrRecord + capability: caps, xattrRecord + "user.note": "hi", xattrRecord + "trusted.overlay.redirect": "/etc"}
	res, err := unpackInto(t, dir, Options{},
		dirEnt("./", 0o711), dirEnt("bin/", 0o1777), ping, symEnt("/sh", "bin/ping"), linkEnt("bin/pong", "bin/ping"),
		ent{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
		ent{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}},
		fileEnt("deep/er/file", "x"))
	if err != nil {
		t.Fatal(err)
	}
	if res.Size != 4 || res.Entries != 8 || res.DroppedCount != 1 || res.Dropped[0].Xattr != "trusted.overlay.redirect" {
		t.Errorf("result %+v", res)
	}
	want := []string{". drwx--x--x 0:0", "bin dtrwxrwxrwx 0:0", "bin/ping urwxr-xr-x 7:8 elf", "bin/pong urwxr-xr-x 7:8 elf",
		"deep drwxr-xr-x 0:0", "deep/er drwxr-xr-x 0:0", "deep/er/file -rw-r--r-- 0:0 x", "fifo prw------- 0:0",
		"null Dcrw-rw-rw- 0:0", "sh Lrwxrwxrwx 0:0 -> bin/ping"}
	if got := tree(t, dir); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	buf := make([]byte, 64)
	if n, err := unix.Getxattr(dir+"/bin/pong", capability, buf); err != nil || string(buf[:n]) != caps {
		t.Errorf("capability %q, %v", buf[:max(n, 0)], err)
	}
	for _, name := range []string{".", "bin", "bin/ping", "sh", "null"} {
		if fi, err := os.Lstat(filepath.Join(dir, name)); err != nil || !fi.ModTime().Equal(testTime) {
			t.Errorf("%s: time %v, %v", name, fi.ModTime(), err)
		}
	}
}

func TestUnpackCompressionsAndDigests(t *testing.T) {
	plain := makeTar(t, fileEnt("a", strings.Repeat("hello", 100_000)))
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(plain)
	w.Close()
	enc, _ := zstd.NewWriter(nil)
	for name, blob := range map[string][]byte{"plain": plain, "gzip": gz.Bytes(), "zstd": enc.EncodeAll(plain, nil)} {
		t.Run(name, func(t *testing.T) {
			o := Options{Digest: digestOf(blob), DiffID: digestOf(plain)}
			run := func(b []byte, o Options) error {
				res, err := Unpack(context.Background(), openDir(t, t.TempDir()), bytes.NewReader(b), o)
				if err == nil && (res.Digest != digestOf(blob) || res.DiffID != digestOf(plain)) {
					t.Errorf("digests %s %s", res.Digest, res.DiffID)
				}
				return err
			}
			if err := run(blob, o); err != nil {
				t.Fatal(err)
			}
			if err := run(blob, Options{}); err != nil {
				t.Fatal(err)
			}
			for _, n := range []int{0, 1, 5, len(blob) / 2, len(blob) - 1} {
				if err := run(blob[:n], o); !errdefs.IsDataLoss(err) {
					t.Errorf("cut to %d of %d bytes: %v", n, len(blob), err)
				}
			}
			for _, n := range []int{0, len(blob) / 3, len(blob) - 1} {
				bad := bytes.Clone(blob)
				bad[n] ^= 0x40
				if err := run(bad, o); !errdefs.IsDataLoss(err) {
					t.Errorf("byte %d flipped: %v", n, err)
				}
			}
			if err := run(blob, Options{DiffID: digestOf(nil)}); !errdefs.IsDataLoss(err) {
				t.Errorf("wrong DiffID: %v", err)
			}
			if err := run(append(bytes.Clone(blob), 0), o); !errdefs.IsDataLoss(err) {
				t.Errorf("one byte more: %v", err)
			}
		})
	}
}

func TestUnpackIDMap(t *testing.T) {
	dir := t.TempDir()
	m := driver.IDMap{UIDs: []driver.IDMapping{{Container: 0, Host: 100000, Size: 1000}}, GIDs: []driver.IDMapping{{Container: 0, Host: 200000, Size: 1000}}}
	f := fileEnt("a/f", "x")
	f.Uid, f.Gid = 5, 6
	f.PAXRecords = map[string]string{xattrRecord + capability: "\x01\x00\x00\x02" + strings.Repeat("\x00", 16)}
	if _, err := unpackInto(t, dir, Options{IDMap: m}, f); err != nil {
		t.Fatal(err)
	}
	want := ". drwxr-xr-x 100000:200000\na drwxr-xr-x 100000:200000\na/f -rw-r--r-- 100005:200006 x"
	if got := strings.Join(tree(t, dir), "\n"); got != want {
		t.Errorf("got\n%s", got)
	}
	value, err := getXattr(dir+"/a/f", capability)
	if err != nil || len(value) != 24 || value[3] != 3 || value[20] != 0xa0 || value[21] != 0x86 {
		t.Errorf("capability %x, %v", value, err)
	}
	f.Uid = 1000
	if _, err := unpackInto(t, t.TempDir(), Options{IDMap: m}, f); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unmapped user: %v", err)
	}
}

func TestUnpackCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	blob := makeTar(t, fileEnt("a", strings.Repeat("x", 8<<20)))
	o := Options{Progress: func(done, total int64, what string) { cancel() }}
	_, err := Unpack(ctx, openDir(t, t.TempDir()), bytes.NewReader(blob), o)
	if err == nil || ctx.Err() == nil {
		t.Errorf("got %v", err)
	}
}

func TestUnpackDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	_, err := unpackInto(t, dir, Options{}, fileEnt("a", strings.Repeat("x", 2<<20)))
	if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("got %v", err)
	}
}

// TestWhiteoutOfALongName: a whiteout's name is longer than that of what it hides, which
// may be as long as a name can be.
func TestWhiteoutOfALongName(t *testing.T) {
	longest := "d/" + strings.Repeat("n", maxComponentBytes)
	hide := fileEnt("d/.wh."+longest[len("d/"):], "")
	lower, upper, applied := t.TempDir(), t.TempDir(), t.TempDir()
	for _, dir := range []string{lower, applied} {
		if _, err := unpackInto(t, dir, Options{}, fileEnt(longest, "x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := unpackInto(t, applied, Options{Whiteouts: Apply}, hide); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(applied + "/" + longest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("applied it is there: %v", err)
	}
	res, err := unpackInto(t, upper, Options{Lowers: []*os.File{openDir(t, lower)}}, hide)
	if err != nil || !res.Hides {
		t.Fatalf("%+v, %v", res, err)
	}
	var diff bytes.Buffer
	if err := WriteOverlayDiff(context.Background(), &diff, openDir(t, upper), DiffOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Unpack(context.Background(), openDir(t, t.TempDir()), &diff, Options{Lowers: []*os.File{openDir(t, lower)}}); err != nil {
		t.Errorf("a diff cannot be unpacked: %v", err)
	}
}
