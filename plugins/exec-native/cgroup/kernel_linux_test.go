package cgroup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// newParent makes a private parent in some of this machine's hierarchies.
func newParent(t *testing.T, use func(Hierarchy) bool) *Parent {
	t.Helper()
	tree, err := ReadTree()
	if err != nil {
		t.Fatal(err)
	}
	var some Tree
	for _, h := range tree.Hierarchies {
		if use(h) {
			some.Hierarchies = append(some.Hierarchies, h)
		}
	}
	if len(some.Hierarchies) == 0 {
		t.Skip("no hierarchy of this cgroup version, or with this controller, is mounted here")
	}
	var id [4]byte
	rand.Read(id[:])
	p, err := some.OpenParent("/gantry-test-"+hex.EncodeToString(id[:]), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		names, err := p.List()
		if err != nil {
			t.Error(err)
		}
		for _, n := range names {
			if err := p.Group(n).Remove(context.Background()); err != nil {
				t.Error(err)
			}
		}
		if err := p.Remove(); err != nil {
			t.Error(err)
		}
		p.Close()
		for _, h := range some.Hierarchies {
			if _, err := os.Stat(h.Mount + p.Path()); !os.IsNotExist(err) {
				t.Errorf("%s%s is left: %v", h.Mount, p.Path(), err)
			}
		}
	})
	return p
}

func all(Hierarchy) bool        { return true }
func unified(h Hierarchy) bool  { return h.Unified }
func version1(h Hierarchy) bool { return !h.Unified }

// inside starts a shell that puts itself into the group, as the init does, and
// prints "in" before it runs the script.
func inside(t *testing.T, g *Group, script string) *exec.Cmd {
	t.Helper()
	entry, err := g.Entry()
	if err != nil {
		t.Fatal(err)
	}
	files := entry.Tasks
	text := ""
	for i := range files {
		text += fmt.Sprintf("echo 0 >&%d; ", i+3)
	}
	cmd := exec.Command("/bin/bash", "-c", text+"echo in; "+script)
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if entry.Dir != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(entry.Dir.Fd())
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	entry.Close()
	buf := make([]byte, 3)
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "in\n" {
		t.Fatalf("the shell did not get into the group: %q %v", buf[:n], err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

// valueOf reads a file of the group in the hierarchy that has it.
func valueOf(t *testing.T, g *Group, file string) string {
	t.Helper()
	for _, d := range g.p.dirs {
		if text, err := os.ReadFile(filepath.Join(d.Mount+g.p.path, g.name, file)); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	t.Fatalf("no hierarchy has %s", file)
	return ""
}

func TestLimitsOnTheKernel(t *testing.T) {
	p := newParent(t, version1)
	r := &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr[int64](10_000_000), Swap: ptr[int64](20_000_000)},
		CPU:     &specs.LinuxCPU{Quota: ptr[int64](50000), Period: ptr[uint64](100000)},
		Pids:    &specs.LinuxPids{Limit: ptr[int64](7)},
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: ptr[int64](1), Minor: ptr[int64](3), Access: "rw"}},
	}
	for range 2 { // again on one that is there: limits are set anew
		g, err := p.Create("a", r)
		if err != nil {
			t.Fatal(err)
		}
		for file, want := range map[string]string{
			"memory.limit_in_bytes": "9998336", "memory.memsw.limit_in_bytes": "19996672", "cpu.cfs_quota_us": "50000",
			"pids.max": "7", "devices.list": "c 1:3 rw",
		} {
			if got := valueOf(t, g, file); got != want {
				t.Errorf("%s is %q, want %q", file, got, want)
			}
		}
		if valueOf(t, g, "cpuset.cpus") == "" {
			t.Error("the cpuset takes no process")
		}
	}
}

func TestRefusalsOnTheKernel(t *testing.T) {
	p := newParent(t, version1)
	_, err := p.Create("a", &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](1), Period: ptr[uint64](100000)}})
	if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), `"1" to cpu.cfs_quota_us`) {
		t.Errorf("a quota of one microsecond: %v", err)
	}
	if names, _ := p.List(); len(names) > 0 {
		t.Errorf("left after the refusal: %v", names)
	}
	for _, name := range []string{"", "..", "a/b"} {
		_, err := p.Create(name, &specs.LinuxResources{})
		g := p.Group(name)
		_, err2 := g.Pids()
		_, err3 := g.Entry()
		for i, err := range []error{err, err2, err3, g.Kill(), g.Freeze(context.Background()), g.Thaw(), g.Update(&specs.LinuxResources{}), g.Remove(context.Background())} {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("name %q, call %d: %v", name, i, err)
			}
		}
	}
	g, err := p.Create("b", &specs.LinuxResources{})
	if err != nil {
		t.Fatal(err)
	}
	inside(t, g, "sleep 100")
	if _, err := p.Create("b", &specs.LinuxResources{}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("a group in use: %v", err)
	}
}

