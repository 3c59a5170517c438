package layertar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// hostile is what a stranger may try. An empty refusal: the layer is taken,
// and stays inside.
var hostile = []struct {
	name    string
	entries []ent
	refusal string // part of the error; it names the entry too
}{
	{"dotdot", []ent{fileEnt("../outside/victim", "x")}, `".."`},
	{"dotdot inside", []ent{fileEnt("a/../../outside/victim", "x")}, `".."`},
	{"dotdot alone", []ent{dirEnt("..", 0o777)}, `".."`},
	{"dotdot at the end", []ent{dirEnt("a/..", 0o777)}, `".."`},
	{"absolute", []ent{fileEnt("/OUTSIDE/victim", "x")}, ""},
	{"through an absolute symlink", []ent{symEnt("l", "/OUTSIDE"), fileEnt("l/victim", "x")}, "goes through"},
	{"through a relative symlink", []ent{symEnt("l", "../outside"), fileEnt("l/victim", "x")}, "goes through"},
	{"through a chain of symlinks", []ent{symEnt("a", "b"), symEnt("b", "../outside"), fileEnt("a/victim", "x")}, "goes through"},
	{"deep through a symlink", []ent{symEnt("l", "../outside"), fileEnt("l/sub/new", "x")}, "goes through"},
	{"symlink to the root and back", []ent{symEnt("l", "/"), dirEnt("l/OUTSIDE", 0o777)}, "goes through"},
	{"directory over a symlink", []ent{symEnt("l", "../outside"), dirEnt("l", 0o777), fileEnt("l/victim", "x")}, ""},
	{"file over a symlink", []ent{symEnt("l", "../outside/victim"), fileEnt("l", "x")}, ""},
	{"node over a symlink", []ent{symEnt("l", "../outside/victim"), {Header: tar.Header{Typeflag: tar.TypeFifo, Name: "l", Mode: 0o777}}}, ""},
	{"symlink over a directory", []ent{dirEnt("l", 0o755), fileEnt("l/f", "x"), symEnt("l", "../outside"), fileEnt("l/victim", "x")}, "goes through"},
	{"hard link outside", []ent{linkEnt("h", "../outside/victim")}, `".."`},
	{"hard link to an absolute name", []ent{linkEnt("h", "/OUTSIDE/victim")}, "not in the layer"},
	{"hard link through a symlink", []ent{symEnt("l", "../outside"), linkEnt("h", "l/victim")}, "not in the layer"},
	{"hard link to a symlink, then written", []ent{symEnt("l", "../outside/victim"), linkEnt("h", "l"), fileEnt("h", "x")}, ""},
	{"hard link to a directory", []ent{dirEnt("d", 0o755), linkEnt("h", "d")}, "a directory"},
	{"hard link to itself", []ent{fileEnt("h", "x"), linkEnt("./h", "h")}, "itself"},
	{"hard link to its own inside", []ent{fileEnt("d/f", "x"), linkEnt("d", "d/f")}, "replaces"},
	{"hard link to the root", []ent{linkEnt("h", "/")}, "the root"},
	{"hard link to nothing", []ent{linkEnt("h", "nothing")}, "not in the layer"},
	{"whiteout of dotdot", []ent{fileEnt(".wh...", "")}, `whiteout of ".."`},
	{"whiteout of dot", []ent{fileEnt("d/.wh..", "")}, `whiteout of "."`},
	{"whiteout of nothing", []ent{fileEnt(".wh.", "")}, `whiteout of ""`},
	{"whiteout outside", []ent{fileEnt("../outside/.wh.victim", "")}, `".."`},
	{"whiteout through a symlink", []ent{symEnt("l", "../outside"), fileEnt("l/.wh.victim", "")}, "goes through"},
	{"opaque through a symlink", []ent{symEnt("l", "../outside"), fileEnt("l/.wh..wh..opq", "")}, "goes through"},
	{"below a whiteout", []ent{fileEnt(".wh.d/f", "x")}, "below a whiteout"},
	{"aufs bookkeeping", []ent{dirEnt(".wh..wh.plnk/", 0o777), fileEnt(".wh..wh.plnk/1.2", "x"), fileEnt(".wh..wh.aufs", "")}, ""},
	{"whiteout device", []ent{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "dev"}}}, "whiteout"},
	{"hard link to a whiteout", []ent{fileEnt(".wh.x", ""), linkEnt("y", "x")}, "not in the layer"},
	{"device number too large", []ent{{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "dev", Devmajor: 1 << 20}}}, "device"},
	{"root as a file", []ent{fileEnt(".", "")}, "the root is no directory"},
	{"root as a symlink", []ent{symEnt(".", "../outside")}, "the root is no directory"},
	{"huge component", []ent{fileEnt(strings.Repeat("n", 256), "x")}, "component of 256 bytes"},
	{"huge name", []ent{fileEnt(strings.Repeat("n/", 2100)+"f", "x")}, "name of 4201 bytes"},
	{"deep name", []ent{fileEnt(strings.Repeat("n/", 600)+"f", "x")}, "directories deep"},
	{"unknown type", []ent{{Header: tar.Header{Typeflag: 'Z', Name: "z"}}}, "type"},
	{"huge owner", []ent{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "o", Uid: 1 << 40}}}, "id"},
	{"symlink to nothing", []ent{symEnt("l", "")}, "symlink"},
	{"redirect", []ent{{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d", PAXRecords: map[string]string{xattrRecord + "trusted.overlay.redirect": "/etc", xattrRecord + "user.overlay.opaque": "y"}}}}, ""},
	{"huge attribute", []ent{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "f", PAXRecords: map[string]string{xattrRecord + "user.x": strings.Repeat("x", 70_000)}}}}, "attribute"},
	{"strange attribute", []ent{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "f", PAXRecords: map[string]string{xattrRecord + "nonsense": "x"}}}}, ""},
	{"setuid across a change of owner", []ent{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "s", Mode: 0o6755, Uid: 5, Gid: 5}}}, ""},
}

