package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
)

// runFlags are those of run beyond create's.
type runFlags struct {
	createFlags
	detach bool
	proxy  bool
}

func (a *app) runCmd() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use: "run [flags] IMAGE [COMMAND] [ARG...]", Short: "Make a container and start it", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if f.detach && len(f.attach) > 0 {
				return &usageError{errors.New("conflicting options: -a and -d"), c.CommandPath()}
			}
			cmd, err := f.command(a, c, args)
			if err != nil {
				return asEngine(err)
			}
			return a.run(c.Context(), &f, cmd)
		},
	}
	f.register(c)
	c.Flags().BoolVarP(&f.detach, "detach", "d", false, "start it in the background and print its id")
	c.Flags().BoolVar(&f.proxy, "sig-proxy", true, "hand signals on to the program")
	return c
}

// run makes the container and starts it; in the foreground it stays until the end.
func (a *app) run(ctx context.Context, f *runFlags, cmd *core.CreateContainer) error {
	cmd.Want, cmd.Attach = core.Running, !f.detach
	s := newSession(a, cmd.ID)
	defer s.end()
	s.proxy, s.autoRemove = f.proxy, f.rm
	p := &cmd.Spec.Process
	if !f.detach {
		if err := s.wants(f.attach, f.detachKeys, f.stdin, f.tty); err != nil {
			return err
		}
	}
	p.StdinOnce = s.talk.hello.Stdin
	if f.tty {
		size := a.terminalSize()
		p.Rows, p.Columns = int(size.Rows), int(size.Cols)
	}
	want := told{wait: true, meanwhile: s.takeSignals}
	if !f.detach {
		want = told{attach: true, events: sessionEvents(), meanwhile: s.takeSignals}
	}
	accepted, err := a.create(ctx, cmd, &f.createFlags, want)
	if err != nil {
		a.sayUnknown(err)
		return asEngine(err)
	}
	if !f.detach {
		err := s.attached(ctx, accepted)
		if errors.As(err, &detachedError{}) {
			return nil // the container goes on
		}
		return missingSource(asEngine(err), &cmd.Spec)
	}
	if err := s.startedBy(ctx, accepted); err != nil {
		return missingSource(asEngine(err), &cmd.Spec)
	}
	fmt.Fprintln(a.Stdout, cmd.ID)
	return nil
}

// missingSource adds to a failed start that a host path is not there, if that is it.
// Docker would have made a directory of it.
func missingSource(err error, spec *core.Spec) error {
	var status *statusError
	if !errors.As(err, &status) || status.hint != "" || status.code != exitEngine {
		return err
	}
	for _, m := range spec.Mounts {
		if m.Type != "bind" || !strings.Contains(status.text, m.Source) {
			continue
		}
		if _, missing := os.Stat(m.Source); errors.Is(missing, os.ErrNotExist) {
			status.hint = "no directory of the host is made by itself: mkdir -p " + m.Source
		}
	}
	return err
}

// wants says which streams the session is for: those that are named, or output
// and, with stdin, input.
func (s *session) wants(streams []string, keys string, stdin, tty bool) error {
	h := &s.talk.hello
	h.Stdin = stdin
	if len(streams) > 0 {
		h.Stdin = stdin && slices.Contains(streams, "stdin")
		h.Stdout, h.Stderr = slices.Contains(streams, "stdout"), slices.Contains(streams, "stderr")
	}
	h.StdinOnce = h.Stdin && !tty
	s.talk.tty = tty
	var err error
	if s.talk.keys, err = parseDetachKeys(keys); err != nil {
		return err
	}
	return s.a.checkTTY(tty, h.Stdin)
}
