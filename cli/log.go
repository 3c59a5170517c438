package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// logFlags say which events are wanted, and how.
type logFlags struct {
	follow, tree, raw      bool
	since, until           string
	container, job, actor  string
	last                   int
	image, network, driver string
}

func (a *app) logCmd() *cobra.Command {
	var f logFlags
	c := &cobra.Command{
		Use: "log [flags]", Short: "Show what happened, who asked for it and what it led to", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			in, err := f.query(c.Context(), a)
			var usage *usageError
			if errors.As(err, &usage) {
				usage.command = c.CommandPath()
			}
			if err != nil {
				return err
			}
			switch {
			case f.tree && f.follow:
				return &usageError{errors.New("a tree cannot be followed: leave out -f or --tree"), c.CommandPath()}
			case f.tree:
				return a.logTree(c.Context(), in)
			}
			return a.showLog(c.Context(), in, &f)
		},
	}
	p := c.Flags()
	p.BoolVarP(&f.follow, "follow", "f", false, "go on with what happens")
	p.BoolVar(&f.tree, "tree", false, "show what caused what, with how long it took")
	p.BoolVar(&f.raw, "json", false, "the events as they are stored, one a line")
	p.StringVar(&f.since, "since", "", "from this sequence or time on; a time may be how long ago, e.g. 10m")
	p.StringVar(&f.until, "until", "", "up to this sequence or time")
	p.StringVar(&f.container, "container", "", "only about this container")
	p.StringVar(&f.image, "image", "", "only about this image")
	p.StringVar(&f.network, "network", "", "only about this network")
	p.StringVar(&f.driver, "driver", "", "only about this driver, KIND/NAME")
	p.StringVar(&f.job, "job", "", "only what this job did")
	p.StringVar(&f.actor, "actor", "", "only what this user asked for: uid or name")
	p.IntVarP(&f.last, "last", "n", 0, "only so many, the newest")
	c.AddCommand(a.logVerifyCmd(), a.logRepairCmd(), a.logExportCmd())
	return c
}

// query is what the flags ask for.
func (f *logFlags) query(ctx context.Context, a *app) (query.LogIn, error) {
	var in query.LogIn
	if err := f.span(&in); err != nil {
		return in, &usageError{err: err}
	}
	if f.actor != "" {
		uid, err := parseUser(f.actor)
		if err != nil {
			return in, &usageError{err: err}
		}
		in.Actor = &uid
	}
	for kind, ref := range map[string]string{
		core.KindContainer: f.container, core.KindImage: f.image, core.KindNetwork: f.network, core.KindDriver: f.driver,
	} {
		if ref == "" {
			continue
		}
		if in.ID != "" {
			return in, &usageError{err: errors.New("choose one of --container, --image, --network and --driver")}
		}
		id, err := a.noun(ctx, kind, ref)
		if err != nil {
			return in, err
		}
		in.Noun, in.ID = kind, id
	}
	if f.job != "" {
		var d query.JobDetail
		if err := a.query(ctx, query.JobInspect, query.RefIn{Ref: f.job}, &d); err != nil {
			return in, err
		}
		in.Job, in.From = string(d.Job.ID), max(in.From, d.Job.Seq)
	}
	return in, nil
}

// noun finds the id of what a log is wanted about. What is gone is only known to
// the log: a whole id is taken as it stands, and anything else as a name or as a
// prefix that the log's own events tell.
func (a *app) noun(ctx context.Context, kind, ref string) (string, error) {
	if kind == core.KindImage {
		full, err := a.imageRef(ctx, ref)
		if err != nil {
			return "", err
		}
		ref = full
	}
	r, err := a.resolve(ctx, kind, ref)
	if err == nil || !errdefs.IsNotFound(err) {
		return r.ID, err
	}
	if isHex(ref) && len(ref) == 64 || isDigest(ref) {
		return ref, nil
	}
	if kind != core.KindContainer {
		return "", err
	}
	if id, found := a.gone(ctx, ref); found {
		return id, nil
	}
	return "", err
}

