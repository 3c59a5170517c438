package execnative

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// TestProfileStopsTheInit: the start fails at once, and says why. With
// no_new_privs the filter comes right before the program, where the init can no
// longer say anything itself if it may neither execute nor speak.
func TestProfileStopsTheInit(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		action string
		nnp    bool
		says   string
	}{
		{"SCMP_ACT_KILL_PROCESS", false, "killed before its program ran"},
		{"SCMP_ACT_ERRNO", false, "killed before its program ran"},
		{"SCMP_ACT_ERRNO", true, "does not let the program be executed"},
	} {
		r := b.request("true")
		r.Security = execdriver.Security{Seccomp: `{"defaultAction":"` + c.action + `"}`, NoNewPrivileges: c.nnp}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_, err := b.d.Start(ctx, r)
		cancel()
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestProgramKilledByItsProfile: at its execution or right after it, the signal
// says what has happened.
func TestProgramKilledByItsProfile(t *testing.T) {
	b := newBench(t)
	for _, syscalls := range []string{`[]`, `[{"names":["execve"],"action":"SCMP_ACT_ALLOW"}]`} {
		r := b.request("")
		r.Process.Args = []string{"/bin/true"}
		r.Security = execdriver.Security{NoNewPrivileges: true, Seccomp: `{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":` + syscalls + `}`}
		if _, e := b.run(r); e.Signal != int(unix.SIGSYS) {
			t.Errorf("%s: %+v", syscalls, e)
		}
	}
}

// TestReleaseAskedAgain: what a release that was given up has not done the next one
// does, also if it must kill the shim for that.
func TestReleaseAskedAgain(t *testing.T) {
	b := newBench(t)
	r, _ := b.idle(nil)
	if err := unix.Kill(b.shimOf(r.Key), unix.SIGSTOP); err != nil { // it tells no end
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.d.Release(soon, r.Key); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("released within its time: %v", err)
	}
	if err := b.d.Release(t.Context(), r.Key); err != nil {
		t.Errorf("asked again: %v", err)
	}
}

// TestInGroup: a group's name may begin another one's.
func TestInGroup(t *testing.T) {
	for text, want := range map[string]bool{
		"5:memory:/gantry/containers/box-1\n0::/\n":     true,
		"5:memory:/gantry/containers/box-1/below\n":     true,
		"5:memory:/gantry/containers/box-10\n0::/\n":    false,
		"5:memory:/gantry/containers/a-box-1\n":         false,
		"0::/gantry/containers/box-10\n1:name=x:/box-1": true,
		"": false,
	} {
		if got := inGroup(text, "box-1"); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
