package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ticks reads how much processor time a process has had.
func ticks(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+2:]))
	return f[11] + " " + f[12]
}

func TestFreeze(t *testing.T) {
	for name, use := range map[string]func(Hierarchy) bool{"version 1": func(h Hierarchy) bool { return h.Has("freezer") }, "version 2": unified} {
		t.Run(name, func(t *testing.T) {
			p := newParent(t, use)
			g, err := p.Create("a", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Group("none").Freeze(context.Background()); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("a group that is not there: %v", err)
			}
			cmd := inside(t, g, "while :; do :; done")
			for range 3 {
				if err := g.Freeze(context.Background()); err != nil {
					t.Fatal(err)
				}
				if frozen, err := g.Frozen(); !frozen || err != nil {
					t.Errorf("frozen: %t %v", frozen, err)
				}
				before := ticks(t, cmd.Process.Pid)
				time.Sleep(50 * time.Millisecond)
				if after := ticks(t, cmd.Process.Pid); after != before {
					t.Errorf("it has run from %s to %s", before, after)
				}
				if err := g.Thaw(); err != nil {
					t.Fatal(err)
				}
				if frozen, err := g.Frozen(); frozen || err != nil {
					t.Errorf("thawed: %t %v", frozen, err)
				}
				waitFor(t, "it to run on", func() bool { return ticks(t, cmd.Process.Pid) != before })
			}
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			if err := g.Freeze(ended); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("with an ended context: %v", err)
			}
			if err := g.Thaw(); err != nil { // it may have frozen at once
				t.Fatal(err)
			}
		})
	}
}

// TestFrozenIsRefused at create: what is put into a frozen group hangs.
func TestFrozenIsRefused(t *testing.T) {
	for name, use := range map[string]func(Hierarchy) bool{"version 1": func(h Hierarchy) bool { return h.Has("freezer") }, "version 2": unified} {
		t.Run(name, func(t *testing.T) {
			p := newParent(t, use)
			g, err := p.Create("a", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Freeze(context.Background()); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Create("a", nil); !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "frozen") {
				t.Errorf("%v", err)
			}
			place := Place{}
			for _, d := range p.dirs {
				place[d.Label()] = p.path + "/a/inner"
			}
			tree := Tree{}
			for _, d := range p.dirs {
				tree.Hierarchies = append(tree.Hierarchies, d.Hierarchy)
			}
			if _, err := tree.Make(place, nil); !errors.Is(err, errdefs.ErrFailedPrecondition) {
				t.Errorf("below a frozen one: %v", err)
			}
			if err := g.Thaw(); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Create("a", nil); err != nil {
				t.Errorf("thawed: %v", err)
			}
		})
	}
}

