package cli

import (
	"fmt"
	"io"
	"strconv"
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
	case c.Status == "restarting":
		if c.Exit == nil {
			return "waiting to be started again"
		}
		return fmt.Sprintf("waiting to be started again: its run ended with code %d %s", c.Exit.Code, strings.ToLower(ago(c.Exit.Time, now)))
	case c.Status == "paused":
		return "paused; it was started " + strings.ToLower(ago(c.Started, now))
	case c.Running && c.Want == core.Stopped:
		return "being stopped"
	case c.Running:
		s := "running for " + strings.ToLower(humanTime(now.Sub(c.Started)))
		if c.Health != "" {
			s += ", its health is " + c.Health
		}
		return s
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
	case "container.stop-hastened":
		return "it was wanted stopped sooner"
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
	}
	return e.whyAlive()
}

// whyAlive is the same for what happens while a container runs, and between two
// of its runs.
func (e *logged) whyAlive() string {
	switch e.Name {
	case "container.pause-wanted":
		return "it was wanted paused"
	case "container.paused":
		return "its processes were held"
	case "container.unpause-wanted":
		return "it was wanted to go on"
	case "container.unpaused":
		return "its processes were let go on"
	case "container.restart-wanted":
		if sick, _ := e.fields["unhealthy"].(bool); sick {
			return "its policy wants it started anew when it is unhealthy"
		}
		return "it was wanted started anew"
	case "container.restart-planned":
		if hand, _ := e.fields["by_hand"].(bool); hand {
			return "another run was to follow"
		}
		return e.sprint("its restart policy planned another run after a wait of %s", "delay_ns") + e.restartCount()
	case "container.restart-due":
		return "the wait before its next run was over"
	case "container.health-changed":
		return e.sprint("its health became %s", "status") + e.failedProbe()
	case "container.oom-killed":
		return e.sprint("the kernel killed in it for want of memory, %s times so far", "kills")
	case "container.updated":
		return "its limits or its restart policy were changed"
	case "container.update-wanted":
		return "its limits were wanted changed"
	case "container.pause-failed", "container.update-failed", "container.prepare-failed", "container.health-watch-failed", "container.exec-failed":
		return failedActs()[e.Name] + ": " + e.fault()
	}
	return e.whyHeld()
}

// failedActs are what could not be done, by the event that says so.
func failedActs() map[string]string {
	return map[string]string{
		"container.pause-failed": "it could not be paused", "container.update-failed": "its limits could not be changed",
		"container.prepare-failed":      "its root filesystem could not be made ready",
		"container.health-watch-failed": "its health could not be watched",
		"container.exec-failed":         "a further program could not be started in it",
	}
}

// whyHeld is the same for what is held for a container and for its execs.
func (e *logged) whyHeld() string {
	switch e.Name {
	case "container.prepare-wanted":
		return "its root filesystem was wanted"
	case "container.rootfs-released":
		return "its root filesystem was given back"
	case "container.rootfs-lost", "container.network-lost", "container.userns-lost":
		what := strings.TrimSuffix(strings.TrimPrefix(e.Name, "container."), "-lost")
		return map[string]string{"rootfs": "its root filesystem", "network": "its network", "userns": "its user namespace"}[what] + " was found gone"
	case "container.log-removed":
		return "its log was removed"
	case "container.removed":
		return "it was removed"
	case "container.health-watched":
		return "its health was watched"
	case "container.health-unwatched":
		return "its health was watched no more"
	case "container.exec-started":
		return e.sprint("a further program was started in it, pid %s", "pid")
	case "container.exec-released":
		return "what that program held was given back"
	case "container.userns-held":
		return "its user namespace was made"
	case "container.userns-released":
		return "its user namespace was given back"
	case "container.joined":
		return "the namespaces that it shares were there"
	case "container.exec-wanted":
		return "a further program was wanted in it: " + e.execArgs()
	case "container.exec-exited":
		if exit, ok := e.fields["exit"].(map[string]any); ok {
			return "that program ended: " + exitWords(exit)
		}
	case "engine.started":
		return "the engine was started"
	}
	return strings.TrimSpace(e.Name + " " + e.matter())
}

// restartCount says how often in a row, from the second time on.
func (e *logged) restartCount() string {
	if n, _ := e.fields["count"].(float64); n > 1 {
		return fmt.Sprintf(", restart %.0f in a row", n)
	}
	return ""
}

// failedProbe is what the last probe of an unhealthy container said.
func (e *logged) failedProbe() string {
	probes, _ := e.fields["probes"].([]any)
	if len(probes) == 0 || e.fields["status"] != core.Unhealthy {
		return ""
	}
	last, _ := probes[len(probes)-1].(map[string]any)
	if late, _ := last["timed_out"].(bool); late {
		return ": its last probe took too long"
	}
	s := fmt.Sprintf(": its last probe ended with %v", last["code"])
	if out, _ := last["output"].(string); strings.TrimSpace(out) != "" {
		s += " and said " + strconv.Quote(clip(strings.TrimSpace(out), maxWord))
	}
	return s
}

// execArgs is the command line of an exec.
func (e *logged) execArgs() string {
	spec, _ := e.fields["spec"].(map[string]any)
	list, _ := spec["args"].([]any)
	var words []string
	for _, a := range list {
		words = append(words, fmt.Sprint(a))
	}
	return clip(strings.Join(words, " "), maxWord)
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
