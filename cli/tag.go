package cli

import (
	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

func (a *app) tagCmd() *cobra.Command {
	return &cobra.Command{
		Use: "tag IMAGE NAME", Short: "Give an image a further name", Args: exactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			image, err := a.imageRef(c.Context(), args[0])
			if err != nil {
				return err
			}
			name, err := normalReference(args[1])
			if err != nil {
				return errclass.Errorf(errdefs.ErrInvalidArgument, "%w", err)
			}
			_, err = a.finish(c.Context(), &core.TagImage{Image: image, Name: name})
			return a.nearImage(c.Context(), image, err)
		},
	}
}
