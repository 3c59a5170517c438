package plan

import (
	"fmt"
	"os"
)

// Bits of an early message.
const (
	earlyLeave      = 1
	earlyShimCgroup = 2
	earlyCgroup     = 4
)

// Early says what is known of a start before its plan is.
type Early struct {
	Clone      uint64   // the flags of the plan's Clone
	Leave      bool     // the plan will be handed over by Warm.Leave
	ShimCgroup *os.File // directory of the plan's ShimCgroup of version 2, or nil
	Cgroup     *os.File // directory of the plan's Clone.Cgroup, or nil
}

// Early makes the shim clone the init at once, which takes as long as a plan
// does to be prepared. The plan that follows must be such a one: an init that
// does not fit is thrown away and another one made, or, if nobody stays, the
// plan is refused. A plan with a stage join never fits. To be called once at
// most; whoever does not hand over a plan afterwards closes the shim.
func (w *Warm) Early(e Early) error {
	var what uint32
	var fds []int
	if e.Leave {
		what |= earlyLeave
	}
	if e.ShimCgroup != nil {
		what |= earlyShimCgroup
		fds = append(fds, int(e.ShimCgroup.Fd()))
	}
	if e.Cgroup != nil {
		what |= earlyCgroup
		fds = append(fds, int(e.Cgroup.Fd()))
	}
	if err := w.conn.message(sendEarly, uint32(e.Clone), what, nil, fds); err != nil {
		return fmt.Errorf("make init early: %w", err)
	}
	w.child = e.Leave
	return nil
}
