package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) psCmd() *cobra.Command {
	var all, latest bool
	var last int
	var filters []string
	l := listing{
		id: "ID",
		columns: []column{
			{"CONTAINER ID", "ID"}, {"IMAGE", "Image"}, {"COMMAND", "Command"}, {"CREATED", "RunningFor"},
			{"STATUS", "Status"}, {"PORTS", "Ports"}, {"NAMES", "Names"},
		},
		more: []column{{"CREATED AT", "CreatedAt"}, {"STATE", "State"}, {"NETWORKS", "Networks"}, {"LABELS", "Labels"}, {"PID", "PID"},
			{"HEALTH", "Health"}, {"RESTARTS", "Restarts"}, {"MOUNTS", "Mounts"}, {"LOCAL VOLUMES", "LocalVolumes"}, {"SIZE", "Size"}},
	}
	c := &cobra.Command{
		Use: "ps [flags]", Short: "List containers", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			keep, err := a.containerFilter(c.Context(), filters)
			if errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) {
				return err // the engine's word
			}
			if err != nil {
				return &usageError{err, c.CommandPath()}
			}
			if latest {
				last = 1
			}
			every := all || last > 0 || keep.states
			var out query.Containers
			if err := a.query(c.Context(), query.ContainerList, query.ListIn{All: every}, &out); err != nil {
				return err
			}
			list := slices.DeleteFunc(out.Containers, func(q query.Container) bool { return !keep.fits(&q) })
			if last > 0 {
				list = list[:min(last, len(list))]
			}
			now := time.Now()
			var rows []row
			for i := range list {
				rows = append(rows, l.container(&list[i], now))
			}
			return l.write(a.Stdout, rows)
		},
	}
	l.register(c)
	c.Flags().BoolVarP(&all, "all", "a", false, "also those that do not run")
	c.Flags().BoolVarP(&latest, "latest", "l", false, "only the one made last")
	c.Flags().IntVarP(&last, "last", "n", -1, "only so many, those made last")
	listVarP(c.Flags(), &filters, "filter", "f", "only some: status=, health=, name=, id=, label=, ancestor=, network=, exited=, before=, since=")
	return c
}

// container is a container as a row.
func (l *listing) container(q *query.Container, now time.Time) row {
	command := commandOf(q.Command)
	if !l.noTrunc {
		command = clip(command, 20)
	}
	var networks, labels []string
	for _, n := range q.Networks {
		networks = append(networks, n.NetworkName)
	}
	r := row{}
	for k, v := range q.Labels {
		labels = append(labels, k+"="+v)
		r[labelMark+k] = v
	}
	slices.Sort(labels)
	mounts := slices.Clone(q.Mounts)
	for i, host := range mounts {
		if !l.noTrunc {
			mounts[i] = clip(host, 15)
		}
	}
	maps.Copy(r, row{
		"ID": l.idOf(string(q.ID)), "Image": familiar(q.Image), "Command": strconv.Quote(command),
		"RunningFor": ago(q.Created, now), "CreatedAt": q.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"),
		"Status": l.status(q, now), "State": q.Status, "Ports": "", "Names": q.Name,
		"Networks": strings.Join(networks, ","), "Labels": strings.Join(labels, ","), "PID": strconv.Itoa(q.PID),
		"Health": q.Health, "Restarts": strconv.Itoa(q.Restarts),
		"Mounts": strings.Join(mounts, ","), "LocalVolumes": "0", "Size": "N/A",
	})
	return r
}

// commandOf is a command line in one piece. An argument with a blank in it stands in
// quotes; the program does not.
func commandOf(args []string) string {
	args = slices.Clone(args)
	for i := 1; i < len(args); i++ {
		if strings.Contains(args[i], " ") {
			args[i] = "'" + args[i] + "'"
		}
	}
	return strings.Join(args, " ")
}

// status says how a container is, in Docker's words. A start that failed is told
// with its reason.
func (l *listing) status(q *query.Container, now time.Time) string {
	up := "Up " + humanTime(now.Sub(q.Started))
	switch {
	case q.Status == "removing":
		return "Removal In Progress"
	case q.Status == "dead":
		return "Dead"
	case q.Status == "restarting":
		if q.Exit == nil {
			return "Restarting"
		}
		return fmt.Sprintf("Restarting (%d) %s", q.Exit.Code, ago(q.Exit.Time, now))
	case q.Status == "paused":
		return up + " (Paused)"
	case q.Running && q.Health == core.HealthStarting:
		return up + " (health: starting)"
	case q.Running && q.Health != "":
		return up + " (" + q.Health + ")"
	case q.Running:
		return up
	case q.Want == core.Running:
		return "Starting"
	case q.Fault != nil:
		why := inFlags(q.Fault.Message)
		if !l.noTrunc {
			why = clip(why, 50)
		}
		return fmt.Sprintf("Failed (%d) %s", faultCode(q.Fault), why)
	case q.Exit != nil:
		return fmt.Sprintf("Exited (%d) %s", q.Exit.Code, ago(q.Exit.Time, now))
	}
	return "Created"
}

