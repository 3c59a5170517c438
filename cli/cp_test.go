package cli

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type packed struct {
	tar.Header
	content string
}

func archive(t *testing.T, entries ...packed) io.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.content))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func dir(name string) packed { return packed{Header: tar.Header{Name: name, Typeflag: tar.TypeDir}} }

func file(name, content string) packed {
	return packed{Header: tar.Header{Name: name, Typeflag: tar.TypeReg}, content: content}
}

func link(kind byte, name, to string) packed {
	return packed{Header: tar.Header{Name: name, Typeflag: kind, Linkname: to}}
}

// TestUnpackHostile: whatever a container packs, nothing outside the destination
// is written, read or linked to.
func TestUnpackHostile(t *testing.T) {
	for name, entries := range map[string][]packed{
		"a name that goes up":          {dir("d"), file("d/../../secret", "bad")},
		"an absolute name":             {dir("d"), file("/etc/secret", "bad")},
		"another first directory":      {dir("d"), file("e/secret", "bad")},
		"a name that begins alike":     {dir("d"), file("dd", "bad")},
		"through a link":               {dir("d"), link(tar.TypeSymlink, "d/out", "../.."), file("d/out/secret", "bad")},
		"through an absolute link":     {dir("d"), link(tar.TypeSymlink, "d/out", "OUTSIDE"), file("d/out/secret", "bad")},
		"into a directory over a link": {dir("d"), link(tar.TypeSymlink, "d/out", "OUTSIDE"), dir("d/out"), file("d/out/secret", "bad")},
		"a hard link to what is outside": {
			dir("d"), link(tar.TypeLink, "d/hard", "d/../../secret"), file("d/hard", "bad"),
		},
		"a hard link through a link": {
			dir("d"), link(tar.TypeSymlink, "d/out", "OUTSIDE"), link(tar.TypeLink, "d/hard", "d/out/secret"), file("d/hard", "bad"),
		},
		"a device through a link": {
			dir("d"), link(tar.TypeSymlink, "d/out", "OUTSIDE"), packed{Header: tar.Header{Name: "d/out/null", Typeflag: tar.TypeFifo}},
		},
		"a file over a link": {dir("d"), link(tar.TypeSymlink, "d/secret", "OUTSIDE/secret"), file("d/secret", "good")},
	} {
		outside := t.TempDir()
		target := filepath.Join(outside, "target")
		secret := filepath.Join(outside, "secret")
		if err := os.Mkdir(target, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(secret, []byte("untouched"), 0o600); err != nil {
			t.Fatal(err)
		}
		for i := range entries {
			entries[i].Linkname = strings.Replace(entries[i].Linkname, "OUTSIDE", outside, 1)
		}
		err := unpack(target, archive(t, entries...), "d", true)
		if name != "a file over a link" && err == nil {
			t.Errorf("%s: it is taken", name)
		}
		if data, err := os.ReadFile(secret); err != nil || string(data) != "untouched" {
			t.Errorf("%s: what is outside became %q (%v)", name, data, err)
		}
		if names, err := os.ReadDir(outside); err != nil || len(names) != 2 {
			t.Errorf("%s: outside there are now %v (%v)", name, names, err)
		}
	}
}

// TestUnpackRoom: files give way to files, directories to nothing.
func TestUnpackRoom(t *testing.T) {
	target := t.TempDir()
	if err := unpack(target, archive(t, dir("x"), file("x/f", "one"), dir("x/d")), "x", false); err != nil {
		t.Fatal(err)
	}
	if err := unpack(target, archive(t, dir("x"), file("x/f", "two")), "x", false); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(target, "x/f")); string(data) != "two" {
		t.Errorf("%q, %v", data, err)
	}
	if err := unpack(target, archive(t, dir("x"), file("x/d", "bad")), "x", false); err == nil || !strings.Contains(err.Error(), "cannot overwrite a directory with a file") {
		t.Error(err)
	}
	if err := unpack(target, archive(t, dir("x"), dir("x/f")), "x", false); err == nil || !strings.Contains(err.Error(), "cannot overwrite a file with a directory") {
		t.Error(err)
	}
}

