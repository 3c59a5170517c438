package plan

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEarly runs what others test with an init that was made before its plan.
func TestEarly(t *testing.T) {
	t.Setenv("GANTRY_TEST_EARLY", "early")
	for _, c := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"isolation", TestIsolation}, {"descriptors", TestDescriptors}, {"user namespace", TestUserNamespace},
		{"cgroups v1", TestCgroupsV1}, {"cgroups v2", TestCgroupsV2}, {"join", TestJoin}, {"terminal", TestTerminal},
		{"signal", TestExitBySignal}, {"failures", TestStartFailures}, {"gate", TestFailureTellsAttachedClient},
		{"sync", TestContinueAtSync}, {"abort", TestAbortAtSync}, {"no driver", TestLivesOnWithoutDriver},
		{"stdin", TestStdin}, {"hooks", TestHooks}, {"seccomp", TestSeccomp}, {"listener", TestListener},
		{"leaving", TestLeaving}, {"leaving failures", TestLeavingFailures}, {"leaving users", TestLeavingUserNamespace},
		{"start gate", TestStartGate}, {"creator dies", TestCreatorDies}, {"kept", TestKeptDescriptors},
		{"leaving terminal", TestLeavingTerminal}, {"nothing at gate", TestNothingOpenAtGate},
	} {
		t.Run(c.name, c.f)
	}
}

// TestStandby runs what others test with a monitor that was made before its
// plan, and with an init that was, too.
func TestStandby(t *testing.T) {
	for _, mode := range []string{"standby", "standby,early"} {
		t.Setenv("GANTRY_TEST_EARLY", mode)
		for _, c := range []struct {
			name string
			f    func(*testing.T)
		}{
			{"isolation", TestIsolation}, {"descriptors", TestDescriptors}, {"user namespace", TestUserNamespace},
			{"cgroups v1", TestCgroupsV1}, {"cgroups v2", TestCgroupsV2}, {"join", TestJoin}, {"terminal", TestTerminal},
			{"failures", TestStartFailures}, {"gate", TestFailureTellsAttachedClient}, {"abort", TestAbortAtSync},
			{"no driver", TestLivesOnWithoutDriver}, {"seccomp", TestSeccomp},
		} {
			t.Run(mode+"/"+c.name, c.f)
		}
	}
}

// TestStandbyUnused: one that was not needed is gone when Close returns, and one
// that is not let go of leaves with the driver's end of the socket.
func TestStandbyUnused(t *testing.T) {
	path := ownShim(t)
	w, err := Spawn(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Standby(nil, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the one shim", func() bool { return len(running(t, path)) == 1 })
	w.Close()
	if left := running(t, path); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestQuiet: only what somebody waits for is told.
func TestQuiet(t *testing.T) {
	t.Setenv("GANTRY_TEST_EARLY", "standby")
	s := newShim(t, Monitor{Flags: Quiet}, 0).host("/bin/true").start()
	s.until(ReportExited)
	for _, r := range s.seen {
		if r.Kind != ReportRunning && r.Kind != ReportExited {
			t.Errorf("%+v", r)
		}
	}
}

// TestEarlyWithoutPlan: an init that never gets a plan goes with the driver's
// end of the socket.
func TestEarlyWithoutPlan(t *testing.T) {
	path := ownShim(t)
	for _, leave := range []bool{false, true} {
		w, err := Spawn(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Early(Early{Clone: allNamespaces, Leave: leave}); err != nil {
			t.Fatal(err)
		}
		// Beside the init its maker: the monitor, or the helper.
		eventually(t, "the init", func() bool { return len(running(t, path)) == 2 })
		w.Close()
		eventually(t, "all to be gone", func() bool {
			return len(running(t, path)) == 0
		})
	}
}

// ownShim is a copy of the shim that no other test executes.
func ownShim(t *testing.T) string {
	t.Helper()
	path, err := buildShim()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "shim")
	if err := os.WriteFile(own, program, 0o755); err != nil {
		t.Fatal(err)
	}
	return own
}

// running lists the processes of a program, zombies left out.
func running(t *testing.T, program string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, l := range links {
		if to, _ := os.Readlink(l); to == program {
			found = append(found, l)
		}
	}
	return found
}

// TestEarlyThatDoesNotFit: with a monitor another init is made, without one the
// plan is refused.
func TestEarlyThatDoesNotFit(t *testing.T) {
	path, err := buildShim()
	if err != nil {
		t.Fatal(err)
	}
	for _, leave := range []bool{false, true} {
		var s *shim
		if leave {
			s, _ = newLeaving(t)
		} else {
			s = newShim(t, Monitor{}, 0)
		}
		s.host("/bin/true")
		b, err := s.Encode(len(s.files))
		if err != nil {
			t.Fatal(err)
		}
		w, err := Spawn(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Early(Early{Clone: unix.CLONE_NEWNS, Leave: leave}); err != nil {
			t.Fatal(err)
		}
		if leave {
			s.conn, err = w.Leave(t.Context(), b, s.files)
		} else {
			s.conn, err = w.Start(t.Context(), b, s.files)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !leave {
			s.until(ReportExited)
			continue
		}
		if r := s.failure(); r.Op != KindClone || !errors.Is(r.Err(), syscall.EINVAL) {
			t.Errorf("%+v", r)
		}
		s.conn.Close()
		s.wait()
	}
}