// TestOwnGroup: this process neither freezes nor kills itself.
func TestOwnGroup(t *testing.T) {
	place, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	p := newParent(t, func(h Hierarchy) bool { return h.Has("freezer") || h.Unified })
	g, err := p.Create("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	own := parseOwn(place)
	for _, d := range p.dirs {
		back := filepath.Join(d.Mount, own[d.Key()], "cgroup.procs")
		defer func() {
			if err := os.WriteFile(back, []byte("0"), 0); err != nil {
				t.Error(err)
			}
		}()
		if err := os.WriteFile(filepath.Join(d.Mount+p.path, "a", "cgroup.procs"), []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{g.Freeze(context.Background()), g.Kill(), g.Remove(context.Background())} {
		if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "this very process") {
			t.Errorf("%v", err)
		}
	}
}

// TestKillAll ends nested and forking processes and leaves the group.
func TestKillAll(t *testing.T) {
	for name, use := range map[string]func(Hierarchy) bool{"version 1": version1, "version 2": unified, "all": all} {
		t.Run(name, func(t *testing.T) {
			p := newParent(t, use)
			g, err := p.Create("a", nil)
			if err != nil {
				t.Fatal(err)
			}
			cmd := inside(t, g, "trap '' TERM; for i in 1 2 3; do (while :; do sleep 0.01; done) & done; wait")
			go cmd.Wait()
			for _, d := range p.dirs {
				deep := filepath.Join(d.Mount+p.path, "a", "deeper")
				if err := os.Mkdir(deep, 0o755); err != nil {
					t.Fatal(err)
				}
				if d.Has("cpuset") {
					continue
				}
				if err := os.WriteFile(deep+"/cgroup.procs", []byte(fmt.Sprint(cmd.Process.Pid)), 0); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := p.Create("a", nil); !errors.Is(err, errdefs.ErrFailedPrecondition) {
				t.Errorf("processes in a nested group: %v", err)
			}
			if err := g.KillAll(context.Background()); err != nil {
				t.Fatal(err)
			}
			if pids, err := g.Pids(); len(pids) > 0 || err != nil {
				t.Errorf("left: %v %v", pids, err)
			}
			if there, err := g.Exists(); !there || err != nil {
				t.Errorf("the group has gone: %v", err)
			}
		})
	}
}

// eat allocates megabytes within the group.
func eat(t *testing.T, g *Group, megabytes int) {
	t.Helper()
	inside(t, g, fmt.Sprintf("head -c %dM /dev/zero | tail -c %dM > /dev/null", megabytes, megabytes)).Wait()
}

func TestOOM(t *testing.T) {
	for name, use := range map[string]func(Hierarchy) bool{"version 1": func(h Hierarchy) bool { return h.Has("memory") }, "version 2": unified} {
		t.Run(name, func(t *testing.T) {
			p := newParent(t, use)
			if _, _, ok := p.oomFile(); !ok {
				t.Skip("controller memory is not of cgroup version 2 here")
			}
			g, err := p.Create("a", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](16 << 20), Swap: ptr[int64](16 << 20)}})
			if err != nil {
				t.Fatal(err)
			}
			w, err := g.WatchOOM()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if kills, gone, err := w.Wait(short); kills != 0 || gone || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("nothing has happened: %d %t %v", kills, gone, err)
			}
			w.Close()
			if w, err = g.WatchOOM(); err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			told := make(chan string, 1)
			go func() {
				kills, gone, err := w.Wait(context.Background())
				told <- fmt.Sprint(kills > 0, gone, err)
			}()
			eat(t, g, 60)
			select {
			case got := <-told:
				if got != "true false <nil>" {
					t.Errorf("told %s", got)
				}
			case <-time.After(time.Minute):
				t.Fatal("nobody told of the kill")
			}
			kills, err := g.OOMKills()
			if kills == 0 || err != nil {
				t.Errorf("%d kills %v", kills, err)
			}
			go func() {
				for {
					if kills, gone, err := w.Wait(context.Background()); gone || err != nil {
						told <- fmt.Sprint(kills > 0, gone, err)
						return
					}
				}
			}()
			if err := g.Remove(context.Background()); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-told:
				if got != "true true <nil>" {
					t.Errorf("told %s at the end", got)
				}
			case <-time.After(time.Minute):
				t.Fatal("nobody told of the removal")
			}
		})
	}
}

// TestLateOOM: version 1 may tell of a lack of memory long before it has killed
// and counted. A plain directory stands for the group.
func TestLateOOM(t *testing.T) {
	root := t.TempDir()
	count := func(n int) {
		t.Helper()
		text := fmt.Sprintf("oom_kill_disable 0\nunder_oom 1\noom_kill %d\n", n)
		if err := errors.Join(os.MkdirAll(root+"/g", 0o755), os.WriteFile(root+"/g/memory.oom_control", []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	count(0)
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	event, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) // it has been told
	if err != nil {
		t.Fatal(err)
	}
	d := dir{Hierarchy: Hierarchy{Controllers: []string{"memory"}}, f: f}
	w := &OOMWatch{g: (&Parent{dirs: []dir{d}}).Group("g"), file: os.NewFile(uintptr(event), "event"), fd: event, d: d}
	defer w.Close()
	ready := func() bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(event), Events: unix.POLLIN}}, 0)
		return n > 0
	}
	if kills, gone, err := w.Check(); kills != 0 || gone || err != nil || !ready() {
		t.Fatalf("before the kill: %d %t %v, again %t", kills, gone, err, ready())
	}
	count(1)
	if kills, _, err := w.Check(); kills != 1 || err != nil || ready() {
		t.Errorf("after it: %d %v, again %t", kills, err, ready())
	}
	if _, err := unix.Write(event, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	looks := 0
	for ; ready() && looks < 2*lateLooks; looks++ {
		if _, _, err := w.Check(); err != nil {
			t.Fatal(err)
		}
	}
	if looks != lateLooks+1 {
		t.Errorf("without a kill it was looked %d times, want %d", looks, lateLooks+1)
	}
}

