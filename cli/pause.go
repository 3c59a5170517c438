package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
)

func (a *app) pauseCmd() *cobra.Command {
	return a.simple("pause", "Hold all processes of containers",
		func(id core.ContainerID) core.Command { return &core.PauseContainer{ID: id} })
}

func (a *app) unpauseCmd() *cobra.Command {
	return a.simple("unpause", "Let them go on",
		func(id core.ContainerID) core.Command { return &core.UnpauseContainer{ID: id} })
}

// simple is a verb without flags, for any number of containers.
func (a *app) simple(name, short string, command func(core.ContainerID) core.Command) *cobra.Command {
	return &cobra.Command{
		Use: name + " CONTAINER [CONTAINER...]", Short: short, Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.toEach(c.Context(), args, command) },
	}
}

// toEach sends a command to each of some containers, waits for its end and
// prints what the container was called by.
func (a *app) toEach(ctx context.Context, refs []string, command func(core.ContainerID) core.Command) error {
	return a.together(refs, func(ref string) error {
		_, err := a.finish(ctx, command(core.ContainerID(ref)))
		return err
	})
}
