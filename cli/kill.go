package cli

import (
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
)

func (a *app) killCmd() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use: "kill [flags] CONTAINER [CONTAINER...]", Short: "Send containers a signal", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			sig, err := parseSignal(name)
			if err != nil {
				return &usageError{err, c.CommandPath()}
			}
			return a.together(args, func(ref string) error {
				_, err := a.finish(c.Context(), &core.KillContainer{ID: core.ContainerID(ref), Signal: sig})
				return err
			})
		},
	}
	c.Flags().StringVarP(&name, "signal", "s", "KILL", "signal to send")
	return c
}
