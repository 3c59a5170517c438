package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) startCmd() *cobra.Command {
	var attach, stdin, proxy bool
	c := &cobra.Command{
		Use: "start [flags] CONTAINER [CONTAINER...]", Short: "Start containers", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if attach || stdin {
				if len(args) > 1 {
					return &usageError{errors.New("one can attach to one container only"), c.CommandPath()}
				}
				return a.startAttached(c, args[0], stdin, proxy)
			}
			return a.together(args, func(ref string) error {
				id, err := a.container(c.Context(), ref)
				if err == nil {
					_, err = a.finish(c.Context(), &core.StartContainer{ID: id})
				}
				return err
			})
		},
	}
	c.Flags().BoolVarP(&attach, "attach", "a", false, "show its output and end with its exit code")
	c.Flags().BoolVarP(&stdin, "interactive", "i", false, "and give it standard input")
	c.Flags().BoolVar(&proxy, "sig-proxy", true, "hand signals on to the program")
	return c
}

// startAttached starts one container, or joins it if it runs, and stays with it.
func (a *app) startAttached(c *cobra.Command, ref string, stdin, proxy bool) error {
	ctx := c.Context()
	var d query.ContainerDetail
	if err := a.query(ctx, query.ContainerInspect, query.RefIn{Ref: ref}, &d); err != nil {
		return err
	}
	if stdin && !d.State.Spec.Process.OpenStdin {
		return fmt.Errorf("container %s was made without standard input: make it with -i", d.Name)
	}
	s := newSession(a, d.ID)
	s.stdin, s.proxy, s.autoRemove, s.running = stdin, proxy, d.AutoRemove, d.Running
	defer s.end()
	accepted, err := a.send(ctx, &core.StartContainer{ID: d.ID, Attach: true})
	if err != nil {
		return err
	}
	return s.attached(ctx, accepted)
}
