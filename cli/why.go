package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) whyCmd() *cobra.Command {
	var raw bool
	c := &cobra.Command{
		Use: "why CONTAINER", Short: "Say in a few lines why a container is as it is", Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var out query.Why
			if err := a.query(c.Context(), query.ContainerWhy, query.RefIn{Ref: args[0]}, &out); err != nil {
				return err
			}
			if raw {
				return writeJSON(a.Stdout, out)
			}
			return sayWhy(a.Stdout, &out, time.Now())
		},
	}
	c.Flags().BoolVar(&raw, "json", false, "the chain as it is in the log")
	return c
}

// sayWhy tells the chain of causes: the present first, then back to whoever asked.
func sayWhy(w io.Writer, out *query.Why, now time.Time) error {
	c := &out.Container
	fmt.Fprintf(w, "%s (%s) is %s\n", c.Name, short(string(c.ID)), nowWords(c, now))
	told := ""
	guessed := false
	for _, link := range out.Chain {
		e, err := readLogged(link.Event)
		if err != nil {
			return err
		}
		words := e.why(link.Job)
		lead := "because"
		if guessed {
			lead = "after"
		}
		guessed = link.Guessed
		if words == "" || words == told {
			continue
		}
		told = words
		fmt.Fprintf(w, "  %-7s %s  (%s, event %d)\n", lead, words, e.Time.Local().Format("15:04:05.000"), e.Seq)
	}
	for _, st := range out.Steps {
		fmt.Fprintf(w, "  still   %s is %s%s\n", st.Name, st.State, stepTail(&st, now))
	}
	return nil
}

func stepTail(st *query.Step, now time.Time) string {
	s := ""
	if st.Driver != "" {
		s += " at driver " + st.Driver
	}
	if !st.Since.IsZero() {
		s += ", for " + strings.ToLower(humanTime(now.Sub(st.Since)))
	}
	if st.Last != "" {
		s += fmt.Sprintf(", tried %d times: %s", st.Tries, st.Last)
	}
	return s
}

// nowWords is how a container is.
func nowWords(c *query.Container, now time.Time) string {
	switch {
	case c.Status == "removing":
		return "being removed; it still holds " + strings.Join(c.Holds, ", ")
	case c.Running && c.Want == core.Stopped:
		return "being stopped"
	case c.Running:
		return "running for " + strings.ToLower(humanTime(now.Sub(c.Started)))
	case c.Want == core.Running:
		return "being started"
	case c.Fault != nil:
		return "not running: its start failed: " + c.Fault.Message
	case c.Exit != nil:
		return fmt.Sprintf("not running: it ended with code %d %s", c.Exit.Code, strings.ToLower(ago(c.Exit.Time, now)))
	}
	return "not running: it was never started"
}

// why is an event as a clause.
func (e *logged) why(job *core.Job) string {
	switch e.Name {
	case "job.accepted":
		return e.askedFor(job)
	case "job.ended":
		return ""
	case "container.created":
		return e.sprint("it was made from %s", "image_ref")
	case "container.start-wanted":
		return "it was wanted running"
	case "container.rootfs-prepared":
		return "its root filesystem was ready"
	case "container.network-attached":
		return "its network was attached"
	case "container.started":
		return e.sprint("its program was started as run %s", "run")
	case "container.start-failed":
		return "its start failed: " + e.fault()
	case "container.start-cancelled":
		return "its start was taken back"
	case "container.exited":
		if exit, ok := e.fields["exit"].(map[string]any); ok {
			return "its program ended: " + exitWords(exit)
		}
	case "container.stop-wanted":
		return "it was wanted stopped"
	case "container.remove-wanted":
		return "it was wanted gone"
	case "container.kill-wanted":
		return e.sprint("%s was wanted sent to it", "signal")
	case "container.signaled":
		return e.sprint("%s was sent to it", "signal")
	case "container.grace-ended":
		return e.sprint("it had not ended within %s", "waited_ns")
	case "container.process-released":
		return "what its run held was given back"
	case "container.network-detached":
		return "its network was given back"
	case "container.renamed":
		return e.sprint("it was renamed to %s", "new")
	case "engine.started":
		return "the engine was started"
	}
	return strings.TrimSpace(e.Name + " " + e.matter())
}

// sprint is a sentence with one field in it.
func (e *logged) sprint(format, field string) string {
	_, v, _ := strings.Cut(value(field, e.fields[field]), "=")
	if field == "image_ref" {
		v = familiar(v)
	}
	return fmt.Sprintf(format, v)
}

func (e *logged) fault() string {
	if f, ok := e.fields["fault"].(map[string]any); ok {
		if message, ok := f["message"].(string); ok {
			return message
		}
	}
	return "unknown"
}

// askedFor says who asked, as the job remembers it or the event.
func (e *logged) askedFor(job *core.Job) string {
	actor, _ := e.fields["actor"].(map[string]any)
	command, _ := e.fields["command"].(string)
	client, _ := e.fields["client"].(string)
	reason, _ := e.fields["reason"].(string)
	s := fmt.Sprintf("%s asked for %s", actorWords(actor), command)
	if client != "" {
		s += " with " + client
	}
	if reason != "" {
		s += ": " + reason
	}
	if job != nil {
		s += ", job " + shortJob(job.ID)
	}
	return s
}

// attributes are an event's fields as Docker's events show them.
func (e *logged) attributes(names map[string]string) map[string]string {
	m := make(map[string]string)
	if name := names[e.ID]; name != "" {
		m["name"] = name
	}
	for _, k := range slices.Clone(e.order) {
		switch v := e.fields[k].(type) {
		case string:
			m[k] = v
		case float64:
			m[k] = fmt.Sprint(v)
		}
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