// TestNestedOOM: what is killed in a group inside the group counts.
func TestNestedOOM(t *testing.T) {
	p := newParent(t, all)
	d, file, ok := p.oomFile()
	if !ok {
		t.Skip("no controller for memory")
	}
	g, err := p.Create("a", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](16 << 20), Swap: ptr[int64](16 << 20)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(d.Mount+p.path, "a", "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("echo $$ > %s/a/inner/cgroup.procs && head -c 60M /dev/zero | tail -c 50M >/dev/null", d.Mount+p.path)
	inside(t, g, script).Wait()
	if n, err := g.OOMKills(); n == 0 || err != nil {
		text, _ := os.ReadFile(filepath.Join(d.Mount+p.path, "a", "inner", file))
		t.Errorf("%d %v, inside %q", n, err, text)
	}
}

func TestStatsOnTheKernel(t *testing.T) {
	p := newParent(t, all)
	g, err := p.Create("a", &specs.LinuxResources{})
	if err != nil {
		t.Fatal(err)
	}
	inside(t, g, "head -c 20M /dev/zero | tail -c 15M >/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").Wait()
	inside(t, g, "sleep 100")
	s, err := g.Stats(AskAll)
	if err != nil {
		t.Fatal(err)
	}
	if s.CPU.Total <= 0 || s.CPU.User+s.CPU.System <= 0 || s.CPU.User+s.CPU.System > 2*s.CPU.Total+time.Second { // those are counted in ticks
		t.Errorf("processor: %+v", s.CPU)
	}
	if p.version("memory") != 0 {
		if s.Memory.Usage == 0 || s.Memory.Limit != NoLimit || s.Memory.Faults == 0 || len(s.Memory.Detail) == 0 {
			t.Errorf("memory: %+v", s.Memory)
		}
		if s.Memory.Peak != 0 && s.Memory.Peak < 15<<20 { // version 2 has it since 5.19
			t.Errorf("peak of memory %d after 15 MB", s.Memory.Peak)
		}
	}
	if p.version("pids") != 0 && (s.Pids.Current < 1 || s.Pids.Limit != NoLimit) {
		t.Errorf("pids: %+v", s.Pids)
	}
	if p.version("cpuacct") == 1 && len(s.CPU.PerCPU) == 0 {
		t.Error("no time for each processor")
	}
	if p.version("hugetlb") != 0 && len(s.Huge) == 0 {
		t.Error("no huge pages")
	}
	m := g.Meter(AskAll)
	defer m.Close()
	for range 2 {
		if again, err := m.Read(); err != nil || again.CPU.Total < s.CPU.Total {
			t.Errorf("read again: %+v %v", again, err)
		}
	}
	if err := g.Remove(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Read(); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("read after the end: %v", err)
	}
}

// BenchmarkStats is one reading of what a table shows.
func BenchmarkStats(b *testing.B) {
	tree, err := ReadTree()
	if err != nil {
		b.Fatal(err)
	}
	p, err := tree.OpenParent(fmt.Sprintf("/gantry-bench-%d", os.Getpid()), false)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	defer p.Remove()
	g, err := p.Create("a", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer g.Remove(context.Background())
	for name, what := range map[string]Ask{"columns": AskColumns, "all": AskAll, "pids": AskPids} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Stats(what); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("columns, kept open", func(b *testing.B) {
		m := g.Meter(AskColumns)
		defer m.Close()
		for b.Loop() {
			if _, err := m.Read(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("create and remove", func(b *testing.B) {
		for b.Loop() {
			g, err := p.Create("b", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](100)}})
			if err != nil {
				b.Fatal(err)
			}
			if err := g.Remove(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
