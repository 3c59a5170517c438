package cgroup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// fresh is a path below the root that nobody has.
func fresh() string {
	var id [4]byte
	rand.Read(id[:])
	return "/gantry-test-" + hex.EncodeToString(id[:])
}

// leaves fails if anything is left of the path in any hierarchy.
func leaves(t *testing.T, tree Tree, path string) {
	t.Helper()
	for _, h := range tree.Hierarchies {
		if _, err := os.Stat(h.Mount + path); !os.IsNotExist(err) {
			t.Errorf("%s%s is left: %v", h.Mount, path, err)
		}
	}
}

func TestPlaces(t *testing.T) {
	tree := Tree{[]Hierarchy{{Controllers: []string{"cpu", "cpuacct"}}, {Unified: true}}}
	for path, want := range map[string]string{
		"/a/b": "/a/b", "/a/../b/": "/b", "/": "!", "/..": "!", "/a\nb": "!", "a\x00b": "!", ".": "!", "../..": "!",
	} {
		got, err := tree.Place(path, "id")
		if want == "!" {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%q: %v %v", path, got, err)
			}
			continue
		}
		if err != nil || got["cpu,cpuacct"] != want || got["unified"] != want {
			t.Errorf("%q: %v %v", path, got, err)
		}
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	own := parseOwn(text)
	for path, inner := range map[string]string{"": "id", "a/b": "a/b", "../../a": "a"} {
		got, err := tree.Place(path, "id")
		if err != nil || got["unified"] != filepath.Join("/", filepath.Dir(own[""]), inner) || !strings.HasSuffix(got["cpu,cpuacct"], inner) {
			t.Errorf("%q: %v %v", path, got, err)
		}
	}
	parsed := parseOwn([]byte("3:cpu,cpuacct:/x/y\n1:name=systemd:/s (deleted)\n0::/../up\nnonsense\n"))
	if len(parsed) != 3 || parsed["cpu,cpuacct"] != "/x/y" || parsed["name=systemd"] != "/s" || parsed[""] != "/up" {
		t.Errorf("%v", parsed)
	}
}

// TestMake makes what is above, and takes it away with the last group.
func TestMake(t *testing.T) {
	tree, err := ReadTree()
	if err != nil {
		t.Fatal(err)
	}
	top := fresh()
	for _, path := range []string{top + "/b/c", top} { // deep, and right below the root
		place, err := tree.At(path)
		if err != nil {
			t.Fatal(err)
		}
		g, err := tree.Make(place, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		if len(g.Paths()) != len(tree.Hierarchies) {
			t.Errorf("it is in %v", g.Paths())
		}
		inside(t, g, "sleep 100") // also into the cpuset
		if _, err := tree.Make(place, nil); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("one in use: %v", err)
		}
		again, err := tree.Open(place)
		if err != nil {
			t.Fatal(err)
		}
		if pids, err := again.Pids(); len(pids) == 0 || err != nil {
			t.Errorf("opened again: %v %v", pids, err)
		}
		again.Close()
		if err := tree.Remove(context.Background(), place); err != nil {
			t.Fatal(err)
		}
		leaves(t, tree, top)
		if _, err := tree.Open(place); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("after the removal: %v", err)
		}
		if err := tree.Remove(context.Background(), place); err != nil {
			t.Errorf("removed again: %v", err)
		}
	}
}

// TestParentStays: a group above that somebody else made is not removed, and
// refusals leave nothing.
func TestParentStays(t *testing.T) {
	p := newParent(t, all)
	var tree Tree
	for _, d := range p.dirs {
		tree.Hierarchies = append(tree.Hierarchies, d.Hierarchy)
	}
	place, err := tree.At(p.path + "/made/group")
	if err != nil {
		t.Fatal(err)
	}
	g, err := tree.Make(place, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.Remove(context.Background()); err != nil {
		t.Fatal(err)
	}
	if names, err := p.List(); len(names) > 0 || err != nil {
		t.Errorf("left: %v %v", names, err)
	}
	if _, err := os.Stat(p.dirs[0].Mount + p.path); err != nil {
		t.Errorf("what was there before is gone: %v", err)
	}
	_, err = tree.Make(place, &specs.LinuxResources{Unified: map[string]string{"zap.max": "1"}})
	if !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("%v", err)
	}
	if names, _ := p.List(); len(names) > 0 {
		t.Errorf("left after a refusal: %v", names)
	}
	if _, err := tree.openPlaceErr(Place{p.dirs[0].Label(): "/a/b", "other": "/a/c"}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("two names: %v", err)
	}
}

func (t Tree) openPlaceErr(place Place) (*Parent, error) {
	p, _, err := t.openPlace(place, walk{only: true})
	return p, err
}

