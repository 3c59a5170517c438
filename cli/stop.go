package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
)

func (a *app) stopCmd() *cobra.Command {
	var timeout int
	var name string
	c := &cobra.Command{
		Use: "stop [flags] CONTAINER [CONTAINER...]", Short: "Stop containers: a signal, then after a while SIGKILL", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cmd := core.StopContainer{}
			if c.Flags().Changed("time") || c.Flags().Changed("timeout") {
				grace := max(seconds(timeout), -time.Second)
				cmd.Timeout = &grace
			}
			if name != "" {
				var err error
				if cmd.Signal, err = parseSignal(name); err != nil {
					return &usageError{err, c.CommandPath()}
				}
			}
			return a.together(args, func(ref string) error {
				stop := cmd
				stop.ID = core.ContainerID(ref)
				return a.ending(c.Context(), ref, func() error {
					_, err := a.finish(c.Context(), &stop)
					return err
				})
			})
		},
	}
	c.Flags().IntVarP(&timeout, "time", "t", 0, "seconds to wait before killing; 0: at once, -1: without end (default: the container's own, 10)")
	c.Flags().IntVar(&timeout, "timeout", 0, "the same as --time")
	c.Flags().StringVarP(&name, "signal", "s", "", "signal to send first (default: the container's own, SIGTERM)")
	return c
}
