package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) waitCmd() *cobra.Command {
	return &cobra.Command{
		Use: "wait CONTAINER [CONTAINER...]", Short: "Wait until containers end, and print their exit codes", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.each(args, func(ref string) error {
				code, err := a.waitExit(c.Context(), ref)
				if err == nil {
					fmt.Fprintln(a.Stdout, code)
				}
				return err
			})
		},
	}
}

// waitExit waits until a container does not run, and is not about to, and says
// with which code it ended.
func (a *app) waitExit(ctx context.Context, ref string) (int, error) {
	var d query.ContainerDetail
	if err := a.query(ctx, query.ContainerInspect, query.RefIn{Ref: ref}, &d); err != nil {
		return 0, err
	}
	if !d.Running && d.Want != core.Running {
		return exitCodeOf(&d.Container), nil
	}
	client, err := a.dial(ctx)
	if err != nil {
		return 0, err
	}
	events, err := client.Events(ctx, d.Seq+1, bus.Filter{Noun: core.KindContainer, ID: string(d.ID)})
	if err != nil {
		return 0, err
	}
	defer events.Close()
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return 0, err
		}
		switch e.Name {
		case "container.exited":
			var exited core.ProcessExited
			err := decode(e, &exited)
			return exited.Exit.Code, err
		case "container.start-failed":
			var failed core.StartFailed
			err := decode(e, &failed)
			return faultCode(&failed.Fault), err
		case "container.start-cancelled", "container.removed":
			return 0, nil
		}
	}
}

// exitCodeOf is the exit code of a container that does not run, as Docker shows it.
func exitCodeOf(c *query.Container) int {
	switch {
	case c.Fault != nil:
		return faultCode(c.Fault)
	case c.Exit != nil:
		return c.Exit.Code
	}
	return 0
}