// gone finds the newest container of the log that had the name, or whose id
// begins with it.
func (a *app) gone(ctx context.Context, ref string) (string, bool) {
	id := ""
	in := query.LogIn{Noun: core.KindContainer}
	_, err := a.readLog(ctx, in, func(line json.RawMessage) error {
		var e core.ContainerCreated
		if json.Unmarshal(line, &e) == nil && e.Header.Name == "container.created" &&
			(e.ContainerName == ref || len(ref) >= 4 && len(e.ID) > len(ref) && e.ID[:len(ref)] == ref) {
			id = e.ID
		}
		return nil
	})
	return id, err == nil && id != ""
}

// span reads --since and --until: digits are a sequence, all else is a time.
func (f *logFlags) span(in *query.LogIn) error {
	now := time.Now()
	read := func(s string, seq *uint64, t *time.Time) error {
		var err error
		switch {
		case s == "":
		case digits(s):
			*seq, err = strconv.ParseUint(s, 10, 64)
		default:
			*t, err = parseTime(s, now)
		}
		return err
	}
	return errors.Join(read(f.since, &in.From, &in.Since), read(f.until, &in.To, &in.Until))
}

// parseUser reads a uid or a user's name.
func parseUser(s string) (uint32, error) {
	if !digits(s) {
		u, err := user.Lookup(s)
		if err != nil {
			return 0, fmt.Errorf("no such user: %s", s)
		}
		s = u.Uid
	}
	uid, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no uid", s)
	}
	return uint32(uid), nil
}

// readLog calls each with the events of all pages, and returns the sequence to go
// on with.
func (a *app) readLog(ctx context.Context, in query.LogIn, each func(json.RawMessage) error) (uint64, error) {
	for {
		var page query.LogPage
		if err := a.query(ctx, query.LogRead, in, &page); err != nil {
			return in.From, err
		}
		for _, line := range page.Events {
			if err := each(line); err != nil {
				return in.From, err
			}
		}
		in.From = page.Next
		if page.Done {
			return in.From, nil
		}
	}
}

// showLog prints events as lines.
func (a *app) showLog(ctx context.Context, in query.LogIn, f *logFlags) error {
	out := bufio.NewWriter(a.Stdout)
	p := &linePrinter{w: out}
	show := p.print
	if f.raw {
		show = func(line json.RawMessage) error {
			_, err := out.Write(append(line, '\n'))
			return err
		}
	}
	var err error
	if f.last > 0 {
		in.From, err = a.showLast(ctx, in, f.last, show)
	} else {
		in.From, err = a.readLog(ctx, in, show)
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil || !f.follow {
		return err
	}
	return a.followLog(ctx, in, func(line json.RawMessage) error {
		return errors.Join(show(line), out.Flush())
	})
}

// showLast prints the newest events only.
func (a *app) showLast(ctx context.Context, in query.LogIn, n int, show func(json.RawMessage) error) (uint64, error) {
	var last []json.RawMessage
	next, err := a.readLog(ctx, in, func(line json.RawMessage) error {
		if last = append(last, line); len(last) > 2*n {
			last = append(last[:0], last[len(last)-n:]...)
		}
		return nil
	})
	for _, line := range last[max(0, len(last)-n):] {
		err = errors.Join(err, show(line))
	}
	return next, err
}

// followLog prints what happens from in.From on. Live events only tell that there
// is something new: what is shown is read with the same filter as the rest, so
// nothing is missed, also when the engine is started anew in between.
func (a *app) followLog(ctx context.Context, in query.LogIn, show func(json.RawMessage) error) error {
	return a.lasting(ctx, func(client *bus.Client) error { return a.followOn(ctx, client, &in, show) })
}

func (a *app) followOn(ctx context.Context, client *bus.Client, in *query.LogIn, show func(json.RawMessage) error) error {
	events, err := client.Events(ctx, 0, bus.Filter{})
	if err != nil {
		return err
	}
	defer events.Close()
	for {
		next, err := a.readLog(ctx, *in, show)
		in.From = next
		if err != nil {
			return err
		}
		for seen := uint64(0); seen < in.From; { // those up to there are shown already
			e, err := events.Next(ctx)
			if err != nil {
				return errclass.Errorf(errdefs.ErrUnavailable, "%w", err)
			}
			seen = e.Seq
		}
	}
}
