package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// atOnce is how many programs run together: they sleep most of the time.
const atOnce = 6

// TestValidation runs all programs and compares what they say with what is
// expected of them.
func TestValidation(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
	if mounts, _ := os.ReadFile("/proc/self/mounts"); !strings.Contains(string(mounts), " cgroup rw") {
		t.Skip("the programs know only cgroup version 1, which is not mounted here")
	}
	p := havePrograms(t)
	command, state := runtimeCommand(t)
	list, m := expected(), thisMachine()
	for name := range list {
		if !slices.Contains(p.names, name) {
			t.Errorf("expected of %s, which is none of the programs", name)
		}
	}
	free := make(chan struct{}, atOnce)
	var groups sync.Mutex // of programs that use the same cgroups
	var passed, part sync.Map
	t.Run("programs", func(t *testing.T) {
		for _, name := range p.names {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if sharesGroups(name) {
					groups.Lock()
					defer groups.Unlock()
				}
				free <- struct{}{}
				defer func() { <-free }()
				want := list[name]
				if want.on != nil && !want.on(m) {
					want = expectation{}
				}
				got := runProgram(t, p, command, name)
				for again := 0; again < triesOf(name) && !got.same(want); again++ {
					t.Logf("again, since it is a race: %q", got.fails)
					got = runProgram(t, p, command, name)
				}
				whole := got.same(expectation{})
				if !got.same(want) {
					t.Errorf("%d hold, %d skipped; fails %q, code %d, %s\nwant %q %s (%s)", got.ok, got.skipped, got.fails, got.code, got.says, want.fails, want.says, want.why)
				}
				if whole {
					passed.Store(name, true)
				} else {
					part.Store(name, want.why)
				}
			})
		}
	})
	t.Logf("%d of %d programs pass whole", size(&passed), len(p.names))
	part.Range(func(name, why any) bool { t.Logf("%s: %s", name, why); return true })
	clean(t, command, state)
}

func size(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return n
}

// sharesGroups reports whether a program uses the cgroups that others use too.
func sharesGroups(name string) bool {
	return strings.HasPrefix(name, "linux_cgroups_") || strings.HasPrefix(name, "delete_")
}

// runtimeCommand is gantry-oci with state of its own, as a program.
func runtimeCommand(t *testing.T) (command, state string) {
	t.Helper()
	dir := t.TempDir()
	state, err := os.MkdirTemp("/dev/shm", "gantry-oci-validation")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	command = dir + "/runtime"
	if err := rig.Build(); err != nil {
		t.Fatal(err)
	}
	bin, err := rig.Bin()
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s --root %s \"$@\"\n", filepath.Join(bin, "gantry-oci"), state)
	if err := os.WriteFile(command, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return command, state
}

// clean deletes what programs have left behind, and looks whether that was all.
func clean(t *testing.T, command, state string) {
	t.Helper()
	left, err := os.ReadDir(state)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if e.Name()[0] == '.' {
			continue
		}
		if out, err := exec.Command(command, "delete", "--force", e.Name()).CombinedOutput(); err != nil {
			t.Errorf("delete %s: %v %s", e.Name(), err, out)
		}
	}
	for _, name := range []string{"cgrouptest", "testdir/cgrouptest", "testdir"} {
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
		for _, g := range groups { // the programs name them; the one above a container's is not ours to remove
			if err := os.Remove(g); err != nil {
				t.Errorf("cgroup left: %v", err)
			}
		}
	}
}
