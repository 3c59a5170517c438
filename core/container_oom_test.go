package core

import (
	"testing"

	"github.com/containerd/errdefs"
)

// TestAKillBeforeTheStartIsTold: a program may want too much memory before the result
// of its start is recorded. The report is told again until then.
func TestAKillBeforeTheStartIsTold(t *testing.T) {
	s := newScript(t)
	s.play("load app\n\nsettle\n\ncreate c1 app running\n\nstep rootfs/prepare\n\nstep network/create\n\nstep net-bridge/attach")
	report := &ReportOOM{Container: ctrID("c1"), Run: 1, Count: 1, Time: s.clock}
	if events, err := s.send(report); !errdefs.IsUnavailable(err) || len(events) != 0 {
		t.Fatalf("before the start is told: %v, %v", events, err)
	}
	s.finish(s.owing("process/start"))
	s.deliver(report)
	if n := s.s.Containers[ctrID("c1")].OOMKills; n != 1 {
		t.Errorf("%d kills are known", n)
	}
}
