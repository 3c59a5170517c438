package cli

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) attachCmd() *cobra.Command {
	var f joinFlags
	var noStdin bool
	c := &cobra.Command{
		Use: "attach [flags] CONTAINER", Short: "Join the input and output of a running container", Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f.stdin = !noStdin
			return a.attach(c.Context(), args[0], &f)
		},
	}
	f.register(c)
	c.Flags().BoolVar(&noStdin, "no-stdin", false, "leave its input to others")
	return c
}

// attach joins a running container. It follows: a client that is slow holds
// nobody up.
func (a *app) attach(ctx context.Context, ref string, f *joinFlags) error {
	var d query.ContainerDetail
	if err := a.query(ctx, query.ContainerInspect, query.RefIn{Ref: ref}, &d); err != nil {
		return err
	}
	switch {
	case d.Status == "paused":
		return notNow("you cannot attach to a paused container, unpause it first", "gantry unpause "+ref)
	case d.Status == "restarting":
		return notNow("you cannot attach to a restarting container, wait until it is running", "")
	case !d.Running:
		return notNow("you cannot attach to a stopped container, start it first", "gantry start -a "+ref)
	}
	p := &d.State.Spec.Process
	s := newSession(a, d.ID)
	defer s.end()
	s.proxy, s.running = f.proxy && !p.TTY, true
	s.talk.in.Run = d.Run
	if err := s.wants(nil, f.keys, f.stdin && p.OpenStdin, p.TTY); err != nil {
		return err
	}
	s.talk.hello.Lossless = false
	s.talk.hello.StdinOnce = s.talk.hello.StdinOnce && p.StdinOnce
	return s.attached(ctx, sent{seq: d.Seq + 1})
}

// notNow is a refusal for how a container is at the moment.
func notNow(text, hint string) error {
	err := errclass.Errorf(errdefs.ErrFailedPrecondition, "%s", text)
	if hint == "" {
		return err
	}
	return errclass.WithHint(err, hint)
}