func TestMissingControllerIsNamed(t *testing.T) {
	p := newParent(t, unified)
	for _, d := range p.dirs {
		for _, c := range d.Controllers {
			if c == "memory" {
				t.Skip("version 2 has memory here")
			}
		}
	}
	_, err := p.Create("a", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](1 << 30)}})
	if !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), "no cgroup controller memory") {
		t.Errorf("%v", err)
	}
}

// TestEndAndRemove in each kind of tree: forking, frozen, nested.
func TestEndAndRemove(t *testing.T) {
	for name, use := range map[string]func(Hierarchy) bool{
		"version 1": version1, "version 2": unified, "all": all,
		"version 1 without freezer": func(h Hierarchy) bool { return h.Has("pids") },
	} {
		t.Run(name, func(t *testing.T) {
			p := newParent(t, use)
			g, err := p.Create("a", &specs.LinuxResources{Pids: nil})
			if err != nil {
				t.Fatal(err)
			}
			cmd := inside(t, g, "trap '' TERM; for i in 1 2 3 4 5; do (while :; do sleep 0.01; done) & done; wait")
			for _, d := range p.dirs {
				if err := os.Mkdir(filepath.Join(d.Mount+p.path, "a", "deeper"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			waitFor(t, "children", func() bool { pids, err := g.Pids(); return err == nil && len(pids) > 5 })
			before, err := g.Pids()
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Freeze(context.Background()); err != nil && !errors.Is(err, errdefs.ErrNotImplemented) {
				t.Fatal(err)
			}
			go cmd.Wait()
			began := time.Now()
			if err := g.Remove(context.Background()); err != nil {
				t.Fatal(err)
			}
			t.Logf("removed after %v", time.Since(began))
			if err := g.Remove(context.Background()); err != nil {
				t.Errorf("removing it again: %v", err)
			}
			for _, pid := range before {
				// It is out of the group a moment before it is a zombie, which whoever
				// inherited it may still have to reap.
				waitFor(t, fmt.Sprintf("the end of process %d", pid), func() bool {
					stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
					return err != nil || strings.Contains(string(stat), ") Z ") || strings.Contains(string(stat), ") X ")
				})
			}
		})
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not after a minute: %s", what)
}

func TestOOMCounter(t *testing.T) {
	p := newParent(t, func(h Hierarchy) bool { return h.Has("memory") })
	g, err := p.Create("a", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](8 << 20), Swap: ptr[int64](8 << 20)}})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("before: %d %v", n, err)
	}
	inside(t, g, "head -c 64M /dev/zero | tail -c 60M > /dev/null").Wait()
	if n, err := g.OOMKills(); n == 0 || err != nil {
		t.Errorf("after 60 MB within 8: %d %v", n, err)
	}
}

// TestDeviceProgram restricts a version 2 group for real, and compares with
// version 1 where this machine has it.
func TestDeviceProgram(t *testing.T) {
	rules := []specs.LinuxDeviceCgroup{
		{Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "c", Major: ptr[int64](1), Minor: ptr[int64](3), Access: "rw"},
		{Allow: true, Type: "c", Major: ptr[int64](1), Minor: ptr[int64](5), Access: "r"},
	}
	dir := t.TempDir()
	for name, use := range map[string]func(Hierarchy) bool{"version 2": unified, "version 1": func(h Hierarchy) bool { return h.Has("devices") }} {
		t.Run(name, func(t *testing.T) {
			p := newParent(t, use)
			g, err := p.Create("a", &specs.LinuxResources{Devices: rules})
			if err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(dir, strconv.Itoa(len(name))+name)
			script := fmt.Sprintf(`exec >%q; try() { "$@" 2>/dev/null && echo yes || echo no; }
				try dd if=/dev/null of=%s.x; try dd if=/dev/zero of=%s.x count=1; try dd if=%s.x of=/dev/zero; try dd if=/dev/random of=%s.x count=1
				try mknod %s.c c 9 9; try mknod %s.b b 9 9`, out, out, out, out, out, out, out)
			cmd := inside(t, g, strings.ReplaceAll(script, out+".", filepath.Join(dir, name[8:])+"."))
			cmd.Wait()
			text, err := os.ReadFile(out)
			if want := "yes\nyes\nno\nno\nyes\nno\n"; err != nil || string(text) != want {
				t.Errorf("read null, read zero, write zero, read random, mknod c, mknod b:\n%swant\n%s(%v)", text, want, err)
			}
		})
	}
}
