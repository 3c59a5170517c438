package execnative

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

func probeRequest(k execdriver.Key, script string) execdriver.Probe {
	return execdriver.Probe{
		Key: k, Process: execdriver.Process{Args: []string{"/bin/sh", "-c", script}}, Timeout: patience, Keep: 4096,
	}
}

func TestProbe(t *testing.T) {
	b := newBench(t)
	r, s := b.idle(nil)
	got, err := b.d.Probe(context.Background(), probeRequest(r.Key, "hostname; echo bad >&2; exit 3"))
	if err != nil || got.Code != 3 || string(got.Output) != "box\nbad\n" || got.TimedOut || !got.Ended.After(got.Begun) {
		t.Errorf("%+v %q %v", got, got.Output, err)
	}
	// Much output is cut and does not hold the program up.
	p := probeRequest(r.Key, "dd if=/dev/zero bs=1M count=8 2>/dev/null")
	p.Keep = 10
	if got, err := b.d.Probe(context.Background(), p); err != nil || got.Code != 0 || len(got.Output) != 10 {
		t.Errorf("much output: %+v %v", got, err)
	}
	// At the timeout its children are killed too.
	p = probeRequest(r.Key, "echo so far; sleep 1234 & sleep 1234")
	for p.Timeout = 300 * time.Millisecond; ; p.Timeout *= 2 { // within which the machine starts a shell
		got, err = b.d.Probe(context.Background(), p)
		if err != nil || !got.TimedOut || p.Timeout > patience {
			t.Fatalf("timeout: %+v %q %v", got, got.Output, err)
		}
		if string(got.Output) == "so far\n" {
			break
		}
	}
	b.eventually("its processes are gone", func() bool {
		pids, _ := b.d.containers.Group(groupName(r.Key)).Pids()
		return len(pids) == 2 // the shell and its sleep
	})
	p = probeRequest(r.Key, "")
	p.Process.Args = []string{"/no/such"}
	if _, err := b.d.Probe(context.Background(), p); !errdefs.IsNotFound(err) {
		t.Errorf("missing program: %v", err)
	}
	// Nothing of a probe is left, or told.
	if items, err := b.d.List(context.Background()); err != nil || len(items) != 1 {
		t.Errorf("list: %+v %v", items, err)
	}
	if dirs := b.runDirs(); len(dirs) != 1 {
		t.Errorf("run directories: %v", dirs)
	}
	if err := unix.Kill(s.PID, 0); err != nil {
		t.Error(err)
	}
	if err := b.d.Freeze(context.Background(), r.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := b.d.Probe(context.Background(), probeRequest(r.Key, "true")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("in a paused container: %v", err)
	}
}

// TestLongRunDirectory: a socket whose path no address holds is reached, by a probe,
// by who attaches and by who copies.
func TestLongRunDirectory(t *testing.T) {
	b := newBenchAt(t, strings.Repeat("/directory", 12))
	r := b.request("read line; echo got $line >/said; sleep 1000")
	r.Stdio.OpenStdin = true
	if _, err := b.d.Start(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	if n := len(execdriver.SocketPath(b.cfg.Run, r.Key)); n <= 107 {
		t.Fatalf("the path has only %d bytes", n)
	}
	if got, err := b.d.Probe(context.Background(), probeRequest(r.Key, "hostname")); err != nil || string(got.Output) != "box\n" {
		t.Errorf("probe: %+v %v", got, err)
	}
	b.sendInput(context.Background(), r.Key, "input\n")
	b.eventually("the input is read", func() bool {
		out, err := b.copyOut(copyOf(r, "/said", true))
		return err == nil && len(out) == 1 && strings.HasSuffix(out[0], "got input")
	})
	if left := b.runDirs(); len(left) != 1 {
		t.Errorf("sockets left: %v", left)
	}
}

// apart makes a process group of its own, in the session that it was started in.
const apart = "#include <unistd.h>\nint main(void) { setpgid(0, 0); for (;;) pause(); }\n"

// TestProbeSession ends at the timeout in all its process groups. What has made
// a session of its own stays.
func TestProbeSession(t *testing.T) {
	b := newBench(t)
	b.links("setsid")
	cc := exec.Command("gcc", "-static", "-O1", "-x", "c", "-o", b.lower+"/bin/apart", "-")
	cc.Stdin = strings.NewReader(apart)
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r, _ := b.idle(nil)
	p := probeRequest(r.Key, "apart >/dev/null 2>&1 & setsid sleep 1233 >/dev/null 2>&1 & sleep 1234")
	names := func() string {
		pids, _ := b.d.containers.Group(groupName(r.Key)).Pids()
		var out []string
		for _, pid := range pids {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			out = append(out, strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " ")))
		}
		return strings.Join(out, "; ")
	}
	// How long the daemon takes to have a session of its own is the machine's affair.
	for p.Timeout = 300 * time.Millisecond; !strings.Contains(names(), "sleep 1233"); p.Timeout *= 2 {
		if p.Timeout > 20*time.Second {
			t.Fatalf("the daemon was not spared: %s", names())
		}
		if got, err := b.d.Probe(context.Background(), p); err != nil || !got.TimedOut {
			t.Fatalf("%+v %v", got, err)
		}
		b.eventually("all of the session is gone", func() bool {
			left := names()
			return !strings.Contains(left, "apart") && !strings.Contains(left, "1234")
		})
	}
}

