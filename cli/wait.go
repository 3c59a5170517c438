package cli

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
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
	code, from := 0, d.Seq+1
	err := a.lasting(ctx, func(client *bus.Client) (err error) {
		code, err = a.nextExit(ctx, client, d.ID, &from)
		return err
	})
	return code, err
}

// nextExit waits for the end of a container that is not started again. from is the
// sequence to read on from; it is moved as what it names needs no other look.
func (a *app) nextExit(ctx context.Context, client *bus.Client, id core.ContainerID, from *uint64) (int, error) {
	events, err := client.Events(ctx, *from, bus.Filter{Noun: core.KindContainer, ID: string(id)})
	if err != nil {
		return 0, err
	}
	defer events.Close()
	for ; ; *from++ {
		e, err := events.Next(ctx)
		if err != nil {
			return 0, err
		}
		*from = e.Seq
		code, ended, err := endOf(e)
		if err != nil {
			return 0, err
		}
		if !ended {
			continue
		}
		var now query.ContainerDetail
		err = a.query(ctx, query.ContainerInspect, query.RefIn{Ref: string(id)}, &now)
		switch {
		case errdefs.IsNotFound(err):
			return code, nil
		case err != nil:
			return 0, err
		case !now.Running && now.Want != core.Running: // its policy does not start it again
			return code, nil
		}
	}
}

// endOf says whether an event is the end of a container's run, and with which code.
func endOf(e bus.Event) (code int, ended bool, err error) {
	switch e.Name {
	case "container.exited":
		var exited core.ProcessExited
		err := decode(e, &exited)
		return exited.Exit.Code, true, err
	case "container.start-failed":
		var failed core.StartFailed
		err := decode(e, &failed)
		return faultCode(&failed.Fault), true, err
	case "container.start-cancelled", "container.removed":
		return 0, true, nil
	}
	return 0, false, nil
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
