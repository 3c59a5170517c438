package rig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if err := Build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestStrayThingsAreSeen makes one thing of each kind that a leak would leave,
// and wants the inventory to show it, the comparison with the log to fail where a
// container would have it, and Close to take it away.
func TestStrayThingsAreSeen(t *testing.T) {
	e, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = e.Close() // the test has failed already
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := e.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Agrees(ctx, e); err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("ab", 32)
	for _, s := range strays(e, id) {
		before, err := e.Inventory()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.make(); err != nil {
			t.Fatalf("%s: %v", s.want, err)
		}
		after, err := e.Inventory()
		if err != nil {
			t.Fatal(err)
		}
		if diff := Diff(before, after); !strings.Contains(diff, "+ "+s.want) {
			t.Errorf("the inventory does not show %q: %q", s.want, diff)
		}
		if err := c.compare(ctx, e); s.held && err == nil {
			t.Errorf("the log agrees with a machine that has %q", s.want)
		}
		if passes(s.want) != (s.held || strings.HasPrefix(s.want, "process ")) {
			t.Errorf("whether %q goes with its container is not known", s.want)
		}
	}
	closed = true
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{e.Dir, e.Run} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
	if left := cgroups(e.Name); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}

type stray struct {
	want string // begins its line
	held bool   // a container would have it
	make func() error
}

func strays(e *Engine, id string) []stray {
	dir := func(parts ...string) func() error {
		return func() error { return os.MkdirAll(filepath.Join(parts...), 0o755) }
	}
	in := func(args ...string) func() error {
		return func() error {
			_, err := e.InNet(args[0], args[1:]...)
			return err
		}
	}
	group := filepath.Join(hierarchies()[0], groupPrefix+e.Name, "containers", id+"-1")
	return []stray{
		{"link gvstray", true, in("ip", "link", "add", "gvstray", "type", "veth", "peer", "name", "other")},
		{"rule table inet stray", false, in("nft", "add", "table", "inet", "stray")},
		{"cgroup " + group, true, dir(group)},
		{"run exec-native/" + id[:16] + "-1", true, dir(e.Run, "exec-native", id[:16]+"-1")},
		{"data graphdriver-overlay/rootfs/" + id, true, dir(e.Root, "drivers/graphdriver-overlay/rootfs", id)},
		{"data exec-native/" + id, true, dir(e.Root, "drivers/exec-native", id)},
		{"key " + id, true, func() error { return os.WriteFile(filepath.Join(e.Root, "keys", id), nil, 0o600) }},
		{"mount tmpfs " + e.Run + "/m", true, func() error {
			if err := os.Mkdir(e.Run+"/m", 0o755); err != nil {
				return err
			}
			return syscall.Mount("none", e.Run+"/m", "tmpfs", 0, "")
		}},
		{"process sleep", false, func() error { return sleepIn(group) }},
	}
}

// sleepIn leaves a process in a cgroup, in a namespace of its own.
func sleepIn(group string) error {
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS}})
	if err != nil {
		return err
	}
	go func() { _, _ = p.Wait() }() // killed by Close
	return os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Append(nil, p.Pid), 0o644)
}