// TestHostileLayersStayInside proves for each that nothing outside changed,
// and that what is taken means the same in both forms.
func TestHostileLayersStayInside(t *testing.T) {
	for _, c := range hostile {
		for how, o := range map[string]Options{"overlay": {Whiteouts: Overlay}, "apply": {Whiteouts: Apply}} {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				top := t.TempDir()
				outside, root := top+"/outside", top+"/root"
				for _, dir := range []string{outside, root} {
					if err := os.Mkdir(dir, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(outside+"/victim", []byte("precious"), 0o600); err != nil {
					t.Fatal(err)
				}
				before := snapshot(t, outside, top)
				_, err := unpackInto(t, root, o, placed(c.entries, outside)...)
				if after := snapshot(t, outside, top); after != before {
					t.Errorf("outside was\n%s\nis\n%s", before, after)
				}
				switch {
				case c.refusal == "" && err != nil:
					t.Errorf("refused: %v", err)
				case c.refusal != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.refusal)):
					t.Errorf("got %v, want a refusal with %q", err, c.refusal)
				case c.refusal != "" && !strings.Contains(err.Error(), "layer entry"):
					t.Errorf("no entry is named: %v", err)
				}
				noPrivate(t, root)
			})
		}
	}
}

// placed puts the real path of the outside directory into names and links.
func placed(entries []ent, outside string) []ent {
	out := make([]ent, len(entries))
	for i, e := range entries {
		e.Name = strings.ReplaceAll(e.Name, "/OUTSIDE", outside)
		e.Linkname = strings.ReplaceAll(e.Linkname, "/OUTSIDE", outside)
		out[i] = e
	}
	return out
}

