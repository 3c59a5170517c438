package execnative

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryd/gantry/internal/stdio"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen, on whatever machine.
const patience = time.Minute

// bench is a private engine for one test: directories, a cgroup parent and a
// root filesystem with busybox.
type bench struct {
	t     testing.TB
	cfg   driver.Config
	lower string
	d     *native
	runs  uint64
}

// buildShim compiles the shim once for all tests.
var buildShim = sync.OnceValues(func() (string, error) {
	// A machine whose compiler is slow brings the programs along.
	if dir := os.Getenv("GANTRY_BIN"); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "gantry-shim")
	if err != nil {
		return "", err
	}
	// The Makefile is the one place that knows how they are compiled.
	programs := exec.Command("make", "-s", "-C", "../..", "BIN="+dir, dir+"/gantry-shim", dir+"/gantry-init")
	if out, err := programs.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the shim and the init: %w\n%s", err, out)
	}
	return dir, nil
})

// busybox finds the static program that tests run (package busybox-static).
func busybox(t testing.TB) string {
	t.Helper()
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	t.Fatal("no busybox: install the package busybox-static")
	return ""
}

// newBench makes the engine and opens the driver.
func newBench(t testing.TB) *bench {
	t.Helper()
	return newBenchAt(t, "exec")
}

// newBenchAt is newBench with the driver's Run directory at a path below a
// directory of its own.
func newBenchAt(t testing.TB, below string) *bench {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("these tests need root")
	}
	libexec, err := buildShim()
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	run, err := os.MkdirTemp("/dev/shm", "gantry-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	var id [8]byte
	rand.Read(id[:])
	name := "gantry-test-" + hex.EncodeToString(id[:4])
	b := &bench{t: t, lower: base + "/lower", cfg: driver.Config{
		EngineID: "test", EngineName: name, Root: base + "/root", Run: filepath.Join(run, below), Libexec: libexec, Cgroup: "/" + name,
	}}
	fillRoot(t, b.lower)
	b.open()
	t.Cleanup(b.clean)
	return b
}

// fillRoot makes an image of busybox.
func fillRoot(t testing.TB, dir string) {
	t.Helper()
	for _, d := range []string{"bin", "etc", "tmp", "home"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(busybox(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/bin/busybox", text, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range strings.Fields("sh cat id hostname mount ls ps sleep sort true false echo grep touch mkdir env pwd stat dd head chmod ip wc kill sed readlink mknod seq unshare") {
		if err := os.Symlink("busybox", dir+"/bin/"+n); err != nil {
			t.Fatal(err)
		}
	}
	b := "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\n"
	g := "root:x:0:\nwheel:x:10:root,bob\nusers:x:1001:\naudio:x:29:bob\n"
	for name, text := range map[string]string{"passwd": b, "group": g} {
		if err := os.WriteFile(dir+"/etc/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// open starts a driver instance, as after a restart.
func (b *bench) open() {
	b.t.Helper()
	d, err := New(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.d = d.(*native)
}

// runDirs lists what is in the driver's run directory, but for what is made ahead.
func (b *bench) runDirs() []string {
	var names []string
	entries, _ := os.ReadDir(b.cfg.Run)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), sparePrefix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// clean releases everything and removes the engine's cgroups; what is left is
// an error.
func (b *bench) clean() {
	items, err := b.d.List(context.Background())
	if err != nil {
		b.t.Error(err)
	}
	for _, i := range items {
		if err := b.d.Release(context.Background(), execdriver.Key{Container: i.Key, Run: i.Run, Exec: i.Exec}); err != nil {
			b.t.Error(err)
		}
	}
	if left, _ := b.d.containers.List(); len(left) > 0 {
		b.t.Errorf("cgroups left: %v", left)
	}
	if left := b.runDirs(); len(left) > 0 {
		b.t.Errorf("run directories left: %v", left)
	}
	// A shim leaves a moment after its exit was told.
	for _, g := range []string{"containers", "shims"} {
		p, err := b.d.tree.OpenParent(b.cfg.Cgroup, false)
		if err != nil {
			b.t.Fatal(err)
		}
		if err := p.Group(g).Remove(context.Background()); err != nil {
			b.t.Error(err)
		}
		p.Close()
	}
	removeParent(b.t, b.d.tree, b.cfg.Cgroup)
	b.d.close()
}

func removeParent(t testing.TB, tree cgroup.Tree, path string) {
	t.Helper()
	p, err := tree.OpenParent(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
}

// unified says whether the machine has cgroups of version 2 alone.
func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// scriptHere puts the names of version 1 that scripts use into those of this
// machine.
func scriptHere(script string) string {
	if !unified() {
		return script
	}
	return strings.NewReplacer(
		"/sys/fs/cgroup/pids", "/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup",
		"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu.max",
		"memory.limit_in_bytes", "memory.max", "memory.memsw.limit_in_bytes", "memory.swap.max",
		"tasks", "cgroup.procs",
	).Replace(script)
}

// start asks for a shell command in a fresh container with an overlay of its own.
func (b *bench) request(script string) execdriver.Start {
	b.t.Helper()
	b.runs++
	var id [32]byte
	rand.Read(id[:])
	r := execdriver.Start{
		Key:      execdriver.Key{Container: hex.EncodeToString(id[:]), Run: b.runs},
		Hostname: "box", Network: netdriver.Namespace{Mode: netdriver.NamespaceNew},
		Process: execdriver.Process{Args: []string{"/bin/sh", "-c", scriptHere(script)}},
		Stdio:   execdriver.Stdio{Log: execdriver.LogConfig{Driver: "local"}},
	}
	layer := filepath.Join(b.t.TempDir(), "c")
	for _, d := range []string{"/upper", "/work"} {
		if err := os.MkdirAll(layer+d, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	r.Rootfs = []driver.Mount{{Type: "overlay", Target: "/", Options: []string{
		"lowerdir+=" + b.lower, "upperdir=" + layer + "/upper", "workdir=" + layer + "/work",
	}}}
	return r
}

// wait returns the end of a run.
func (b *bench) wait(k execdriver.Key) execdriver.Exit {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var end execdriver.Exit
	err := b.d.Exits(ctx, func(e execdriver.Exit) error {
		if e.Key == k {
			end = e
			cancel()
		}
		return nil
	})
	if end.Container == "" {
		b.t.Fatalf("run %v does not end: %v", k, err)
	}
	return end
}

// run starts, waits and gives output and exit.
func (b *bench) run(r execdriver.Start) (string, execdriver.Exit) {
	b.t.Helper()
	s, err := b.d.Start(context.Background(), r)
	if err != nil {
		b.t.Fatal(err)
	}
	e := b.wait(r.Key)
	return b.output(s.Log), e
}

// output is what a log holds, both streams in the order of their records.
func (b *bench) output(path string) string {
	b.t.Helper()
	if path == "" {
		return ""
	}
	log, err := stdio.OpenLog(path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	var out strings.Builder
	for {
		rec, err := log.Next()
		if err != nil {
			return out.String()
		}
		out.Write(rec.Data)
	}
}

// mknod makes a character device.
func mknod(name string, major, minor int) error {
	return unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(uint32(major), uint32(minor))))
}

// sendInput attaches to a run and types.
func (b *bench) sendInput(ctx context.Context, k execdriver.Key, text string) {
	b.t.Helper()
	c, _, err := stdio.Dial(ctx, execdriver.SocketPath(b.cfg.Run, k), stdio.Hello{Stdin: true})
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		b.t.Fatal(err)
	}
}
