package oci

import (
	"math"

	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// hooksInside adds the hooks of a kind that run in the container's namespaces.
func hooksInside(p *plan.Plan, at plan.Stage, kind string, hooks []specs.Hook, state []byte) error {
	for i, hook := range hooks {
		if err := CheckHook(kind, i, hook); err != nil {
			return err
		}
		place, ok := plan.PIDPlace(state)
		if !ok {
			return unserved("hooks.%s: hooks are not run here", kind)
		}
		op := plan.Hook{Path: hook.Path, Args: hook.Args, Env: hook.Env, State: state, PIDAt: place}
		if len(op.Args) == 0 {
			op.Args = []string{hook.Path}
		}
		if hook.Timeout != nil {
			op.TimeoutMilli = uint32(*hook.Timeout * 1000)
		}
		p.Add(at, op)
	}
	return nil
}

// CheckHook refuses what cannot be.
func CheckHook(kind string, i int, hook specs.Hook) error {
	switch {
	case len(hook.Path) == 0 || hook.Path[0] != '/':
		return invalid("hooks.%s[%d]: path %q is not absolute", kind, i, hook.Path)
	case hook.Timeout != nil && (*hook.Timeout <= 0 || *hook.Timeout > math.MaxUint32/1000):
		return invalid("hooks.%s[%d]: timeout %d: want a number of seconds above 0", kind, i, *hook.Timeout)
	}
	return nil
}
