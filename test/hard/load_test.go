package hard

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/test/rig"
)

// execsEnv is how many programs TestManyExecs runs in a row; 1,000 if it is empty.
const execsEnv = "GANTRY_HARD_EXECS"

// weight is what the engine's own processes take.
type weight struct {
	processes, descriptors, threads int
	kib                             int            // resident
	each                            map[string]int // of that, by program
}

// TestManyExecs runs programs in a container in a row: engine and drivers take no
// more descriptors and processes than before, and hardly more memory.
func TestManyExecs(t *testing.T) {
	count := 1000
	if testing.Short() {
		count = 200
	}
	if text := os.Getenv(execsEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		count = n
	}
	w := newWorld(t, nil)
	w.gantry("run", "-d", "--name", "web", "busybox", "sleep", "1000")
	id := w.container("web").ID
	rest := func() (is weight) {
		w.must(w.client.Settle(w.within()))
		w.until("what is made ahead of demand is there again", func() bool {
			was := w.weigh()
			time.Sleep(300 * time.Millisecond)
			is = w.weigh()
			return is.processes == was.processes && is.threads == was.threads && is.descriptors == was.descriptors
		})
		return is
	}
	w.execs(t, id, 200) // buffers and pools have their size then
	before := rest()
	begun := time.Now()
	w.execs(t, id, count)
	each := time.Since(begun) / time.Duration(count)
	after := rest()
	t.Logf("%d execs, %v each: before %+v, after %+v", count, each, before, after)
	// One that stands by may just be missing; a leak shows as often as there are execs.
	few := 8 + count/40
	if after.processes > before.processes+few || after.descriptors > before.descriptors+few || after.threads > before.threads+few {
		t.Errorf("they grow: before %+v, after %+v", before, after)
	}
	// Of each there is a job, of which the engine remembers 10,000; and the heaps of
	// Go take twice what is alive, the blocks of the event stream (8 MiB) with them.
	if grown := after.kib - before.kib; grown > 64<<10+count*4 {
		t.Errorf("resident memory grows by %d KiB", grown)
	}
	if d := w.container("web"); len(d.State.Execs) > 200 {
		t.Errorf("the engine remembers %d execs of one container", len(d.State.Execs))
	}
	w.over()
}

// execs runs so many programs, one after the other.
func (w *world) execs(t *testing.T, id core.ContainerID, count int) {
	t.Helper()
	for i := range count {
		x := core.ExecID(rig.NewID())
		if err := w.client.Do(w.within(), &core.ExecContainer{ID: id, Exec: x, Spec: core.ExecSpec{Args: []string{"true"}}}); err != nil {
			t.Fatalf("exec %d: %v", i, err)
		}
	}
}

// weigh sums up gantryd and all that is in the engine's cgroups but not in a
// container.
func (w *world) weigh() weight {
	sum := weight{each: map[string]int{}}
	for _, pid := range append(w.Pids(), w.Pid()) {
		group, _ := os.ReadFile(procFile(pid, "cgroup")) // it may be gone
		if strings.Contains(string(group), "/containers/") {
			continue
		}
		fds, err := os.ReadDir(procFile(pid, "fd"))
		status, _ := os.ReadFile(procFile(pid, "status"))
		if err != nil {
			continue
		}
		sum.processes++
		sum.descriptors += len(fds)
		sum.threads += number(string(status), "Threads:")
		kib := number(string(status), "VmRSS:")
		sum.kib += kib
		line, _ := os.ReadFile(procFile(pid, "cmdline"))
		program, _, _ := strings.Cut(string(line), "\x00")
		sum.each[filepath.Base(program)] += kib
	}
	return sum
}

func number(status, key string) int {
	_, after, _ := strings.Cut(status, "\n"+key)
	n, _ := strconv.Atoi(append(strings.Fields(after), "0")[0]) // a kernel thread has none
	return n
}

