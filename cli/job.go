package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) jobCmd() *cobra.Command {
	return group("job", "Accepted commands and how they ended", a.jobLsCmd(), a.jobInspectCmd(), a.jobWaitCmd(), a.jobCancelCmd())
}

func (a *app) jobLsCmd() *cobra.Command {
	var in query.JobsIn
	l := listing{
		id: "ID",
		columns: []column{
			{"JOB", "ID"}, {"COMMAND", "Command"}, {"ABOUT", "About"}, {"BY", "By"}, {"ACCEPTED", "Accepted"}, {"STATE", "State"}, {"TOOK", "Took"},
		},
		more: []column{{"CLIENT", "Client"}, {"REASON", "Reason"}, {"FAULT", "Fault"}, {"SEQ", "Seq"}},
	}
	c := &cobra.Command{
		Use: "ls [flags]", Aliases: []string{"list"}, Short: "List jobs, the newest first", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			var out query.Jobs
			if err := a.query(c.Context(), query.JobList, in, &out); err != nil {
				return err
			}
			var rows []row
			now := time.Now()
			for i := range out.Jobs {
				rows = append(rows, l.job(&out.Jobs[i], now))
			}
			return l.write(a.Stdout, rows)
		},
	}
	l.register(c)
	c.Flags().BoolVar(&in.Open, "open", false, "only those that have not ended")
	c.Flags().IntVarP(&in.Limit, "last", "n", 50, "only so many, the newest")
	return c
}

func (l *listing) job(j *core.Job, now time.Time) row {
	r := row{
		"ID": shortJob(j.ID), "Command": j.Command, "About": nounOf(j.Noun.Kind, j.Noun.ID), "By": fmt.Sprintf("uid %d", j.Actor.UID),
		"Accepted": ago(j.Accepted, now), "State": string(j.State), "Client": j.Client, "Reason": j.Reason, "Seq": fmt.Sprint(j.Seq),
	}
	if l.noTrunc {
		r["ID"], r["About"] = string(j.ID), j.Noun.String()
	}
	if j.Actor.Engine {
		r["By"] = "the engine"
	}
	if j.Noun.Kind == core.KindJob || j.Noun.Kind == "" {
		r["About"] = "-"
	}
	end := j.EndedAt
	if j.Open() {
		end = now
	}
	r["Took"] = took(end.Sub(j.Accepted))
	if j.Fault != nil {
		r["Fault"] = j.Fault.Message
		r["State"] += ": " + clip(j.Fault.Message, 50)
	}
	return r
}

func (a *app) jobInspectCmd() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "inspect [flags] JOB [JOB...]", Short: "Show all about jobs", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.showEach(format, args, func(ref string) (any, error) {
				var d query.JobDetail
				err := a.query(c.Context(), query.JobInspect, query.RefIn{Ref: ref}, &d)
				return d, err
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "json, or a Go template: '{{.Job.State}}'")
	return c
}

func (a *app) jobWaitCmd() *cobra.Command {
	return &cobra.Command{
		Use: "wait JOB [JOB...]", Short: "Wait until jobs end; fail if one was not done", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.together(args, func(ref string) error {
				var d query.JobDetail
				if err := a.query(c.Context(), query.JobInspect, query.RefIn{Ref: ref}, &d); err != nil {
					return err
				}
				if !d.Job.Open() {
					return jobError(d.Job.ID, d.Job.State, d.Job.By, d.Job.Fault)
				}
				return a.waitJob(c.Context(), sent{job: d.Job.ID, seq: d.Job.Seq})
			})
		},
	}
}

func (a *app) jobCancelCmd() *cobra.Command {
	return &cobra.Command{
		Use: "cancel JOB [JOB...]", Short: "Take back jobs that start or load something", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.together(args, func(ref string) error {
				var d query.JobDetail
				err := a.query(c.Context(), query.JobInspect, query.RefIn{Ref: ref}, &d)
				if err == nil {
					_, err = a.finish(c.Context(), &core.CancelJob{Target: d.Job.ID})
				}
				return err
			})
		},
	}
}
