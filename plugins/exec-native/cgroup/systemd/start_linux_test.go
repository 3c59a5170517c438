package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestWithoutSystemd(t *testing.T) {
	if Running() {
		t.Skip("systemd is pid 1 here")
	}
	u, err := Parse("", "x")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := cgroup.ReadTree()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{second(u.Start(context.Background(), tree, nil)), u.Stop(context.Background())} {
		if !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), "not booted with systemd") {
			t.Errorf("%v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestHold: the process that holds a scope open never runs, and ends when it
// is released, once and for all.
func TestHold(t *testing.T) {
	pid, release, err := hold()
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || !strings.Contains(string(stat), ") t ") {
		t.Errorf("%s %v, want it stopped by its tracer", stat, err)
	}
	release()
	release()
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !os.IsNotExist(err) {
		t.Errorf("it is there after its release: %v", err)
	}
}

// file reads what the group says, in the hierarchy that has the file.
func file(t *testing.T, g *Group, name string) string {
	t.Helper()
	for _, dir := range g.Paths() {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	t.Fatalf("no %s", name)
	return ""
}

// ask reads a property of the unit from outside.
func ask(t *testing.T, u Unit, name string) string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "-P", name, u.Name).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl: %v %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// bear starts a process in the group.
func bear(t *testing.T, g *Group) {
	t.Helper()
	entry, err := g.Entry()
	if err != nil {
		t.Fatal(err)
	}
	defer entry.Close()
	cmd := exec.Command("/bin/sleep", "100")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(entry.Dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
}

func TestScope(t *testing.T) {
	if !Running() {
		t.Skip("systemd is not pid 1 here")
	}
	tree, err := cgroup.ReadTree()
	if err != nil {
		t.Fatal(err)
	}
	if tree.Version() != "v2" {
		t.Skip("cgroup version 2 is not alone here")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	u, err := Parse("gantry-test.slice:t:"+fmt.Sprint(os.Getpid()), "")
	if err != nil {
		t.Fatal(err)
	}
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](64 << 20)}, Pids: &specs.LinuxPids{Limit: ptr[int64](30)},
		CPU: &specs.LinuxCPU{Shares: ptr[uint64](2048), Quota: ptr[int64](50000), Period: ptr[uint64](100000)}}
	g, err := u.Start(ctx, tree, r)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	defer u.Stop(context.Background())
	defer g.Release()
	if g.Place["unified"] != u.Path() {
		t.Errorf("it is at %v, want %s", g.Place, u.Path())
	}
	if _, err := u.Start(ctx, tree, r); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("a unit of this name: %v", err)
	}
	bear(t, g)
	g.Release()
	holds := func() {
		t.Helper()
		for name, want := range map[string]string{"memory.max": "67108864", "pids.max": "30", "cpu.weight": "174", "cpu.max": "50000 100000"} {
			if got := file(t, g, name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
	}
	holds()
	if got := ask(t, u, "Delegate"); got != "yes" {
		t.Errorf("Delegate=%s", got)
	}
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	holds() // systemd writes its own numbers now
	if err := u.Update(ctx, g.Group, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](32 << 20)}}); err != nil {
		t.Fatal(err)
	}
	if got, told := file(t, g, "memory.max"), ask(t, u, "MemoryMax"); got != "33554432" || told != got {
		t.Errorf("after the update %s, systemd says %s", got, told)
	}
	if err := g.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	if err := u.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := u.Stop(ctx); err != nil {
		t.Errorf("stopped again: %v", err)
	}
	if got := ask(t, u, "LoadState"); got != "not-found" {
		t.Errorf("the unit is %s", got)
	}
}
