package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

func (a *app) createCmd() *cobra.Command {
	var f createFlags
	c := &cobra.Command{
		Use: "create [flags] IMAGE [COMMAND] [ARG...]", Short: "Make a container without starting it", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cmd, err := f.command(a, c, args)
			if err != nil {
				return err
			}
			cmd.Want = core.Stopped
			p := &cmd.Spec.Process
			p.StdinOnce = f.stdin && (len(f.attach) == 0 || slices.Contains(f.attach, "stdin"))
			if _, err := a.create(c.Context(), cmd, &f, told{}); err != nil {
				return err
			}
			fmt.Fprintln(a.Stdout, cmd.ID)
			return nil
		},
	}
	f.register(c)
	return c
}

// create sends the command, with its id where it was asked to be written.
func (a *app) create(ctx context.Context, cmd *core.CreateContainer, f *createFlags, want told) (sent, error) {
	unwrite, err := f.writeCID(cmd.ID)
	if err != nil {
		return sent{}, err
	}
	s, err := a.createNamed(ctx, cmd, want)
	if err != nil {
		unwrite()
	}
	return s, err
}

// createNamed sends the command. A name that nobody chose is made here, and made
// anew when it is taken.
func (a *app) createNamed(ctx context.Context, cmd *core.CreateContainer, want told) (sent, error) {
	const tries = 20
	named := cmd.Name != ""
	for try := 0; ; try++ {
		if !named {
			cmd.Name = randomName()
		}
		s, err := a.carry(ctx, cmd, want)
		switch {
		case err == nil || named && errdefs.IsAlreadyExists(err):
			return s, err
		case errdefs.IsAlreadyExists(err) && try < tries:
			continue
		}
		return s, a.explain(ctx, cmd, err)
	}
}

// explain adds the nearest right name to the refusal of a create.
func (a *app) explain(ctx context.Context, cmd *core.CreateContainer, err error) error {
	if !errdefs.IsNotFound(err) || errclass.Hint(err) != "" {
		return err
	}
	if _, near := a.resolve(ctx, core.KindImage, cmd.Image); errdefs.IsNotFound(near) {
		hint := errclass.Hint(near)
		if hint == "" {
			hint = "images come from archives: gantry load -i FILE"
		}
		return &unknownImage{errclass.WithHint(near, hint), cmd.Image}
	}
	network := cmd.Spec.Network.Network
	if _, near := a.resolve(ctx, core.KindNetwork, network); network != "" && errdefs.IsNotFound(near) {
		return near
	}
	return err
}

// unknownImage is a create's refusal for want of its image.
type unknownImage struct {
	error
	image string
}

func (e *unknownImage) Unwrap() error { return e.error }

// sayUnknown tells Docker's users what they know before the error itself.
func (a *app) sayUnknown(err error) {
	var unknown *unknownImage
	if errors.As(err, &unknown) {
		fmt.Fprintf(a.Stderr, "Unable to find image '%s' locally\n", withTag(unknown.image))
	}
}
