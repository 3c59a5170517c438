package cli

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/internal/errclass"
)

// portCmd: nothing is published yet, so that a container has no ports to tell.
func (a *app) portCmd() *cobra.Command {
	return &cobra.Command{
		Use: "port CONTAINER [PORT[/PROTO]]", Short: "List the published ports of a container (none can be published yet)", Args: rangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := a.container(c.Context(), args[0]); err != nil || len(args) == 1 {
				return err
			}
			port, proto, ok := strings.Cut(args[1], "/")
			if !ok {
				proto = "tcp"
			}
			if !digits(port) {
				return &usageError{fmt.Errorf("invalid port: %s", args[1]), c.CommandPath()}
			}
			return errclass.Errorf(errdefs.ErrNotFound, "no public port '%s/%s' published for %s", port, proto, args[0])
		},
	}
}
