package oci

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

const (
	somePasswd = "root:x:0:0:root:/root:/bin/sh\nbroken\nneg:x:-1:0::/:\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\n7:x:1007:1007::/seven:\n"
	someGroup  = "root:x:0:\nwheel:x:10:root,bob\nusers:x:1001:\naudio:x:29:bob,eve\nbad:x:y:bob\n"
)

func TestLookUpUser(t *testing.T) {
	read := func(path string, _ int64) ([]byte, error) {
		return []byte(map[string]string{"/etc/passwd": somePasswd, "/etc/group": someGroup}[path]), nil
	}
	for want, expect := range map[string]User{
		"":           {0, 0, []uint32{0, 10}, "/root"},
		"0":          {0, 0, []uint32{0, 10}, "/root"},
		"root":       {0, 0, []uint32{0, 10}, "/root"},
		"bob":        {1000, 1001, []uint32{1001, 10, 29}, "/home/bob"},
		"1000":       {1000, 1001, []uint32{1001, 10, 29}, "/home/bob"},
		"bob:audio":  {1000, 29, []uint32{29}, "/home/bob"},
		"bob:5":      {1000, 5, []uint32{5}, "/home/bob"},
		"bob:":       {1000, 1001, []uint32{1001, 10, 29}, "/home/bob"},
		"4242":       {4242, 0, []uint32{0}, "/"},
		"4242:4343":  {4242, 4343, []uint32{4343}, "/"},
		"7":          {1007, 1007, []uint32{1007}, "/seven"}, // a name of digits wins, as in Docker
		"2147483647": {2147483647, 0, []uint32{0}, "/"},
	} {
		got, err := LookUpUser(want, read)
		if err != nil || !reflect.DeepEqual(got, expect) {
			t.Errorf("%q: %+v %v, want %+v", want, got, err, expect)
		}
	}
	for _, bad := range []string{"nobody", "2147483648", "-1", "bob:nogroup", "bob:2147483648", "neg"} {
		if u, err := LookUpUser(bad, read); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %+v %v, want a refusal", bad, u, err)
		}
	}
}

// TestHostileUserFiles reads through a descriptor from a root that means harm.
func TestHostileUserFiles(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("spy:x:0:0::/:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		make func(root string) error
		want error // nil: no such user, since nothing of the file counts
	}{
		"fifo": {func(root string) error { return unix.Mkfifo(root+"/etc/passwd", 0o644) }, errdefs.ErrInvalidArgument},
		"device": {func(root string) error {
			return unix.Mknod(root+"/etc/passwd", unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5)))
		}, errdefs.ErrInvalidArgument},
		"dir":     {func(root string) error { return os.Mkdir(root+"/etc/passwd", 0o755) }, errdefs.ErrInvalidArgument},
		"huge":    {func(root string) error { return hole(root+"/etc/passwd", 1<<30) }, errdefs.ErrInvalidArgument},
		"loop":    {func(root string) error { return os.Symlink("passwd", root+"/etc/passwd") }, errdefs.ErrInvalidArgument},
		"outside": {func(root string) error { return os.Symlink(outside, root+"/etc/passwd") }, errdefs.ErrInvalidArgument},
		"dotdot": {func(root string) error {
			return os.Symlink(strings.Repeat("../", 30)+outside, root+"/etc/passwd")
		}, errdefs.ErrInvalidArgument},
		"magic": {func(root string) error { return os.Symlink("/proc/self/root"+outside, root+"/etc/passwd") }, errdefs.ErrInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := errors.Join(os.Mkdir(root+"/etc", 0o755), c.make(root)); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			_, err = LookUpUser("spy", func(p string, limit int64) ([]byte, error) { return linux.ReadInRoot(f, p, limit) })
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// hole makes a file of a size without its blocks.
func hole(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// TestLinkInsideRoot follows links as the container would.
func TestLinkInsideRoot(t *testing.T) {
	root := t.TempDir()
	err := errors.Join(os.MkdirAll(root+"/etc", 0o755), os.MkdirAll(root+"/usr/share", 0o755),
		os.WriteFile(root+"/usr/share/passwd", []byte(somePasswd), 0o644), os.Symlink("/usr/share/passwd", root+"/etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	u, err := LookUpUser("bob", func(p string, limit int64) ([]byte, error) { return linux.ReadInRoot(f, p, limit) })
	if err != nil || u.UID != 1000 {
		t.Errorf("%+v %v", u, err)
	}
}
