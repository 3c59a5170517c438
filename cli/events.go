package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

// errPast ends a stream of events at --until.
var errPast = errors.New("past the end")

func (a *app) eventsCmd() *cobra.Command {
	var f eventFilter
	var since, until, format string
	c := &cobra.Command{
		Use: "events [flags]", Short: "Follow what happens, in Docker's words", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.read(); err != nil {
				return &usageError{err, c.CommandPath()}
			}
			now := time.Now()
			var err error
			if since != "" {
				f.since, err = parseTime(since, now)
			}
			if until != "" && err == nil {
				f.until, err = parseTime(until, now)
			}
			if err != nil {
				return &usageError{err, c.CommandPath()}
			}
			return a.events(c.Context(), &f, format)
		},
	}
	c.Flags().StringVar(&since, "since", "", "begin there: a time, or how long ago (default: now)")
	c.Flags().StringVar(&until, "until", "", "end there (default: never)")
	c.Flags().StringVar(&format, "format", "", "json, or a Go template: '{{.Type}} {{.Action}}'")
	listVarP(c.Flags(), &f.list, "filter", "f", "only some: type=, event=, container=, image=, network=")
	return c
}

// dockerEvent is an event in Docker's form.
type dockerEvent struct {
	Type     string
	Action   string
	Actor    dockerActor
	Scope    string    `json:"scope"`
	Time     int64     `json:"time"`
	TimeNano int64     `json:"timeNano"`
	Seq      uint64    `json:"seq"`
	at       time.Time // the same time
}

type dockerActor struct {
	ID         string
	Attributes map[string]string
}

// actions are the events that Docker has a word for.
func actions() map[string]string {
	return map[string]string{
		"container.created": "create", "container.started": "start", "container.exited": "die", "container.removed": "destroy",
		"container.renamed": "rename", "container.signaled": "kill",
		"container.paused": "pause", "container.unpaused": "unpause", "container.updated": "update", "container.oom-killed": "oom",
		"container.health-changed": "health_status", "container.exec-wanted": "exec_create", "container.exec-started": "exec_start",
		"container.exec-exited": "exec_die",
		"image.loaded":          "load", "image.tagged": "tag", "image.untagged": "untag", "image.removed": "delete",
		"network.created": "create", "network.removed": "destroy",
		"container.network-attached": "connect", "container.network-detached": "disconnect",
	}
}

// eventFilter says which events are wanted: of each key given one must fit.
type eventFilter struct {
	list         []string
	by           map[string][]string
	since, until time.Time
}

func (f *eventFilter) read() error {
	f.by = make(map[string][]string)
	for _, e := range f.list {
		key, value, ok := strings.Cut(e, "=")
		if !ok || !slices.Contains([]string{"type", "event", "container", "image", "network"}, key) {
			return badFilter(e, "want one of type=, event=, container=, image=, network=")
		}
		f.by[key] = append(f.by[key], value)
	}
	return nil
}

func (f *eventFilter) fits(e *dockerEvent) bool {
	for key, values := range f.by {
		if !slices.ContainsFunc(values, func(v string) bool { return eventFits(e, key, v) }) {
			return false
		}
	}
	return true
}

func eventFits(e *dockerEvent, key, v string) bool {
	switch key {
	case "type":
		return e.Type == v
	case "event":
		return e.Action == v || strings.HasPrefix(e.Action, v+":")
	case "image":
		if e.Type == "container" {
			return e.Actor.Attributes["image"] == v
		}
	case "container":
		if e.Type == "network" && strings.HasPrefix(e.Actor.Attributes["container"], v) {
			return true
		}
	}
	return e.Type == key && (e.Actor.Attributes["name"] == v || strings.HasPrefix(strings.TrimPrefix(e.Actor.ID, digestMark), v))
}

// events prints events until --until, or for ever.
func (a *app) events(ctx context.Context, f *eventFilter, format string) error {
	names := make(map[string]string)
	var in query.LogIn
	if err := a.knownNames(ctx, names, &in); err != nil {
		return err
	}
	if !f.since.IsZero() {
		in.From, in.Since = 0, f.since
	}
	if !f.until.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, f.until)
		defer stop()
		in.Until = f.until
	}
	words := actions()
	show := func(line json.RawMessage) error {
		e, err := readLogged(line)
		if err != nil {
			return err
		}
		if !f.until.IsZero() && e.Time.After(f.until) {
			return errPast
		}
		d := dockerForm(&e, words, names)
		if d == nil || !f.fits(d) {
			return nil
		}
		return a.showEvent(d, format)
	}
	next, err := a.readLog(context.WithoutCancel(ctx), in, show)
	if err == nil && (f.until.IsZero() || time.Now().Before(f.until)) {
		in.From, in.Since, in.Until = next, time.Time{}, time.Time{}
		err = a.followLog(ctx, in, show)
	}
	if errors.Is(err, errPast) || errors.Is(err, context.DeadlineExceeded) && !f.until.IsZero() {
		return nil
	}
	return err
}

// knownNames are the names of what is there, by id; and from where on to read.
func (a *app) knownNames(ctx context.Context, names map[string]string, in *query.LogIn) error {
	var containers query.Containers
	var networks query.Networks
	err := a.query(ctx, query.ContainerList, query.ListIn{All: true}, &containers)
	if err == nil {
		err = a.query(ctx, query.NetworkList, nil, &networks)
	}
	for _, c := range containers.Containers {
		names[string(c.ID)] = c.Name
	}
	for _, n := range networks.Networks {
		names[string(n.ID)] = n.Name
	}
	in.From = containers.Seq + 1
	return err
}

// dockerForm is the event in Docker's form; nil if Docker has no word for it.
func dockerForm(e *logged, words map[string]string, names map[string]string) *dockerEvent {
	action := words[e.Name]
	if action == "" {
		return nil
	}
	switch e.Name {
	case "container.created", "network.created":
		names[e.ID], _ = e.fields["name"].(string)
	case "container.renamed":
		names[e.ID], _ = e.fields["new"].(string)
	case "container.health-changed":
		status, _ := e.fields["status"].(string)
		action += ": " + status
	case "container.exec-wanted", "container.exec-started":
		exec, _ := e.fields["exec"].(string)
		if args := e.execArgs(); args != "" {
			names[exec] = args // an exec is called by its command line
		}
		if line := names[exec]; line != "" {
			action += ": " + line
		}
	}
	d := &dockerEvent{
		Type: e.Noun, Action: action, Scope: "local", Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(), Seq: e.Seq, at: e.Time,
		Actor: dockerActor{ID: e.ID, Attributes: e.attributes(names)},
	}
	if network, ok := e.fields["network"].(string); ok && e.Noun == core.KindContainer {
		d.Type, d.Actor.ID = core.KindNetwork, network
		d.Actor.Attributes = map[string]string{"container": e.ID, "name": names[network]}
	}
	return d
}

func (a *app) showEvent(d *dockerEvent, format string) error {
	if format != "" {
		return writeFormat(a.Stdout, format, d)
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(d.Actor.Attributes)) {
		parts = append(parts, k+"="+d.Actor.Attributes[k])
	}
	tail := ""
	if len(parts) > 0 {
		tail = " (" + strings.Join(parts, ", ") + ")"
	}
	_, err := fmt.Fprintf(a.Stdout, "%s %s %s %s%s\n", d.at.Local().Format("2006-01-02T15:04:05.000000000Z07:00"), d.Type, d.Action, d.Actor.ID, tail)
	return err
}
