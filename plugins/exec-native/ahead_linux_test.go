package execnative

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryd/gantry/sdk/execdriver"
)

// spareDirs counts the directories of spare cgroups.
func (b *bench) spareDirs() int {
	n := 0
	for _, h := range b.d.tree.Hierarchies {
		found, _ := filepath.Glob(h.Mount + b.cfg.Cgroup + "/containers/.spare-*")
		n += len(found)
	}
	return n
}

// full reports whether everything waits that is made ahead.
func (b *bench) full() bool {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	return len(b.d.aheads) == warmShims && len(b.d.warm) == warmShims
}

// TestAhead: a container looks the same whether its parts were made ahead or
// not, and one that wants something else than others gets it.
func TestAhead(t *testing.T) {
	b := newBench(t)
	look := "stat -c '%n %A %u %g %t %T' /dev/* /dev/pts/ptmx; cat /proc/self/mounts | sed 's/^overlay.*//' | sort; ls -l /sys/fs/cgroup | sed 's/.*:[0-9]* //'; cat /proc/self/cgroup"
	clean := func(out string, id string) string { return strings.ReplaceAll(out, id, "ID") }
	for name, change := range map[string]func(*execdriver.Start){
		"plain":      func(*execdriver.Start) {},
		"privileged": func(r *execdriver.Start) { r.Security.Privileged = true },
		"shm size":   func(r *execdriver.Start) { r.ShmBytes = 1 << 20 },
	} {
		var out []string
		for _, warm := range []bool{true, false} {
			if warm {
				b.eventually("all made ahead", b.full)
			} else {
				b.d.coolDown()
			}
			r := b.request(look)
			change(&r)
			text, e := b.run(r)
			if e.Code != 0 || strings.Count(text, "\n") < 20 {
				t.Fatalf("%s: %d: %s", name, e.Code, text)
			}
			out = append(out, clean(text, r.Container))
		}
		if out[0] != out[1] {
			t.Errorf("%s: made ahead\n%s\nand not\n%s", name, out[0], out[1])
		}
		b.d.mu.Lock()
		b.d.closed = false
		b.d.mu.Unlock()
		go b.d.warmUp()
	}
}

// TestAheadIsUsed: of a plain container's spare and mounts nothing is left over.
func TestAheadIsUsed(t *testing.T) {
	b := newBench(t)
	b.eventually("all made ahead", b.full)
	b.d.mu.Lock()
	a := b.d.aheads[warmShims-1]
	parts := len(b.d.parts)
	b.d.mu.Unlock()
	v1 := 0
	for _, h := range b.d.tree.Hierarchies {
		if !h.Unified {
			v1++
		}
	}
	if b.spareDirs() != v1*warmShims || (a.group == nil) != (v1 == 0) {
		t.Errorf("%d spare cgroups in %d hierarchies", b.spareDirs(), v1)
	}
	// Kernels before 6.15 attach nothing to what is attached nowhere.
	if _, shown := a.mounts[cgroupTarget]; len(a.mounts) < parts && shown || len(a.mounts) < 3 {
		t.Errorf("%d mounts of %d parts", len(a.mounts), parts)
	}
	expect(t, b, b.request("echo up"), "up")
	if a.group != nil || len(a.mounts) > 0 || a.run != nil || a.log != "" {
		t.Errorf("left: %+v", a)
	}
}

// TestSparesGo: with an orderly end nothing is left, and what a killed driver
// leaves the next one removes.
func TestSparesGo(t *testing.T) {
	b := newBench(t)
	b.eventually("all made ahead", b.full)
	old := b.d
	for _, h := range old.tree.Hierarchies { // as another process would have named it
		if !h.Unified {
			if err := os.Mkdir(h.Mount+b.cfg.Cgroup+"/containers/.spare-1-7", 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if items, err := old.List(t.Context()); err != nil || len(items) > 0 {
		t.Errorf("%v, %v: spares are nobody's", items, err)
	}
	left := []string{b.cfg.Root + "/.spare-1-7", b.cfg.Root + "/.gone-1-8", b.cfg.Run + "/.spare-1-7"}
	for _, dir := range left {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// Of a start that died before its directory had its name.
	if err := os.WriteFile(b.cfg.Run+"/.spare-1-7/intent", []byte(`{"container":"box","run":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
	b.eventually("all made ahead", b.full)
	for _, dir := range left {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
	for _, h := range b.d.tree.Hierarchies {
		if _, err := os.Stat(h.Mount + b.cfg.Cgroup + "/containers/.spare-1-7"); err == nil {
			t.Errorf("a spare is left in %s", h.Mount)
		}
	}
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	expect(t, b, b.request("echo up"), "up") // whatever has become of its spares
	err := b.d.Close()
	logs, _ := filepath.Glob(b.cfg.Root + "/.*-*-*")
	runs, _ := filepath.Glob(b.cfg.Run + "/.spare-*")
	if err != nil || b.spareDirs() > 0 || len(logs)+len(runs) > 0 {
		t.Errorf("%v, %d spares left, logs %v, runs %v", err, b.spareDirs(), logs, runs)
	}
	b.open()
}