// containerFilter chooses containers: of each key given one value must fit, of
// labels all.
type containerFilter struct {
	by     map[string][]string
	states bool // asks for those that do not run, too

	before, since time.Time // when the containers were made that these filters name; zero: none
}

func (a *app) containerFilter(ctx context.Context, list []string) (*containerFilter, error) {
	f := &containerFilter{by: make(map[string][]string)}
	for _, e := range list {
		key, value, ok := strings.Cut(e, "=")
		if !ok {
			return nil, fmt.Errorf("filter %q: want NAME=VALUE", e)
		}
		switch key {
		case "status":
			if !slices.Contains([]string{"created", "running", "paused", "restarting", "removing", "exited", "dead"}, value) {
				return nil, badFilter(e, "want one of created, running, paused, restarting, removing, exited, dead")
			}
			f.states = true
		case "exited":
			if _, err := strconv.Atoi(value); err != nil {
				return nil, badFilter(e, "want a number")
			}
			f.states = true
		case "health":
			if !slices.Contains([]string{core.HealthStarting, core.Healthy, core.Unhealthy, "none"}, value) {
				return nil, badFilter(e, "want one of starting, healthy, unhealthy, none")
			}
		case "name":
			if _, err := regexp.Compile(value); err != nil {
				return nil, badFilter(e, "want a regular expression")
			}
		case "id", "label", "network":
		case "before", "since":
			if err := f.readMade(ctx, a, key, value); err != nil {
				return nil, err
			}
			continue
		case "ancestor":
			ref, err := a.imageRef(ctx, value)
			if err != nil {
				return nil, err
			}
			value = ref
		default:
			return nil, errors.New("filter " + key + " is not supported yet")
		}
		f.by[key] = append(f.by[key], value)
	}
	return f, nil
}

// readMade reads a filter that names a container for the moment it was made.
func (f *containerFilter) readMade(ctx context.Context, a *app, key, ref string) error {
	var d query.ContainerDetail
	if err := a.query(ctx, query.ContainerInspect, query.RefIn{Ref: ref}, &d); err != nil {
		return err
	}
	if key == "before" {
		f.before = d.Created
	} else {
		f.since = d.Created
	}
	return nil
}

func (f *containerFilter) fits(q *query.Container) bool {
	if !f.before.IsZero() && !q.Created.Before(f.before) || !f.since.IsZero() && !q.Created.After(f.since) {
		return false
	}
	for key, values := range f.by {
		if key == "label" { // all of them
			if slices.ContainsFunc(values, func(v string) bool { return !containerFits(q, key, v) }) {
				return false
			}
			continue
		}
		if !slices.ContainsFunc(values, func(v string) bool { return containerFits(q, key, v) }) {
			return false
		}
	}
	return true
}

func containerFits(q *query.Container, key, v string) bool {
	switch key {
	case "status":
		return q.Status == v
	case "health":
		return q.Health == v || q.Health == "" && v == "none"
	case "exited":
		return q.Exit != nil && !q.Running && strconv.Itoa(q.Exit.Code) == v
	case "name":
		// Docker's names begin with a slash, and people write ^/web$.
		name, err := regexp.Compile(v)
		return err == nil && (name.MatchString(q.Name) || name.MatchString("/"+q.Name))
	case "id":
		return strings.HasPrefix(string(q.ID), v)
	case "label":
		name, value, exact := strings.Cut(v, "=")
		has, ok := q.Labels[name]
		return ok && (!exact || has == value)
	case "network":
		return slices.ContainsFunc(q.Networks, func(n query.Attachment) bool {
			return n.NetworkName == v || strings.HasPrefix(string(n.Network), v)
		})
	case "ancestor":
		return q.Image == v || string(q.ImageID) == v || strings.HasPrefix(string(q.ImageID), digestMark+strings.TrimPrefix(v, digestMark))
	}
	return false
}
