package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) inspectCmd() *cobra.Command { return a.inspectOf("") }

// inspectOf is inspect for one kind of things; for the empty one all are tried.
func (a *app) inspectOf(kind string) *cobra.Command {
	var format, only string
	c := &cobra.Command{
		Use: "inspect [flags] NAME [NAME...]", Short: "Show all about containers, images, networks and execs", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			of := kind
			if only != "" {
				of = only
			}
			if !slices.Contains(append(inspectKinds(), ""), of) {
				return &usageError{fmt.Errorf("inspect --type %s: want one of %s", of, strings.Join(inspectKinds(), ", ")), c.CommandPath()}
			}
			return a.showEach(format, args, func(ref string) (any, error) { return a.inspect(c.Context(), of, ref) })
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "json, or a Go template: '{{.State.Status}}'")
	if kind == "" {
		c.Flags().StringVar(&only, "type", "", "container, image, network or exec")
	}
	return c
}

// inspectKinds are what can be inspected, in the order in which it is looked for.
func inspectKinds() []string {
	return []string{core.KindContainer, core.KindImage, core.KindNetwork, "exec"}
}

// showEach shows what is found for each argument, and complains of the others.
func (a *app) showEach(format string, args []string, find func(ref string) (any, error)) error {
	var found []any
	bad := a.each(args, func(ref string) error {
		v, err := find(ref)
		if err == nil {
			found = append(found, v)
		}
		return err
	})
	if err := a.showInspected(format, found); err != nil {
		return err
	}
	return bad
}

func (a *app) showInspected(format string, found []any) error {
	if format == "" || format == "json" {
		if found == nil {
			found = []any{}
		}
		return writeJSON(a.Stdout, found)
	}
	for _, v := range found {
		if err := writeFormat(a.Stdout, format, v); err != nil {
			return err
		}
	}
	return nil
}

// inspect finds one thing and puts it into the form that Docker's users know.
func (a *app) inspect(ctx context.Context, kind, ref string) (any, error) {
	switch kind {
	case core.KindContainer:
		return a.inspectContainer(ctx, ref)
	case core.KindImage:
		return a.inspectImage(ctx, ref)
	case core.KindNetwork:
		return a.inspectNetwork(ctx, ref)
	case "exec":
		return a.inspectExec(ctx, ref)
	}
	var first error
	for _, k := range inspectKinds() {
		v, err := a.inspect(ctx, k, ref)
		if err == nil || !errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) {
			return v, err
		}
		if first == nil || errdefs.IsInvalidArgument(err) && k != core.KindImage {
			first = err
		}
	}
	if errdefs.IsNotFound(first) {
		return nil, errNoSuch(first, ref)
	}
	return nil, first
}

// errNoSuch keeps the hint of err.
func errNoSuch(err error, ref string) error {
	return &noSuch{errors.New("no such container, image, network or exec: " + ref), err}
}

type noSuch struct {
	error
	cause error
}

func (e *noSuch) Unwrap() error { return e.cause }

func (a *app) inspectContainer(ctx context.Context, ref string) (any, error) {
	var d query.ContainerDetail
	if err := a.query(ctx, query.ContainerInspect, query.RefIn{Ref: ref}, &d); err != nil {
		return nil, err
	}
	return containerView(&d), nil
}

func (a *app) inspectImage(ctx context.Context, arg string) (any, error) {
	ref, err := a.imageRef(ctx, arg)
	if err != nil {
		return nil, err
	}
	var d query.ImageDetail
	if err := a.query(ctx, query.ImageInspect, query.RefIn{Ref: ref}, &d); err != nil {
		return nil, err
	}
	return imageView(&d), nil
}

func (a *app) inspectNetwork(ctx context.Context, ref string) (any, error) {
	var d query.NetworkDetail
	if err := a.query(ctx, query.NetworkInspect, query.RefIn{Ref: ref}, &d); err != nil {
		return nil, err
	}
	return networkView(&d), nil
}
