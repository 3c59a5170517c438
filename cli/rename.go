package cli

import (
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
)

func (a *app) renameCmd() *cobra.Command {
	return &cobra.Command{
		Use: "rename CONTAINER NAME", Short: "Give a container another name", Args: exactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			_, err := a.finish(c.Context(), &core.RenameContainer{ID: core.ContainerID(args[0]), Name: args[1]})
			return err
		},
	}
}
