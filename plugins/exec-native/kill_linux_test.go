package execnative

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// TestProfileKillsTheInit: the start fails at once, and says why. With
// no_new_privs the filter comes right before the program, whose end it is.
func TestProfileKillsTheInit(t *testing.T) {
	b := newBench(t)
	r := b.request("true")
	r.Security = execdriver.Security{Seccomp: `{"defaultAction":"SCMP_ACT_KILL_PROCESS"}`}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := b.d.Start(ctx, r); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "killed before its program ran") {
		t.Errorf("%v", err)
	}
	r = b.request("true")
	r.Security = execdriver.Security{Seccomp: `{"defaultAction":"SCMP_ACT_KILL_PROCESS"}`, NoNewPrivileges: true}
	if _, err := b.d.Start(ctx, r); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(r.Key); e.Signal != int(unix.SIGSYS) {
		t.Errorf("%+v", e)
	}
}
