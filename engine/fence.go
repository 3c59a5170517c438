package engine

import (
	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

// checkFence refuses results and reports of an older engine's time and of driver
// instances that the log does not know. An exit is a fact, whoever saw it; the
// instance of a driver's own report is news; and a step that replaces or stops a
// driver ends with another instance than it began with, or with none.
func (e *Engine) checkFence(r request, s *core.State) error {
	f := r.fence
	if f == nil {
		return nil
	}
	if f.epoch < s.Engine.Epoch && !plantedSkipEpoch {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "it is of epoch %d, now is %d: an engine has started since", f.epoch, s.Engine.Epoch)
	}
	id := f.kind + "/" + f.driver
	switch c := r.command.(type) {
	case *core.FinishStep:
		if c.Step.Noun().Kind == core.KindDriver && (c.Step.Verb() == "replace" || c.Step.Verb() == "stop") {
			return nil
		}
		if f.instance == "" && c.Fault != nil {
			return nil // no instance could be started
		}
	case *core.ReportInventory:
		if c.Kind != f.kind || c.Driver != f.driver || c.Instance != f.instance {
			return errclass.Errorf(errdefs.ErrInvalidArgument, "an inventory of %s/%s came from %s", c.Kind, c.Driver, id)
		}
	case *core.ReportDriver:
		if c.Driver != id {
			return errclass.Errorf(errdefs.ErrInvalidArgument, "a report about %s came from %s", c.Driver, id)
		}
		return nil
	default:
		return nil
	}
	if d := s.Drivers[id]; d == nil || d.Instance != f.instance {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "instance %q of driver %s is not the one that runs: report it first", f.instance, id)
	}
	return nil
}