// TestMakeAtOnce: groups come and go below one parent that goes with the last.
func TestMakeAtOnce(t *testing.T) {
	tree, err := ReadTree()
	if err != nil {
		t.Fatal(err)
	}
	tree.Hierarchies = tree.Hierarchies[:min(2, len(tree.Hierarchies))]
	top := fresh()
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			place, err := tree.At(top + "/" + string(rune('a'+n)))
			if err != nil {
				t.Error(err)
				return
			}
			for range 25 {
				g, err := tree.Make(place, nil)
				if err == nil {
					err = g.Remove(context.Background())
					g.Close()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	leaves(t, tree, top)
}

// TestDelegated makes a group as a user to whom one of version 2 was given:
// hierarchies of root are left out, and limits that need them refused by name.
func TestDelegated(t *testing.T) {
	const user = 65534
	if place := os.Getenv("GANTRY_TEST_PLACE"); place != "" {
		asUser(t, place)
		return
	}
	p := newParent(t, all)
	d, ok := p.unified()
	if !ok {
		t.Skip("no cgroup version 2 here")
	}
	g, err := p.Create("given", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Delegate(user, user); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]uint32{".": user, "cgroup.procs": user, "cgroup.subtree_control": user, "cgroup.kill": 0} {
		info, err := os.Stat(filepath.Join(g.Paths()["unified"], file))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != want {
			t.Errorf("%s belongs to %+v %v, want %d", file, info, err, want)
		}
	}
	place := Place{}
	for _, d := range p.dirs {
		place[d.Label()] = p.path + "/given/inner"
	}
	delegate(int(mustOpen(t, g.Paths()["unified"]).Fd()), d.delegated)
	text, _ := json.Marshal(place)
	self, err := os.ReadFile("/proc/self/exe") // where the user may run it
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gantry-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	if err := os.WriteFile(dir+"/test", self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(dir+"/test", "-test.run", "^TestDelegated$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GANTRY_TEST_PLACE="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as user %d: %v\n%s", user, err, out)
	}
}

func mustOpen(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// asUser is TestDelegated's other half, without the rights of root.
func asUser(t *testing.T, text string) {
	var place Place
	if err := json.Unmarshal([]byte(text), &place); err != nil {
		t.Fatal(err)
	}
	tree, err := ReadTree()
	if err != nil {
		t.Fatal(err)
	}
	g, err := tree.Make(place, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if paths := g.Paths(); len(paths) != 1 || paths["unified"] == "" {
		t.Errorf("it is in %v", paths)
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Errorf("freeze: %v", err)
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	limited := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](1 << 30)}}
	again, err := tree.Make(place, limited)
	if g.p.version("memory") != 2 {
		if !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), "memory") {
			t.Errorf("a limit of somebody else's: %v", err)
		}
	} else if err != nil {
		t.Error(err)
	} else {
		defer again.Close()
		if err := again.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	delete(place, "unified")
	if _, err := tree.Make(place, nil); len(place) > 0 && !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("in hierarchies of root: %v", err)
	}
}

// TestSweep takes away what a Make that broke off has left: with what runs in it, not
// in all hierarchies, or only what is above.
func TestSweep(t *testing.T) {
	tree, err := ReadTree()
	if err != nil {
		t.Fatal(err)
	}
	top := fresh()
	place, err := tree.At(top + "/a/b")
	if err != nil {
		t.Fatal(err)
	}
	if tree.Has(place) {
		t.Error("it is there before it is made")
	}
	g, err := tree.Make(place, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	inside(t, g, "sleep 100")
	if !tree.Has(place) {
		t.Error("it is not there")
	}
	if err := tree.Sweep(context.Background(), place); err != nil {
		t.Error(err)
	}
	leaves(t, tree, top)
	for what, spoil := range map[string]func(mount string) error{
		"whole":        func(string) error { return nil },
		"above alone":  func(mount string) error { return os.Remove(mount + top + "/a/b") },
		"further up":   func(mount string) error { return errors.Join(os.Remove(mount+top+"/a/b"), os.Remove(mount+top+"/a")) },
		"nothing here": func(mount string) error { return tree.Remove(context.Background(), place) },
	} {
		again, err := tree.Make(place, nil)
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
		if err := spoil(tree.Hierarchies[0].Mount); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := tree.Sweep(context.Background(), place); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		leaves(t, tree, top)
	}
}

func TestByName(t *testing.T) {
	parts := Place{"cpu": "/x/sub", "pids": "/x", "memory": "/y/sub"}.ByName()
	if len(parts) != 2 || len(parts[0]) != 2 || parts[0]["memory"] != "/y/sub" || parts[1]["pids"] != "/x" {
		t.Errorf("%v", parts)
	}
}
