package sim

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds = flag.Int("seeds", 2000, "how many stories")
	first = flag.Uint64("first", 1, "the first of them")
	seed1 = flag.Uint64("seed", 0, "tell this story alone, with -v in full")
	bugs  = flag.Bool("bugs", false, "stop at the first violation and ask for no coverage: this build has a planted bug")
)

// commands is what each story's clients send at least.
const commands = 220

// TestSeeds tells many stories, and wants everything that can occur to occur in
// one of them.
func TestSeeds(t *testing.T) {
	cover := NewCoverage()
	if *seed1 != 0 {
		o := Options{Seed: *seed1, Commands: commands}
		if testing.Verbose() {
			o.Trace = func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
		}
		if err := Run(o, cover); err != nil {
			t.Fatalf("seed %d: %v", *seed1, err)
		}
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // stories are small and leave much behind
	begun := time.Now()
	told := stories(t, cover)
	t.Logf("%d stories in %v", told, time.Since(begun).Round(time.Millisecond))
	if testing.Verbose() {
		t.Logf("what occurred:\n%s", cover.Table())
	}
	if !*bugs && *seeds >= 500 && !t.Failed() {
		for _, what := range cover.Lacking(wanted(t)) {
			t.Errorf("in no story occurred %s", what)
		}
	}
}

// stories tells all of them, on all processors, and how many were told.
func stories(t *testing.T, cover *Coverage) int {
	var next, told atomic.Uint64
	var failures atomic.Int32
	next.Store(*first)
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for failures.Load() < 5 {
				seed := next.Add(1) - 1
				if seed >= *first+uint64(*seeds) {
					return
				}
				told.Add(1)
				if err := Run(Options{Seed: seed, Commands: commands}, cover); err != nil {
					failures.Add(1)
					t.Errorf("sim: seed %d: %v\nreproduce: go test ./test/sim -run TestSeeds -v -seed %d", seed, err, seed)
					if *bugs {
						failures.Store(5)
					}
				}
			}
		})
	}
	all.Wait()
	return int(told.Load())
}

// wanted is what must occur.
func wanted(t *testing.T) map[string][]string {
	w := map[string][]string{"failure": FailurePhases(), "class": FaultClasses(), "disk": DiskFaults()}
	for _, p := range CrashPoints() {
		w["crash"] = append(w["crash"], p+", killed", p+", power lost")
	}
	for _, m := range []string{"command", "answer", "step", "cancel", "acknowledgement", "result", "heartbeat", "report", "exit", "receipt"} {
		w["wire"] = append(w["wire"], m+" lost", m+" doubled", m+" delayed")
	}
	w["wire"] = append(w["wire"], "step joined")
	w["client"] = []string{"a job repeated", "another command under a job's id"}
	w["world"] = []string{"engine ends in order", "host lost", "something is taken", "something is put there", "network is lost with its driver"}
	catalogue, err := os.ReadFile("../../core/testdata/catalogue.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(catalogue)) {
		kind, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if line[0] != ' ' && kind != "command" {
			w[kind] = append(w[kind], name)
		}
	}
	return w
}

// TestSameSeedSameStory tells a story twice.
func TestSameSeedSameStory(t *testing.T) {
	tell := func() string {
		var b strings.Builder
		err := Run(Options{Seed: 7, Commands: commands, Trace: func(format string, args ...any) {
			fmt.Fprintf(&b, format+"\n", args...)
		}}, NewCoverage())
		return fmt.Sprint(b.String(), err)
	}
	a, b := strings.Split(tell(), "\n"), strings.Split(tell(), "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("line %d:\n%s\n%s", i, a[i], b[i])
		}
	}
	if len(a) != len(b) {
		t.Fatalf("%d lines, then %d", len(a), len(b))
	}
}

// TestPlantedBugs builds the simulator with each planted bug and wants it found.
func TestPlantedBugs(t *testing.T) {
	if *bugs || *seed1 != 0 {
		return // this is such a build, or one story is asked for
	}
	for _, bug := range []string{
		"dispatch_before_fsync", "stale_fold", "forget_network", "late_finish", "lose_exit", "skip_epoch",
	} {
		t.Run(bug, func(t *testing.T) {
			begun := time.Now()
			cmd := exec.Command("go", "test", "-tags", "planted_"+bug, "-run", "^TestSeeds$", ".", "-args", "-bugs", "-seeds", "300")
			out, err := cmd.CombinedOutput()
			found, _, _ := strings.Cut(string(out[max(0, strings.Index(string(out), "sim: seed")):]), "\n")
			switch {
			case err == nil:
				t.Fatalf("300 stories, and nobody noticed:\n%s", out)
			case !strings.Contains(string(out), "sim: seed"):
				t.Fatalf("it failed, but not because of the bug: %v\n%s", err, out)
			}
			t.Logf("found after %v: %s", time.Since(begun).Round(time.Millisecond), found)
		})
	}
}
