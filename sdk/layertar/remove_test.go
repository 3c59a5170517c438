package layertar

import (
	"context"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

// TestRemoveTreeDeeperThanDescriptors removes what a container can make and
// no path can name, with few descriptors.
func TestRemoveTreeDeeperThanDescriptors(t *testing.T) {
	top := t.TempDir()
	outside := top + "/outside"
	mustMkdir(t, top+"/in", outside, top+"/in/tree")
	if err := os.WriteFile(outside+"/victim", []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, outside, outside)
	fd, err := unix.Open(top+"/in/tree", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		if err := unix.Mkdirat(fd, "d", 0o000); err != nil {
			t.Fatal(err)
		}
		if err := unix.Symlinkat(outside, fd, "link"); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: 150, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	if err := RemoveTree(context.Background(), openDir(t, top+"/in"), "tree"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(top + "/in"); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if after := snapshot(t, outside, outside); after != before {
		t.Errorf("outside was\n%s\nis\n%s", before, after)
	}
	if err := RemoveTree(context.Background(), openDir(t, top+"/in"), "tree"); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestMakeTargetFollowsNoLink(t *testing.T) {
	top := t.TempDir()
	outside, root := top+"/outside", top+"/root"
	mustMkdir(t, outside, root)
	_, err := unpackInto(t, root, Options{}, symEnt("abs", outside), symEnt("rel", "../outside"), fileEnt("file", "x"), dirEnt("dir", 0o700))
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, outside, top)
	for _, c := range []struct {
		path, made string
		file       bool
	}{
		{"/abs/new", "", false}, {"/rel/new", "", true}, {"/abs", "", false}, {"/rel", "", true},
		{"/file/new", "", false}, {"/dir/a/b", "dir/a dir/a/b", false}, {"/dir/a/f", "dir/a/f", true}, {"/dir/a/f", "", true},
	} {
		made, err := MakeTarget(openDir(t, root), driver.Target{Path: c.path, File: c.file}, driver.IDMap{})
		if err != nil || strings.Join(made, " ") != c.made {
			t.Errorf("%s: made %q, %v", c.path, made, err)
		}
	}
	if _, err := MakeTarget(openDir(t, root), driver.Target{Path: "/../outside/new"}, driver.IDMap{}); err == nil {
		t.Errorf("took ..")
	}
	if after := snapshot(t, outside, top); after != before {
		t.Errorf("outside was\n%s\nis\n%s", before, after)
	}
	if fi, err := os.Stat(root + "/dir"); err != nil || !fi.ModTime().Equal(testTime) {
		t.Errorf("the time of a parent has changed: %v", err)
	}
}

// TestCopyTreeCopiesEverything also checks that a copy shows no difference.
func TestCopyTreeCopiesEverything(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	f := fileEnt("a/f", strings.Repeat("x", 300_000))
	f.Mode, f.Uid, f.PAXRecords = 0o4755, 9, map[string]string{xattrRecord + "user.k": "v"}
	if _, err := unpackInto(t, from, Options{}, dirEnt("a/", 0o1777), f, linkEnt("a/g", "a/f"), symEnt("s", "/etc"), fileEnt("empty", "")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(from+"/empty", 50<<20); err != nil { // one hole
		t.Fatal(err)
	}
	if _, err := CopyTree(context.Background(), openDir(t, from), openDir(t, to), driver.IDMap{}, nil); err != nil {
		t.Fatal(err)
	}
	if a, b := strings.Join(tree(t, from), "\n"), strings.Join(tree(t, to), "\n"); a != b {
		t.Errorf("the trees differ")
	}
	var a, b, hole unix.Stat_t
	unix.Stat(to+"/a/f", &a)
	unix.Stat(to+"/a/g", &b)
	unix.Stat(to+"/empty", &hole)
	if a.Ino != b.Ino || a.Nlink != 2 || hole.Blocks > 16 {
		t.Errorf("links or holes were lost: %+v %+v %d blocks", a, b, hole.Blocks)
	}
	var out strings.Builder
	if err := WriteDiff(context.Background(), &out, openDir(t, from), openDir(t, to), DiffOptions{}); err != nil || out.Len() != 1024 {
		t.Errorf("a copy differs: %d bytes, %v", out.Len(), err)
	}
}
