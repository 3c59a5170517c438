package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
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
	listVarP(c.Flags(), &f.list, "filter", "f", "only some: type=, event=, container=, image=, label=, network=")
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

// eventFilter says which events are wanted: of each key given one must fit, of
// labels all.
type eventFilter struct {
	list         []string
	by           map[string][]string
	since, until time.Time
}

func (f *eventFilter) read() error {
	f.by = make(map[string][]string)
	for _, e := range f.list {
		key, value, ok := strings.Cut(e, "=")
		if !ok || !slices.Contains([]string{"type", "event", "container", "image", "label", "network"}, key) {
			return badFilter(e, "want one of type=, event=, container=, image=, label=, network=")
		}
		f.by[key] = append(f.by[key], value)
	}
	return nil
}

func (f *eventFilter) fits(e *dockerEvent) bool {
	for key, values := range f.by {
		fits := func(v string) bool { return eventFits(e, key, v) }
		if key == "label" {
			other := func(v string) bool { return !fits(v) }
			if slices.ContainsFunc(values, other) {
				return false
			}
			continue
		}
		if !slices.ContainsFunc(values, fits) {
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
		if e.Type == core.KindContainer {
			return withTag(e.Actor.Attributes["image"]) == withTag(v)
		}
	case "label":
		name, want, exact := strings.Cut(v, "=")
		is, has := e.Actor.Attributes[name]
		return has && (!exact || is == want)
	case "container":
		if e.Type == "network" && strings.HasPrefix(e.Actor.Attributes["container"], v) {
			return true
		}
	}
	return e.Type == key && (e.Actor.Attributes["name"] == v || strings.HasPrefix(strings.TrimPrefix(e.Actor.ID, digestMark), v))
}

// events prints events until --until, or for ever.
func (a *app) events(ctx context.Context, f *eventFilter, format string) error {
	var in query.LogIn
	k, err := a.known(ctx, &in)
	if err != nil {
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
		d := k.dockerForm(&e, words)
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

// known is what events do not repeat and Docker's tell.
type known struct {
	names map[string]string            // by id; an exec is called by its command line
	made  map[string]map[string]string // of each container its image and its labels, as attributes
}

// known is about what is there; it says from where on to read.
func (a *app) known(ctx context.Context, in *query.LogIn) (*known, error) {
	k := &known{names: make(map[string]string), made: make(map[string]map[string]string)}
	var containers query.Containers
	var networks query.Networks
	err := a.query(ctx, query.ContainerList, query.ListIn{All: true}, &containers)
	if err == nil {
		err = a.query(ctx, query.NetworkList, nil, &networks)
	}
	for _, c := range containers.Containers {
		k.names[string(c.ID)] = c.Name
		made := map[string]string{"image": familiar(c.Image)}
		maps.Copy(made, c.Labels)
		k.made[string(c.ID)] = made
	}
	for _, n := range networks.Networks {
		k.names[string(n.ID)] = n.Name
	}
	in.From = containers.Seq + 1
	return k, err
}

// learn takes in what an event tells once for all that follow.
func (k *known) learn(e *logged) {
	switch e.Name {
	case "container.created":
		made := make(map[string]string)
		spec, _ := e.fields["spec"].(map[string]any)
		labels, _ := spec["labels"].(map[string]any)
		for name, v := range labels {
			made[name], _ = v.(string)
		}
		ref, _ := e.fields["image_ref"].(string)
		made["image"] = familiar(ref)
		k.made[e.ID] = made
		k.names[e.ID], _ = e.fields["name"].(string)
	case "network.created":
		k.names[e.ID], _ = e.fields["name"].(string)
	case "container.renamed":
		k.names[e.ID], _ = e.fields["new"].(string)
	case "container.exec-wanted":
		if exec, ok := e.fields["exec"].(string); ok {
			k.names[exec] = e.execArgs()
		}
	}
}

// forget lets go what no later event is about.
func (k *known) forget(e *logged) {
	switch e.Name {
	case "container.removed", "network.removed":
		delete(k.names, e.ID)
		delete(k.made, e.ID)
	case "container.exec-exited":
		exec, _ := e.fields["exec"].(string)
		delete(k.names, exec)
	}
}

// dockerForm is the event in Docker's form; nil if Docker has no word for it.
func (k *known) dockerForm(e *logged, words map[string]string) *dockerEvent {
	action := words[e.Name]
	if action == "" {
		return nil
	}
	k.learn(e)
	defer k.forget(e)
	switch e.Name {
	case "container.health-changed":
		status, _ := e.fields["status"].(string)
		action += ": " + status
	case "container.exec-wanted", "container.exec-started":
		exec, _ := e.fields["exec"].(string)
		if line := k.names[exec]; line != "" {
			action += ": " + line
		}
	}
	d := &dockerEvent{
		Type: e.Noun, Action: action, Scope: "local", Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(), Seq: e.Seq, at: e.Time,
		Actor: dockerActor{ID: e.ID, Attributes: k.attributes(e)},
	}
	if network, ok := e.fields["network"].(string); ok && e.Noun == core.KindContainer {
		d.Type, d.Actor.ID = core.KindNetwork, network
		d.Actor.Attributes = map[string]string{"container": e.ID, "name": k.names[network]}
	}
	return d
}

// attributes are an event's fields as Docker's events show them.
func (k *known) attributes(e *logged) map[string]string {
	m := make(map[string]string)
	maps.Copy(m, k.made[e.ID])
	if name := k.names[e.ID]; name != "" {
		m["name"] = name
	}
	for key, v := range e.fields {
		switch v := v.(type) {
		case string:
			m[key] = v
		case float64:
			m[key] = strconv.FormatFloat(v, 'f', -1, 64)
		}
	}
	if exec := m["exec"]; exec != "" {
		m["execID"] = exec
		delete(m, "exec")
	}
	if exit, ok := e.fields["exit"].(map[string]any); ok {
		m["exitCode"] = fmt.Sprint(exit["code"])
	}
	if ref := m["image_ref"]; ref != "" {
		m["image"] = familiar(ref)
		delete(m, "image_ref")
	}
	delete(m, "manifest")
	delete(m, "layer")
	return m
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
