package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/internal/query"
)

func (a *app) diffCmd() *cobra.Command {
	return &cobra.Command{
		Use: "diff CONTAINER", Short: "List what a container has changed in its files: A added, C changed, D deleted", Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var out query.Changes
			if err := a.ask(c.Context(), query.OpDiff, query.RefIn{Ref: args[0]}, &out); err != nil {
				return err
			}
			for _, ch := range out.Changes {
				if _, err := fmt.Fprintf(a.Stdout, "%s %s\n", ch.Kind, ch.Path); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
