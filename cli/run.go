package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
)

func (a *app) runCmd() *cobra.Command {
	var f createFlags
	var detach, proxy bool
	c := &cobra.Command{
		Use: "run [flags] IMAGE [COMMAND] [ARG...]", Short: "Make a container and start it", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cmd, err := f.command(a, c, args)
			if err != nil {
				return asEngine(err)
			}
			cmd.Want, cmd.Attach = core.Running, !detach
			ctx := c.Context()
			s := newSession(a, cmd.ID)
			s.stdin, s.proxy, s.autoRemove = f.stdin && !detach, proxy, f.rm
			defer s.end()
			accepted, err := a.create(ctx, cmd)
			if err != nil {
				a.sayUnknown(err)
				return asEngine(err)
			}
			if !detach {
				return asEngine(s.attached(ctx, accepted))
			}
			if err := s.started(ctx, accepted); err != nil {
				return asEngine(err)
			}
			fmt.Fprintln(a.Stdout, cmd.ID)
			return nil
		},
	}
	f.register(c)
	c.Flags().BoolVarP(&detach, "detach", "d", false, "start it in the background and print its id")
	c.Flags().BoolVar(&proxy, "sig-proxy", true, "hand signals on to the program")
	return c
}
