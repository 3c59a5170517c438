package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/google/uuid"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// sent is a command that was accepted.
type sent struct {
	job core.JobID
	seq uint64 // of the first event that followed
}

// send sends a command as a new job.
func (a *app) send(ctx context.Context, cmd core.Command) (sent, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return sent{}, fmt.Errorf("make a job id: %w", err)
	}
	s := sent{job: core.JobID(id.String())}
	client, err := a.dial(ctx)
	if err != nil {
		return s, err
	}
	body, err := json.Marshal(cmd)
	if err != nil {
		return s, fmt.Errorf("encode the command: %w", err)
	}
	reason, _ := a.LookupEnv("GANTRY_REASON")
	r, err := client.Command(ctx, bus.Command{
		Job: string(s.job), Name: core.CommandName(cmd), Body: body, Client: "gantry/" + a.Version, Reason: reason,
	})
	s.seq = r.Seq
	return s, err
}

// finish sends a command and waits for its job to end.
func (a *app) finish(ctx context.Context, cmd core.Command) (sent, error) {
	s, err := a.send(ctx, cmd)
	if err != nil {
		return s, err
	}
	return s, a.waitJob(ctx, s.job, s.seq)
}

// waitJob waits for a job's end, which is looked for from a sequence on.
func (a *app) waitJob(ctx context.Context, job core.JobID, from uint64) error {
	end, err := a.jobEnd(ctx, job, from)
	if err != nil {
		return err
	}
	return jobError(job, end.Outcome, end.By, end.Fault)
}

// jobEnd waits for how a job ended.
func (a *app) jobEnd(ctx context.Context, job core.JobID, from uint64) (*core.JobEnded, error) {
	client, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	events, err := client.Events(ctx, max(from, 1), bus.Filter{Noun: core.KindJob, ID: string(job)})
	if err != nil {
		return nil, err
	}
	defer events.Close()
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return nil, err
		}
		if e.Name != "job.ended" {
			continue
		}
		var end core.JobEnded
		if err := json.Unmarshal(e.Line, &end); err != nil {
			return nil, fmt.Errorf("read event %d: %w", e.Seq, err)
		}
		return &end, nil
	}
}

// jobError is what is wrong with how a job ended, or nil.
func jobError(job core.JobID, outcome core.JobState, by core.JobID, f *core.Fault) error {
	switch {
	case outcome == core.JobDone:
		return nil
	case f != nil:
		return errclass.Errorf(errclass.ByName(f.Class), "%s", f.Message)
	case outcome == core.JobSuperseded:
		return errclass.WithHint(errclass.Errorf(errdefs.ErrAborted, "job %s was superseded by a later one", shortJob(job)),
			fmt.Sprintf("gantry job inspect %s tells who sent it", by))
	}
	return errclass.Errorf(errdefs.ErrAborted, "job %s was %s", shortJob(job), outcome)
}

// resolve finds what a reference means.
func (a *app) resolve(ctx context.Context, kind, ref string) (query.Resolved, error) {
	var r query.Resolved
	err := a.query(ctx, query.NounResolve, query.ResolveIn{Kind: kind, Ref: ref}, &r)
	return r, err
}

// container finds a container by name, id or prefix of the id.
func (a *app) container(ctx context.Context, ref string) (core.ContainerID, error) {
	r, err := a.resolve(ctx, core.KindContainer, ref)
	return core.ContainerID(r.ID), err
}

// newID is an id of 64 hexadecimal digits.
func newID() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// shortJob is enough of a job's id to find it: its beginning is the clock, to a
// part of a millisecond.
func shortJob(id core.JobID) string {
	if len(id) < 18 {
		return string(id)
	}
	return string(id[:18])
}