func TestFreeze(t *testing.T) {
	b := newBench(t)
	r := b.request("i=0; while :; do i=$((i+1)); echo $i > /out/n; done")
	out := t.TempDir()
	r.Mounts = bindOut(out)
	if _, err := b.d.Start(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	count := func() string { text, _ := os.ReadFile(out + "/n"); return string(text) }
	b.eventually("it counts", func() bool { return count() != "" })
	for range 2 { // repeated
		if err := b.d.Freeze(context.Background(), r.Key); err != nil {
			t.Fatal(err)
		}
	}
	was := count()
	time.Sleep(50 * time.Millisecond)
	if now := count(); now != was {
		t.Errorf("frozen, it counts on: %q, %q", was, now)
	}
	for range 2 {
		if err := b.d.Thaw(context.Background(), r.Key); err != nil {
			t.Fatal(err)
		}
	}
	b.eventually("it counts on", func() bool { return count() != was })
	if err := b.d.Freeze(context.Background(), r.Key); err != nil {
		t.Fatal(err)
	}
	if err := b.d.Signal(context.Background(), r.Key, 9); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(r.Key); e.Code != 137 {
		t.Errorf("killed while frozen: %+v", e)
	}
	if err := b.d.Freeze(context.Background(), r.Key); !errdefs.IsNotFound(err) {
		t.Errorf("freeze what has ended: %v", err)
	}
	if err := b.d.Thaw(context.Background(), r.Key); !errdefs.IsNotFound(err) {
		t.Errorf("thaw what has ended: %v", err)
	}
}

func TestUpdate(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(func(r *execdriver.Start) {
		r.Resources = execdriver.Resources{MemoryBytes: 64 << 20, PidsLimit: 20}
	})
	files, before, after := "memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.shares", "67108864 20 -1 1024", "134217728 max 50000 512"
	if unified() {
		files, before, after = "memory.max pids.max cpu.max cpu.weight", "67108864 20 max 100000 100", "134217728 max 50000 100000 59"
	}
	look := func() string {
		out, _ := b.exec(execRequest(r.Key, "cd /sys/fs/cgroup; cat "+files), "")
		return strings.Join(strings.Fields(out), " ")
	}
	if got := look(); got != before {
		t.Errorf("at first %q", got)
	}
	limits := execdriver.Resources{MemoryBytes: 128 << 20, NanoCPUs: 5e8, CPUShares: 512}
	if err := b.d.Update(context.Background(), r.Key, limits); err != nil {
		t.Fatal(err)
	}
	if got := look(); got != after {
		t.Errorf("after the update %q", got)
	}
	// All or nothing: the set of processors is refused, so the memory stays.
	limits.MemoryBytes, limits.CpusetCPUs = 256<<20, "4095"
	if err := b.d.Update(context.Background(), r.Key, limits); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "cpuset.cpus") {
		t.Errorf("impossible processors: %v", err)
	}
	if got := look(); got != after {
		t.Errorf("after the refused update %q", got)
	}
}
