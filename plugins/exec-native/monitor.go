package execnative

import (
	"math"
	"time"

	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// How long the monitor waits for others.
const (
	gateMilli  = 10_000 // for a client to attach
	drainMilli = 1_000  // for pipes that grandchildren hold
)

// handles are the descriptors and settings that a plan is made with beside the
// specification: the container's, and the monitor's. The FDs are places among
// the files given to plan.Start.
type handles struct {
	oci.Handles

	Flags  uint32 // plan.WaitAttach and so on
	UID    uint32 // who may attach
	Run    uint64
	BootID [16]byte

	ShimCgroups []plan.FD // version 1 tasks files of the shims' cgroup
	ShimDir     plan.FD   // its version 2 directory, or NoFD
	Lock        plan.FD
	Record      plan.FD
	Listen      plan.FD
	Log         *plan.Log       // nil keeps nothing
	LogPolicy   *plan.LogPolicy // or nil
	OOMCounter  plan.FD         // or NoFD
	Owner       *plan.Owner     // of the program's pipes, in a user namespace; else nil
	Deadline    time.Duration   // after which the program is killed; 0 for never
}

// planOf turns a specification into the operations that make it so, under a
// monitor. It is pure: the same arguments give the same plan.
func planOf(s *specs.Spec, h handles) (*plan.Plan, error) {
	h.Front = h.monitorPart()
	if h.Flags&plan.WaitAttach != 0 { // else there is nobody to wait for
		h.Gate = plan.Gate{}
	}
	return oci.Plan(s, h.Handles)
}

// monitorPart is stage 0.
func (h *handles) monitorPart() []plan.Op {
	ops := []plan.Op{plan.Monitor{
		Flags: h.Flags, GateMilli: gateMilli, DrainMs: drainMilli, UID: h.UID, Run: h.Run, BootID: h.BootID,
	}}
	if h.ShimDir != plan.NoFD {
		ops = append(ops, plan.ShimCgroup{FD: h.ShimDir, Dir: true})
	}
	for _, fd := range h.ShimCgroups {
		ops = append(ops, plan.ShimCgroup{FD: fd})
	}
	ops = append(ops, plan.Lock{FD: h.Lock}, plan.Record{FD: h.Record}, plan.Listen{FD: h.Listen})
	if h.Owner != nil {
		ops = append(ops, *h.Owner)
	}
	if h.Deadline > 0 {
		ops = append(ops, plan.Deadline{Milli: uint32(max(1, min(h.Deadline.Milliseconds(), math.MaxInt32)))})
	}
	if h.Log != nil {
		ops = append(ops, *h.Log)
		if h.LogPolicy != nil {
			ops = append(ops, *h.LogPolicy)
		}
	}
	if h.OOMCounter != plan.NoFD {
		ops = append(ops, plan.OOMCounter{FD: h.OOMCounter})
	}
	return ops
}
