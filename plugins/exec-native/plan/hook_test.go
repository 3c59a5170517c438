package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// state is what a hook is told.
func state(t *testing.T) ([]byte, uint32) {
	b, err := json.Marshal(map[string]any{"id": "c1", "status": "creating", "pid": 0, "annotations": map[string]string{"long": strings.Repeat("x", 9000)}})
	if err != nil {
		t.Fatal(err)
	}
	b = []byte(strings.Replace(string(b), `"pid":0`, `"pid":`+strings.Repeat(" ", PIDRoom), 1))
	at, ok := PIDPlace(b)
	if !ok {
		t.Fatal("no place for the pid")
	}
	return b, at
}

func TestHooks(t *testing.T) {
	text, at := state(t)
	s, out := newLeaving(t)
	s.contain(box(t), allNamespaces)
	saved := filepath.Join(t.TempDir(), "state")
	s.Add(StageMounts, Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > " + saved + "; hostname inside; echo hook $X; echo $(ls /proc/self/fd | wc -l)"},
		Env: []string{"X=1", "PATH=/bin:/usr/bin"}, State: text, PIDAt: at, TimeoutMilli: never}, Pivot{})
	s.Add(StageGate, Hook{Path: "/bin/busybox", Args: []string{"sh", "-c", "busybox wc -c; echo $0 second"}, State: text, PIDAt: at})
	s.sh("hostname").leave().until(ReportRunning)
	got, _ := io.ReadAll(out)
	if want := fmt.Sprintf("hook 1\n4\n%d\nsh second\ninside\n", len(text)); string(got) != want {
		t.Errorf("%q, not %q", got, want)
	}
	b, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	var told struct {
		ID  string
		PID int
	}
	if err := json.Unmarshal(b, &told); err != nil || told.ID != "c1" || told.PID != 1 {
		t.Errorf("%+v, %v", told, err)
	}
	s.wait()
}

func TestHooksThatFail(t *testing.T) {
	text, at := state(t)
	for _, c := range []struct {
		hook   Hook
		errno  syscall.Errno
		status int
	}{
		{Hook{Path: "/no/such", Args: []string{"x"}}, syscall.ENOENT, 0},
		{Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 3"}}, syscall.ECHILD, 3 << 8},
		{Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "kill -9 $$"}}, syscall.ECHILD, 9},
		{Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 100 & sleep 100"}, TimeoutMilli: 50}, syscall.ETIMEDOUT, 0},
	} {
		for _, stay := range []bool{false, true} {
			var s *shim
			if stay {
				s = newShim(t, Monitor{}, 0)
			} else {
				s, _ = newLeaving(t)
			}
			c.hook.State, c.hook.PIDAt = text, at
			c.hook.Env = []string{"PATH=/bin:/usr/bin"}
			s.Add(StageClone, Clone{Cgroup: NoFD})
			s.Add(StageGate, c.hook)
			s.Add(StageExec, Sweep{}, Exec{Paths: []string{"/bin/true"}, Args: []string{"true"}})
			begin := time.Now()
			if stay {
				s.start()
			} else {
				s.leave()
			}
			r := s.failure()
			if r.Op != KindHook || r.Errno != c.errno || r.Signal != c.status || time.Since(begin) > patience {
				t.Errorf("%v: %+v: %v", c.hook.Args, r, r.Err())
			}
			if !stay {
				s.wait()
			}
		}
	}
}