// snapshot describes the outside directory down to inodes and change times,
// and what lies beside it.
func snapshot(t *testing.T, outside, top string) string {
	t.Helper()
	var b strings.Builder
	names, err := os.ReadDir(top)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		fmt.Fprintf(&b, "beside: %s\n", n.Name())
	}
	err = filepath.Walk(outside, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		st := fi.Sys().(*unixStat)
		fmt.Fprintf(&b, "%s %d %o %d %d %d %v\n", path, st.Ino, st.Mode, st.Nlink, st.Uid, st.Size, st.Ctim)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// noPrivate checks that nothing below root bears an attribute of overlayfs but
// the marks that Unpack itself makes.
func noPrivate(t *testing.T, root string) {
	t.Helper()
	err := filepath.Walk(root, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		buf := make([]byte, 100_000)
		n, err := unix.Llistxattr(path, buf)
		if err != nil {
			return nil
		}
		for _, x := range strings.Split(string(buf[:n]), "\x00") {
			if isPrivate(x) && x != opaqueXattr {
				t.Errorf("%s has %s", path, x)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUnpackThroughLinksOfLowerLayers(t *testing.T) {
	top := t.TempDir()
	outside, root := top+"/outside", top+"/root"
	for _, dir := range []string{outside, root} {
		os.Mkdir(dir, 0o755)
	}
	os.WriteFile(outside+"/victim", []byte("precious"), 0o600)
	if _, err := unpackInto(t, root, Options{Whiteouts: Apply}, symEnt("l", outside), symEnt("m", outside)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, outside, top)
	_, err := unpackInto(t, root, Options{Whiteouts: Apply}, fileEnt("l/victim", "x"), fileEnt("m/.wh.victim", ""), fileEnt("m/.wh..wh..opq", ""))
	if err != nil {
		t.Fatal(err)
	}
	if after := snapshot(t, outside, top); after != before {
		t.Errorf("outside was\n%s\nis\n%s", before, after)
	}
	if fi, err := os.Lstat(root + "/l"); err != nil || !fi.IsDir() {
		t.Errorf("the upper layer's directory does not hide the lower one's link: %v", err)
	}
}

func TestSparseFiles(t *testing.T) {
	// As GNU tar --format=posix --sparse writes it, version 1.0.
	body := "1\n1048576\n4\n" + strings.Repeat("\x00", 512-12) + "data"
	mk := func(size string) []byte {
		e := ent{Header: tar.Header{Typeflag: tar.TypeReg, Name: "GNUSparseFile.1/f", Mode: 0o644, Format: tar.FormatPAX}, body: body}
		b := makeTar(t, e)
		return insertPAX(t, b, map[string]string{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f", "GNU.sparse.realsize": size})
	}
	dir := t.TempDir()
	if _, err := Unpack(context.Background(), openDir(t, dir), bytes.NewReader(mk("10000000")), Options{}); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(dir + "/f")
	if err != nil || fi.Size() != 10_000_000 || fi.Sys().(*unixStat).Blocks > 600 {
		t.Errorf("%v, %+v", err, fi.Sys())
	}
	got, _ := os.ReadFile(dir + "/f")
	if string(got[1<<20:1<<20+4]) != "data" || len(bytes.Trim(got, "\x00")) != 4 {
		t.Errorf("the data is elsewhere")
	}
	_, err = Unpack(context.Background(), openDir(t, t.TempDir()), bytes.NewReader(mk("9000000000000000000")), Options{})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("8 exbibytes: %v", err)
	}
}

// insertPAX puts a PAX header before a tar, since archive/tar writes no sparse
// records.
func insertPAX(t *testing.T, b []byte, records map[string]string) []byte {
	t.Helper()
	var data strings.Builder
	for k, v := range records {
		n := len(k) + len(v) + 3
		for n != len(k)+len(v)+3+len(fmt.Sprint(n))-0 {
			n = len(k) + len(v) + 3 + len(fmt.Sprint(n))
		}
		fmt.Fprintf(&data, "%d %s=%s\n", n, k, v)
	}
	x := makeTar(t, ent{Header: tar.Header{Typeflag: tar.TypeReg, Name: "PaxHeaders/f"}, body: data.String()})
	x[156] = 'x'
	copy(x[148:156], "        ")
	sum := 0
	for _, c := range x[:512] {
		sum += int(c)
	}
	copy(x[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return append(x[:512+(data.Len()+511)/512*512], b...)
}

func FuzzUnpack(f *testing.F) {
	for _, c := range hostile {
		if len(c.name) < 40 {
			entries := placed(c.entries, "/tmp/outside")
			f.Add(makeTar(f, entries...))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		for _, o := range []Options{{Whiteouts: Overlay}, {Whiteouts: Apply}} {
			top := t.TempDir()
			outside, root := top+"/outside", top+"/root"
			os.Mkdir(outside, 0o755)
			os.Mkdir(root, 0o755)
			os.WriteFile(outside+"/victim", []byte("precious"), 0o600)
			before := snapshot(t, outside, top)
			// A small disk: a sparse file may ask for much.
			_, _ = Unpack(context.Background(), openDir(t, root), bytes.NewReader(b), o)
			if after := snapshot(t, outside, top); after != before {
				t.Fatalf("outside was\n%s\nis\n%s", before, after)
			}
			if err := RemoveTree(context.Background(), openDir(t, top), "root"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestNothingButFilesIsOpened: what has come in a file's place between the look and
// the opening is not opened.
func TestNothingButFilesIsOpened(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/f", 0o600); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir+"/f", unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	at, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	if f, err := openFile(int(at.Fd()), "f"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%v %v", f, err)
	}
	buf := make([]byte, 4096)
	if n, err := unix.Read(watch, buf); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a FIFO was opened: %d bytes of events, %v", n, err)
	}
}
