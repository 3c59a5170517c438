package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
)

func (a *app) restartCmd() *cobra.Command {
	var timeout int
	var name string
	c := &cobra.Command{
		Use: "restart [flags] CONTAINER [CONTAINER...]", Short: "Stop containers that run, and start them again", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var grace *time.Duration
			if c.Flags().Changed("time") || c.Flags().Changed("timeout") {
				d := max(seconds(timeout), -time.Second)
				grace = &d
			}
			sig := 0
			if name != "" {
				var err error
				if sig, err = parseSignal(name); err != nil {
					return &usageError{err, c.CommandPath()}
				}
			}
			return a.toEach(c.Context(), args, func(id core.ContainerID) core.Command {
				return &core.RestartContainer{ID: id, Signal: sig, Timeout: grace}
			})
		},
	}
	c.Flags().IntVarP(&timeout, "timeout", "t", 0, "seconds to wait before killing; 0: at once, -1: without end (default: the container's own, 10)")
	c.Flags().IntVar(&timeout, "time", 0, "the same as --timeout")
	c.Flags().Lookup("time").Hidden = true
	c.Flags().StringVarP(&name, "signal", "s", "", "signal to send first (default: the container's own, SIGTERM)")
	return c
}
