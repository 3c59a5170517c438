package cli

import (
	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

func (a *app) rmCmd() *cobra.Command {
	var force, volumes bool
	c := &cobra.Command{
		Use: "rm [flags] CONTAINER [CONTAINER...]", Short: "Remove containers", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.together(args, func(ref string) error {
				err := a.ending(c.Context(), ref, func() error {
					_, err := a.finish(c.Context(), &core.RemoveContainer{ID: core.ContainerID(ref), Force: force})
					return err
				})
				if force && errdefs.IsNotFound(err) {
					return goneAlready{err}
				}
				if !force && errdefs.IsFailedPrecondition(err) && errclass.Hint(err) == "" {
					err = errclass.WithHint(err, "gantry rm -f "+ref+" kills it first")
				}
				return err
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "also a running one: it is killed first; one that is not there is no error")
	c.Flags().BoolVarP(&volumes, "volumes", "v", false, "accepted: there are no anonymous volumes yet")
	return c
}
