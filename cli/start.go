package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

// joinFlags are those of the verbs that join a container.
type joinFlags struct {
	stdin bool
	proxy bool
	keys  string
}

func (f *joinFlags) register(c *cobra.Command) {
	c.Flags().BoolVar(&f.proxy, "sig-proxy", true, "hand signals on to the program")
	registerDetachKeys(c.Flags(), &f.keys)
}

func (a *app) startCmd() *cobra.Command {
	var attach bool
	var f joinFlags
	c := &cobra.Command{
		Use: "start [flags] CONTAINER [CONTAINER...]", Short: "Start containers", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if attach || f.stdin {
				if len(args) > 1 {
					return &usageError{errors.New("one can attach to one container only"), c.CommandPath()}
				}
				return a.startAttached(c.Context(), args[0], &f)
			}
			return a.together(args, func(ref string) error {
				_, err := a.finish(c.Context(), &core.StartContainer{ID: core.ContainerID(ref)})
				return err
			})
		},
	}
	f.register(c)
	c.Flags().BoolVarP(&attach, "attach", "a", false, "show its output and end with its exit code")
	c.Flags().BoolVarP(&f.stdin, "interactive", "i", false, "and give it standard input")
	return c
}

// startAttached starts one container, or joins it if it runs, and stays with it.
func (a *app) startAttached(ctx context.Context, ref string, f *joinFlags) error {
	var d query.ContainerDetail
	if err := a.query(ctx, query.ContainerInspect, query.RefIn{Ref: ref}, &d); err != nil {
		return err
	}
	p := &d.State.Spec.Process
	if f.stdin && !p.OpenStdin {
		return fmt.Errorf("container %s was made without standard input: make it with -i", d.Name)
	}
	s := newSession(a, d.ID)
	defer s.end()
	s.proxy, s.autoRemove, s.running = f.proxy, d.AutoRemove, d.Running
	if err := s.wants(nil, f.keys, f.stdin, p.TTY); err != nil {
		return err
	}
	s.talk.hello.StdinOnce = s.talk.hello.StdinOnce && p.StdinOnce
	accepted, err := a.carry(ctx, &core.StartContainer{ID: d.ID, Attach: true}, told{attach: true, events: sessionEvents(), meanwhile: s.takeSignals})
	if err != nil {
		return err
	}
	if err := s.attached(ctx, accepted); !errors.As(err, &detachedError{}) {
		return err
	}
	return nil
}
