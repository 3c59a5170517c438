package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) updateCmd() *cobra.Command {
	var limits limitFlags
	var restart restartFlags
	c := &cobra.Command{
		Use: "update [flags] CONTAINER [CONTAINER...]", Short: "Change the limits and the restart policy of containers", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			flags := c.Flags()
			change, err := limits.change(flags)
			if err != nil {
				return &usageError{err, c.CommandPath()}
			}
			policy, err := restart.read()
			if err == nil && flags.NFlag() == 0 {
				err = errors.New("you must provide one or more flags when using this command")
			}
			if err != nil {
				return &usageError{err, c.CommandPath()}
			}
			byPolicy, byHealth := flags.Changed("restart"), flags.Changed("restart-unhealthy")
			return a.together(args, func(ref string) error {
				cmd := &core.UpdateContainer{ID: core.ContainerID(ref), Change: *change}
				if byPolicy && byHealth {
					cmd.Restart = &policy
				}
				if byPolicy != byHealth {
					var err error
					if cmd.Restart, err = a.mixRestart(c.Context(), ref, policy, byPolicy); err != nil {
						return err
					}
				}
				_, err := a.finish(c.Context(), cmd)
				return err
			})
		},
	}
	limits.register(c.Flags())
	restart.register(c.Flags())
	return c
}

// mixRestart is the container's restart policy with one half of it changed.
func (a *app) mixRestart(ctx context.Context, ref string, given core.Restart, byPolicy bool) (*core.Restart, error) {
	var d query.ContainerDetail
	if err := a.query(ctx, query.ContainerInspect, query.RefIn{Ref: ref}, &d); err != nil {
		return nil, err
	}
	r := d.State.Spec.Restart
	if byPolicy {
		r.Policy, r.Max = given.Policy, given.Max
	} else {
		r.Unhealthy = given.Unhealthy
	}
	return &r, nil
}
