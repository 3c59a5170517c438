package execnative

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/execdriver"
)

func TestStats(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(func(r *execdriver.Start) {
		r.Process.Args[2] = "dd if=/dev/zero of=/dev/shm/f bs=1M count=20 2>/dev/null; echo up; while ! test -e /tmp/enough; do :; done; sleep 1000; true"
		r.Resources = execdriver.Resources{MemoryBytes: 200 << 20, PidsLimit: 30}
	})
	// The kernel looks every few milliseconds whose time it is.
	b.eventually("it has worked", func() bool { return b.output(b.d.runs[r.Key].log) == "up\n" && b.measured(r.Key).CPUUser > 0 })
	if err := b.copyIn(copyOf(r, "/tmp", true), file("enough", "")); err != nil {
		t.Fatal(err)
	}
	b.eventually("the shell and its sleep", func() bool { return b.measured(r.Key).Pids == 2 })
	gone := execdriver.Key{Container: "gone", Run: 1}
	for range 2 { // opened, then kept open
		began := time.Now()
		all, err := b.d.Stats(context.Background(), []execdriver.Key{gone, r.Key})
		if err != nil || len(all) != 1 {
			t.Fatalf("%+v %v", all, err)
		}
		s := all[0]
		if s.Key != r.Key || s.Time.Before(began) || s.CPU <= 0 || s.CPUUser <= 0 || s.CPUs < 1 || s.MemoryBytes < 20<<20 || s.MemoryMax < s.MemoryBytes ||
			s.MemoryLimit != 200<<20 || s.Pids != 2 || s.PidsLimit != 30 || s.OOMKills != 0 || len(s.Interfaces) != 0 {
			t.Errorf("%+v", s)
		}
	}
	// The files are let go of.
	b.d.closeMeters()
	if n := len(b.d.meters.open); n != 0 {
		t.Errorf("%d meters are open", n)
	}
}

// measured is what a run uses now.
func (b *bench) measured(k execdriver.Key) execdriver.Stats {
	b.t.Helper()
	all, err := b.d.Stats(context.Background(), []execdriver.Key{k})
	if err != nil || len(all) != 1 {
		b.t.Fatalf("%+v %v", all, err)
	}
	return all[0]
}

// TestStatsLetGoOfEnded: whoever asks all the time keeps no files of runs that have
// ended meanwhile.
func TestStatsLetGoOfEnded(t *testing.T) {
	b := newBench(t)
	first, _ := b.idle(nil)
	second, _ := b.idle(nil)
	keys := []execdriver.Key{first.Key, second.Key}
	for _, want := range []int{2, 1} {
		if all, err := b.d.Stats(t.Context(), keys); err != nil || len(all) != want {
			t.Fatalf("%+v %v", all, err)
		}
		b.d.meters.mu.Lock()
		if n := len(b.d.meters.open); n != want {
			t.Errorf("%d meters are open, want %d", n, want)
		}
		b.d.meters.mu.Unlock()
		if err := b.d.Release(t.Context(), first.Key); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProcesses(t *testing.T) {
	b := newBench(t)
	began := time.Now().Add(-time.Second) // times of processes are told in ticks since the boot
	r, s := b.idle(nil)
	x := execRequest(r.Key, "sleep 1001")
	x.Process.User, x.Process.TTY, x.Stdio.WaitAttach = "4711", true, false
	got, err := b.d.Exec(context.Background(), x)
	if err != nil {
		t.Fatal(err)
	}
	var tasks []execdriver.Task
	b.eventually("the shell, its sleep and the exec", func() bool {
		tasks, err = b.d.Processes(context.Background(), r.Key)
		fresh := func(t execdriver.Task) bool { return len(t.Args) == 0 } // while it is executed it has no words
		return err == nil && len(tasks) == 3 && !slices.ContainsFunc(tasks, fresh)
	})
	find := func(pid int) execdriver.Task {
		i := slices.IndexFunc(tasks, func(t execdriver.Task) bool { return t.PID == pid })
		if i < 0 {
			t.Fatalf("no process %d in %+v", pid, tasks)
		}
		return tasks[i]
	}
	first, exec := find(s.PID), find(got.PID)
	if first.User != "root" || first.TTY != "?" || first.Name != "sh" || len(first.Args) != 3 || first.RSS <= 0 || first.Started.Before(began) || first.Started.After(time.Now()) {
		t.Errorf("first process: %+v", first)
	}
	if exec.User != "4711" || exec.UID != 4711 || exec.TTY != "pts/0" || !slices.Equal(exec.Args, []string{"sleep", "1001"}) && exec.Args[0] != "/bin/sh" {
		t.Errorf("exec: %+v", exec)
	}
	if _, err := b.d.Processes(context.Background(), execdriver.Key{Container: "gone", Run: 1}); !errdefs.IsNotFound(err) {
		t.Errorf("of a run that is not: %v", err)
	}
}

func TestBoundArgs(t *testing.T) {
	tasks := []execdriver.Task{{Args: []string{"four"}}, {Args: []string{"much", "too", "long"}}, {Args: []string{"four"}}, {Args: []string{"x"}}}
	boundArgs(tasks, 10)
	var got []int
	for _, task := range tasks {
		got = append(got, len(task.Args))
	}
	if !slices.Equal(got, []int{1, 0, 1, 0}) {
		t.Errorf("words left: %v", got)
	}
}

func TestParseStat(t *testing.T) {
	boot := time.Unix(1000, 0)
	got, ok := parseStat("42 (a) b (c) S 7 42 42 34818 42 0 0 0 0 0 150 50 0 0 20 0 1 0 200 0 3 0", boot)
	want := execdriver.Task{Name: "a) b (c", PPID: 7, TTY: "pts/2", CPU: 2 * time.Second, Started: boot.Add(2 * time.Second), RSS: 3 * int64(os.Getpagesize())}
	if !ok || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	const ticks = 40 * 365 * 24 * 3600 * 100 // forty years: of a machine with many processors that is soon
	got, _ = parseStat(fmt.Sprint("42 (a) S 7 42 42 0 42 0 0 0 0 0 ", ticks/2, " ", ticks/2, " 0 0 20 0 1 0 ", ticks, " 0 3 0"), boot)
	if years := 40 * 365 * 24 * time.Hour; got.CPU != years || !got.Started.Equal(boot.Add(years)) {
		t.Errorf("of forty years: %v since %v", got.CPU, got.Started)
	}
	for _, text := range []string{"", "42", "42 (a", "42 (a) S 1"} {
		if _, ok := parseStat(text, boot); ok {
			t.Errorf("%q was read", text)
		}
	}
}

// TestOOMs of a container that goes on.
func TestOOMs(t *testing.T) {
	b := newBench(t)
	r := b.request("while :; do sleep 0.05; (dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null); done")
	r.Resources.MemoryBytes, r.Resources.MemorySwapBytes = 32<<20, 32<<20
	if _, err := b.d.Start(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	enough := errors.New("enough")
	var last uint64
	err := b.d.OOMs(ctx, func(o execdriver.OOM) error {
		if o.Key != r.Key || o.Count <= last || o.Time.IsZero() {
			t.Errorf("told %+v after %d", o, last)
		}
		if last = o.Count; last > 1 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("%v after %d", err, last)
	}
	// Whoever asks later hears it first.
	err = b.d.OOMs(ctx, func(o execdriver.OOM) error {
		if o.Count < last {
			t.Errorf("at first %+v", o)
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}