// TestNoPidLeft: where no further process fits in, an exec says why, everything
// else works, and with room again execs do.
func TestNoPidLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.gantry("run", "-d", "--name", "full", "--pids-limit", "12", "busybox", "sh", "-c",
		"trap 'kill $(jobs -p); wait; while true; do sleep 0.1; done' USR1; for i in 1 2 3 4 5 6 7 8 9 10 11; do sleep 1000 & done; echo full; while true; do wait; done")
	w.until("it is full", func() bool { return w.gantry("logs", "full") == "full" })
	s := w.call("exec", "full", "true")
	if s.code != 126 && s.code != 125 || !strings.Contains(s.stderr, "pids") {
		t.Errorf("an exec where no process fits in: code %d after %v: %q", s.code, s.took, s.stderr)
	}
	t.Logf("exec: %d %s", s.code, s.stderr)
	w.gantry("stats", "--no-stream")
	w.gantry("top", "full")
	w.gantry("pause", "full")
	w.gantry("unpause", "full")
	w.gantry("update", "--pids-limit", "20", "full")
	w.gantry("exec", "full", "true")
	w.gantry("stop", "-t", "0", "full")
	w.over()
}

// TestForkBomb: it fills its limit and nothing else, and is gone when it is told to.
func TestForkBomb(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.gantry("run", "-d", "--name", "bomb", patient, "--pids-limit", "64", "--cpus", "0.5", helper(), "busybox", "/helper/ill", "bomb")
	d := w.container("bomb")
	w.until("the bomb fills its limit", func() bool { return len(w.groupPids(&d)) > 40 })
	for range 10 {
		time.Sleep(50 * time.Millisecond)
		if n := len(w.groupPids(&d)); n > 64 {
			t.Errorf("it has %d processes", n)
		}
	}
	w.gantry("run", "--rm", "busybox", "true")
	if s := w.call("stop", "-t", "0", "bomb"); s.code != 0 {
		t.Errorf("stop: code %d after %v: %s", s.code, s.took, s.stderr)
	}
	if n := len(w.groupPids(&d)); n > 0 {
		t.Errorf("%d processes of it are left", n)
	}
	// One without a pid namespace of its own is as dead.
	w.gantry("run", "-d", "--name", "loose", "--pid", "host", "--pids-limit", "64", "--cpus", "0.5", helper(), "busybox", "/helper/ill", "bomb")
	d = w.container("loose")
	w.until("the bomb fills its limit", func() bool { return len(w.groupPids(&d)) > 40 })
	w.gantry("rm", "-f", "loose")
	if n := len(w.groupPids(&d)); n > 0 {
		t.Errorf("%d processes of it are left", n)
	}
	w.over()
}

// TestMemoryBomb: who takes too much is killed, alone, and that is told.
func TestMemoryBomb(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const bomb = "x=0123456789abcdef; while true; do x=$x$x; done"
	s := w.call("run", "--name", "bomb", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", bomb)
	if s.code != 137 {
		t.Errorf("it ended with %d after %v: %s", s.code, s.took, s.stderr)
	}
	if e := w.ended("bomb"); !e.OOMKilled || e.Code != 137 || e.Lost {
		t.Errorf("it ended as %+v", e)
	}
	// In a tmpfs, whose pages nobody's death gives back.
	s = w.call("run", "--rm", "-m", "16m", "--memory-swap", "16m", "--tmpfs", "/t", "busybox", "sh", "-c", "cat /dev/zero > /t/file; exit 0")
	if s.code != 0 && s.code != 137 {
		t.Errorf("a full tmpfs: code %d after %v: %s", s.code, s.took, s.stderr)
	}
	// A child that is killed is not the container's end.
	w.gantry("run", "-d", "--name", "parent", "-m", "32m", "--memory-swap", "32m", "busybox", "sleep", "1000")
	if s := w.call("exec", "parent", "sh", "-c", bomb); s.code != 137 {
		t.Errorf("an exec that takes too much: code %d: %s", s.code, s.stderr)
	}
	w.until("the kill is counted", func() bool { d := w.container("parent"); return d.Running && d.OOMKills > 0 })
	w.over()
}
