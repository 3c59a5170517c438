package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) rmiCmd() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "rmi [flags] IMAGE [IMAGE...]", Short: "Take names from images; with its last name an image goes", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.each(args, func(arg string) error {
				err := a.removeImage(c.Context(), arg, force)
				if force && errdefs.IsNotFound(err) {
					return goneAlready{err}
				}
				return err
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "by id: also one of several names")
	return c
}

func (a *app) removeImage(ctx context.Context, arg string, force bool) error {
	ref, err := a.imageRef(ctx, arg)
	if err != nil {
		return err
	}
	var d query.ImageDetail
	if err := a.query(ctx, query.ImageInspect, query.RefIn{Ref: ref}, &d); err != nil {
		return err
	}
	accepted, err := a.finish(ctx, &core.DropImage{Image: ref, Force: force})
	if err != nil {
		return err
	}
	events, err := a.jobEvents(ctx, accepted)
	if err != nil {
		return err
	}
	for _, line := range events {
		var e core.ImageUntagged
		if err := json.Unmarshal(line, &e); err != nil {
			continue // another event, whose ref is something else
		}
		switch e.Name {
		case "image.untagged":
			fmt.Fprintln(a.Stdout, "Untagged:", withTag(e.Ref))
		case "image.remove-wanted":
			for _, name := range d.Names {
				fmt.Fprintln(a.Stdout, "Untagged:", withTag(name))
			}
			fmt.Fprintln(a.Stdout, "Deleted:", e.ID)
		}
	}
	return nil
}

// nearImage adds the nearest right name to an image's NotFound.
func (a *app) nearImage(ctx context.Context, ref string, err error) error {
	if errdefs.IsNotFound(err) && errclass.Hint(err) == "" {
		if _, near := a.resolve(ctx, core.KindImage, ref); errdefs.IsNotFound(near) {
			return near
		}
	}
	return err
}
