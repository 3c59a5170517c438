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
	"github.com/gantryd/gantry/internal/sparsejson"
)

// sent is a command that was accepted.
type sent struct {
	job core.JobID
	seq uint64 // of the first event that followed

	stream *bus.Stream // where the engine tells more; nil if nothing was wanted, or it is over
}

// told is what is wanted to be told of a command beside its receipt.
type told struct {
	attach, wait bool
	events       []string
	meanwhile    func() // done while the engine decides
}

// send sends a command as a new job.
func (a *app) send(ctx context.Context, cmd core.Command) (sent, error) {
	return a.carry(ctx, cmd, told{})
}

// carry sends a command as a new job, on a connection of its own: a line each way,
// and what the engine tells of it afterwards. A container may be called by its name
// in it: the engine knows.
func (a *app) carry(ctx context.Context, cmd core.Command, want told) (sent, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return sent{}, fmt.Errorf("make a job id: %w", err)
	}
	s := sent{job: core.JobID(id.String())}
	body, err := sparsejson.Marshal(cmd)
	if err != nil {
		return s, fmt.Errorf("encode the command: %w", err)
	}
	in := query.CommandIn{
		Job: id.String(), Name: core.CommandName(cmd), Body: body, Client: "gantry/" + a.Version,
		Attach: want.attach, Wait: want.wait, Events: want.events,
	}
	in.Reason, _ = a.LookupEnv("GANTRY_REASON")
	if len(body) > bus.MaxStreamLine/2 {
		return a.sendLong(ctx, s, in, want.meanwhile)
	}
	st, err := a.streamWhile(ctx, query.OpCommand, in, want.meanwhile)
	if err != nil {
		return s, err
	}
	var r bus.Receipt
	if err := json.Unmarshal(st.Body, &r); err != nil {
		_ = st.Close() // the first error is the one that matters
		return s, fmt.Errorf("read the engine's answer: %w", err)
	}
	s.seq = r.Seq
	if want.attach || want.wait || len(want.events) > 0 {
		s.stream = st
		return s, nil
	}
	return s, st.Close()
}

// sendLong sends over the bus what is too long for a line.
func (a *app) sendLong(ctx context.Context, s sent, in query.CommandIn, meanwhile func()) (sent, error) {
	client, err := a.dial(ctx)
	if err != nil {
		return s, err
	}
	if meanwhile != nil {
		meanwhile()
	}
	r, err := client.Command(ctx, bus.Command{Job: in.Job, Name: in.Name, Body: in.Body, Client: in.Client, Reason: in.Reason})
	s.seq = r.Seq
	return s, err
}

// next reads what the engine tells next. When it tells nothing more, the rest is
// to be found in the log.
func (s *sent) next() (query.Said, error) {
	var said query.Said
	line, err := s.stream.Next()
	if err == nil {
		err = json.Unmarshal(line, &said)
	}
	return said, err
}

// drop ends what the engine tells.
func (s *sent) drop() {
	if s.stream != nil {
		_ = s.stream.Close() // it was read
		s.stream = nil
	}
}

// finish sends a command and waits for its job to end.
func (a *app) finish(ctx context.Context, cmd core.Command) (sent, error) {
	s, err := a.carry(ctx, cmd, told{wait: true})
	if err != nil {
		return s, err
	}
	return s, a.waitJob(ctx, s)
}

// waitJob waits for the job's end.
func (a *app) waitJob(ctx context.Context, s sent) error {
	end, err := a.jobEnd(ctx, s)
	if err != nil {
		return err
	}
	return jobError(s.job, end.Outcome, end.By, end.Fault)
}

// jobEnd waits for how a job ended: the engine tells it, or the log. A job lives on
// when the engine goes: the next one is waited for.
func (a *app) jobEnd(ctx context.Context, s sent) (*core.JobEnded, error) {
	if s.stream != nil {
		said, err := s.next()
		s.drop()
		if end := jobEnded(said.Event); err == nil && end != nil {
			return end, nil
		}
	}
	var end *core.JobEnded
	err := a.lasting(ctx, func(client *bus.Client) (err error) {
		end, err = s.endOn(ctx, client)
		return err
	})
	return end, err
}

// endOn reads from the log how the job ended.
func (s *sent) endOn(ctx context.Context, client *bus.Client) (*core.JobEnded, error) {
	events, err := client.Events(ctx, max(s.seq, 1), bus.Filter{Noun: core.KindJob, ID: string(s.job)})
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

// jobEnded reads the event that ends a job. One that is done has no more to tell:
// the rest of the event, and what its type could hold, is not looked at.
func jobEnded(line []byte) *core.JobEnded {
	var brief struct {
		Outcome core.JobState `json:"outcome"`
	}
	if json.Unmarshal(line, &brief) == nil && brief.Outcome == core.JobDone {
		return &core.JobEnded{Outcome: core.JobDone}
	}
	var end core.JobEnded
	if json.Unmarshal(line, &end) != nil {
		return nil
	}
	return &end
}