// TestPackUnpack: what is packed comes out as it was.
func TestPackUnpack(t *testing.T) {
	root := t.TempDir()
	source := filepath.Join(root, "source")
	when := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(source, "sub"), 0o755))
	must(os.WriteFile(filepath.Join(source, "sub/f"), []byte("content"), 0o600))
	must(os.Chmod(filepath.Join(source, "sub/f"), 0o754|os.ModeSetuid))
	must(os.Link(filepath.Join(source, "sub/f"), filepath.Join(source, "sub/hard")))
	must(os.Symlink("/nowhere", filepath.Join(source, "soft")))
	must(unix.Mkfifo(filepath.Join(source, "pipe"), 0o600))
	must(os.Lchown(filepath.Join(source, "soft"), 11, 12))
	must(os.Chown(filepath.Join(source, "sub/f"), 13, 14))
	must(os.Chmod(filepath.Join(source, "sub/f"), 0o754|os.ModeSetuid)) // the owner's change took it away
	must(os.Chtimes(filepath.Join(source, "sub/f"), when, when))
	must(os.Chtimes(filepath.Join(source, "sub"), when, when))
	target := filepath.Join(root, "target")
	must(os.Mkdir(target, 0o755))
	var tarred bytes.Buffer
	must(pack(&tarred, source, "new"))
	must(unpack(target, &tarred, "as", true))
	stat := func(name string) (fs.FileInfo, *syscall.Stat_t) {
		t.Helper()
		info, err := os.Lstat(filepath.Join(target, "as", name))
		must(err)
		return info, info.Sys().(*syscall.Stat_t)
	}
	f, fs1 := stat("sub/f")
	if data, err := os.ReadFile(filepath.Join(target, "as/sub/f")); string(data) != "content" {
		t.Errorf("%q, %v", data, err)
	}
	if f.Mode() != 0o754|os.ModeSetuid || !f.ModTime().Equal(when) || fs1.Uid != 13 || fs1.Gid != 14 {
		t.Errorf("the file: %v, %v, %d:%d", f.Mode(), f.ModTime(), fs1.Uid, fs1.Gid)
	}
	if _, hard := stat("sub/hard"); hard.Ino != fs1.Ino {
		t.Error("the hard link is a file of its own")
	}
	if d, _ := stat("sub"); !d.ModTime().Equal(when) {
		t.Errorf("the directory: %v", d.ModTime())
	}
	if to, err := os.Readlink(filepath.Join(target, "as/soft")); to != "/nowhere" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if _, soft := stat("soft"); soft.Uid != 11 || soft.Gid != 12 {
		t.Errorf("the link: %d:%d", soft.Uid, soft.Gid)
	}
	if p, _ := stat("pipe"); p.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe: %v", p.Mode())
	}
}

// TestSplitPlace: which end is a container's.
func TestSplitPlace(t *testing.T) {
	for arg, want := range map[string][2]string{
		"web:/etc": {"web", "/etc"}, "web:etc": {"web", "etc"}, "./web:etc": {"", "./web:etc"}, "/a:b": {"", "/a:b"}, "plain": {"", "plain"},
		"-": {"", "-"}, "web:": {"web", ""}, ":x": {"", ":x"},
	} {
		if c, p := splitPlace(arg); c != want[0] || p != want[1] {
			t.Errorf("%s: %q, %q; want %q", arg, c, p, want)
		}
	}
}

// FuzzUnpack: no archive leads outside.
func FuzzUnpack(f *testing.F) {
	f.Add("d/../../x", "d", byte(tar.TypeReg))
	f.Add("d/x", "/etc", byte(tar.TypeSymlink))
	f.Fuzz(func(t *testing.T, name, to string, kind byte) {
		outside := t.TempDir()
		target := filepath.Join(outside, "t")
		if err := os.Mkdir(target, 0o700); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		if w.WriteHeader(&tar.Header{Name: "d", Typeflag: tar.TypeDir, Mode: 0o755}) != nil ||
			w.WriteHeader(&tar.Header{Name: name, Linkname: to, Typeflag: kind, Mode: 0o644}) != nil ||
			w.WriteHeader(&tar.Header{Name: name + "/below", Typeflag: tar.TypeReg, Mode: 0o644}) != nil || w.Close() != nil {
			t.Skip("no archive")
		}
		_ = unpack(target, &out, "d", false) // it may be refused
		if names, err := os.ReadDir(outside); err != nil || len(names) != 1 {
			t.Errorf("outside there are now %v (%v)", names, err)
		}
	})
}
