package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) loadCmd() *cobra.Command {
	var input, platform string
	var quiet bool
	c := &cobra.Command{
		Use: "load [flags]", Short: "Load images from an archive: of docker save, or an OCI layout as tar", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			from := a.Stdin
			if input != "" {
				f, err := os.Open(input)
				if err != nil {
					return fmt.Errorf("load: %w", err)
				}
				defer f.Close()
				from = f
			} else if isTerminal(from) {
				return &usageError{errors.New("standard input is a terminal: give the archive with -i FILE, or by a pipe"), c.CommandPath()}
			}
			return a.load(c.Context(), from, platform, quiet)
		},
	}
	c.Flags().StringVarP(&input, "input", "i", "", "read this file instead of standard input")
	c.Flags().StringVar(&platform, "platform", "", "load only this platform of it, e.g. linux/amd64")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "say only which images were loaded")
	return c
}

// load sends the archive and waits until its images can be used. SIGINT takes
// the load back.
func (a *app) load(ctx context.Context, from *os.File, platform string, quiet bool) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	client, err := a.dial(ctx)
	if err != nil {
		return err
	}
	up, stream, err := client.Upload(ctx, from)
	if err != nil {
		return a.interrupted(ctx, err)
	}
	defer stream.Close() // the engine needs the file no more
	accepted, err := a.send(ctx, &core.LoadImage{Archive: up.Path, Platform: platform})
	if err == nil {
		err = a.waitJob(ctx, accepted)
	}
	if ctx.Err() != nil && accepted.seq > 0 {
		_, _ = a.finish(context.WithoutCancel(ctx), &core.CancelJob{Target: accepted.job}) // the end is the same
	}
	if err != nil {
		return a.interrupted(ctx, err)
	}
	_ = quiet // nothing else is said either way
	return a.sayLoaded(ctx, accepted)
}

// interrupted is err, or that somebody has ended the command.
func (a *app) interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &statusError{code: exitInterrupted}
	}
	return err
}

// sayLoaded names what was in the archive.
func (a *app) sayLoaded(ctx context.Context, accepted sent) error {
	events, err := a.jobEvents(ctx, accepted)
	if err != nil {
		return err
	}
	for _, line := range events {
		var e core.ImageLoaded
		if err := json.Unmarshal(line, &e); err != nil || e.Name != "image.loaded" {
			continue // of another kind
		}
		for _, name := range e.LoadedImage.Names {
			fmt.Fprintln(a.Stdout, "Loaded image:", withTag(name))
		}
		if len(e.LoadedImage.Names) == 0 {
			fmt.Fprintln(a.Stdout, "Loaded image ID:", e.LoadedImage.ID)
		}
	}
	return nil
}

// jobEvents are the events that followed from a command.
func (a *app) jobEvents(ctx context.Context, accepted sent) ([]json.RawMessage, error) {
	var all []json.RawMessage
	for in := (query.LogIn{From: accepted.seq, Job: string(accepted.job)}); ; {
		var page query.LogPage
		if err := a.query(ctx, query.LogRead, in, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Events...)
		if page.Done {
			return all, nil
		}
		in.From = page.Next
	}
}
