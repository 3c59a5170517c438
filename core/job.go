package core

import (
	"slices"
	"time"

	"github.com/containerd/errdefs"
)

// JobState says how a job stands.
type JobState string

// A job is open until it ends, exactly once, in one of the other states.
const (
	JobOpen       JobState = "open"
	JobDone       JobState = "done"       // its noun reached the want that it set
	JobFailed     JobState = "failed"     // a step of it failed
	JobSuperseded JobState = "superseded" // a later job turned the want
	JobCancelled  JobState = "cancelled"
)

// Job is an accepted command being carried out.
type Job struct {
	ID       JobID     `json:"id"`
	Command  string    `json:"command"`
	Noun     Noun      `json:"noun"` // what it is about
	Digest   string    `json:"digest,omitempty"`
	Actor    Actor     `json:"actor"`
	Client   string    `json:"client,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Seq      uint64    `json:"seq"` // of the event that accepted it
	Accepted time.Time `json:"accepted"`

	State    JobState  `json:"state"`
	By       JobID     `json:"by,omitempty"`    // of a superseded or cancelled one: the job that did it
	Fault    *Fault    `json:"fault,omitempty"` // of a failed one
	EndedSeq uint64    `json:"ended_seq,omitempty"`
	EndedAt  time.Time `json:"ended_at,omitzero"`

	Load   *Load     `json:"load,omitempty"`   // of a load: what is to be read
	Awaits []ImageID `json:"awaits,omitempty"` // of a load: images that are not ready yet
	Loaded []ImageID `json:"loaded,omitempty"` // of a load: what it found
}

// Open reports whether the job has not ended.
func (j *Job) Open() bool { return j.State == JobOpen }

// Fault is what went wrong in a step, for people and for exit codes.
type Fault struct {
	Step    StepID `json:"step,omitempty"`
	Class   string `json:"class"` // an errdefs class by its word, e.g. "not-found"
	Message string `json:"message"`
}

// The bounds on what is remembered of finished jobs.
const (
	JobsKept    = 10_000
	JobsKeptFor = 24 * time.Hour
)

// JobAccepted says that a command became a job.
type JobAccepted struct {
	Header
	Command string `json:"command"`
	Subject Noun   `json:"subject"` // the noun that the job is about
	Digest  string `json:"digest,omitempty"`
	Actor   Actor  `json:"actor"`
	Client  string `json:"client,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func (*JobAccepted) name() string { return "job.accepted" }

func (e *JobAccepted) apply(s *State) []Noun {
	id := JobID(e.ID)
	s.Jobs[id] = &Job{
		ID: id, Command: e.Command, Noun: e.Subject, Digest: e.Digest, Actor: e.Actor,
		Client: e.Client, Reason: e.Reason, Seq: e.Seq, Accepted: e.Time, State: JobOpen,
	}
	return nil
}

// JobEnded says how a job ended.
type JobEnded struct {
	Header
	Outcome JobState `json:"outcome"`
	By      JobID    `json:"by,omitempty"`
	Fault   *Fault   `json:"fault,omitempty"`
}

func (*JobEnded) name() string { return "job.ended" }

func (e *JobEnded) apply(s *State) []Noun {
	id := JobID(e.ID)
	j := s.Jobs[id]
	if j == nil || !j.Open() {
		panicf("event %d (cause %d) ends job %s, which is not open: %+v", e.Seq, e.Cause, id, j)
	}
	j.State, j.By, j.Fault = e.Outcome, e.By, e.Fault
	j.EndedSeq, j.EndedAt = e.Seq, e.Time
	j.Awaits = nil
	if j.Load != nil && j.Load.Slot.State == Absent {
		j.Load.Slot = Slot{Unsure, e.Seq} // the reading failed, or may be running
	}
	s.leave(j.Noun, id)
	s.Ended = append(s.Ended, id)
	if j.Load != nil {
		return append(s.unsettled(), Noun{KindJob, e.ID})
	}
	return s.touch(Noun{KindJob, e.ID})
}

// leave takes an ended job from the noun that it waited for.
func (s *State) leave(n Noun, id JobID) {
	switch n.Kind {
	case KindContainer:
		if c := s.Containers[ContainerID(n.ID)]; c != nil {
			c.leave(id)
		}
	case KindImage:
		if i := s.Images[ImageID(n.ID)]; i != nil {
			i.Jobs = without(i.Jobs, id)
		}
	case KindNetwork:
		if w := s.Networks[NetworkID(n.ID)]; w != nil {
			w.Jobs = without(w.Jobs, id)
		}
	case KindDriver:
		if d := s.Drivers[n.ID]; d != nil {
			d.Jobs = without(d.Jobs, id)
		}
	}
}

func (c *Container) leave(id JobID) {
	c.Jobs = without(c.Jobs, id)
	c.Preparing = without(c.Preparing, id)
	c.Paused.Jobs = without(c.Paused.Jobs, id)
	if c.Update.Job == id {
		c.Update.Job = ""
	}
	for i := range c.Execs {
		if c.Execs[i].Job == id {
			c.Execs[i].Job = ""
		}
	}
}

// JobsForgotten drops finished jobs from the memory of what was done; the log
// keeps them. Ids that are not younger than Through are refused from now on.
type JobsForgotten struct {
	Header
	Count   int   `json:"count"`   // how many of the oldest finished jobs
	Through JobID `json:"through"` // the youngest of their ids that was not made in the future
	// Anew says that Through holds although an earlier one was younger: the clock
	// that it was made by has been set back.
	Anew bool `json:"anew,omitempty"`
}

func (*JobsForgotten) name() string { return "job.forgotten" }

func (e *JobsForgotten) apply(s *State) []Noun {
	for _, id := range s.Ended[:e.Count] {
		delete(s.Jobs, id)
	}
	s.Ended = slices.Delete(s.Ended, 0, e.Count)
	if e.Anew || e.Through > s.Forgotten {
		s.Forgotten = e.Through
	}
	return nil
}

// ForgetJobs asks that finished jobs beyond the bounds be forgotten. The engine
// sends it now and then; it is no job itself.
type ForgetJobs struct{}

func (*ForgetJobs) name() string { return "job.forget" }

func (*ForgetJobs) decide(s *State, r Request) ([]Event, error) {
	n := len(s.Ended) - JobsKept
	for n < len(s.Ended) && (n < 0 || r.Time.Sub(s.Jobs[s.Ended[n]].EndedAt) > JobsKeptFor) {
		n++
	}
	if n <= 0 {
		return nil, nil
	}
	through, now := JobID(""), lastJobAt(r.Time)
	for _, id := range s.Ended[:n] {
		if id <= now { // whoever made a younger one has, or had, another clock than the others have now
			through = max(through, id)
		}
	}
	return []Event{&JobsForgotten{
		Header: about(Noun{KindEngine, s.Engine.ID}), Count: n, Through: through, Anew: s.Forgotten > now,
	}}, nil
}

// lastJobAt is the greatest id that can be made at t (RFC 9562: it begins with the
// milliseconds since 1970).
func lastJobAt(t time.Time) JobID {
	ms := max(0, t.UnixMilli())
	return JobID(sprintf("%08x-%04x-7fff-bfff-ffffffffffff", ms>>16, ms&0xffff))
}

// CancelJob turns back the want of an open job that starts or loads something.
type CancelJob struct {
	Target JobID `json:"target"`
}

func (*CancelJob) name() string { return "job.cancel" }

func (c *CancelJob) decide(s *State, r Request) ([]Event, error) {
	j := s.Jobs[c.Target]
	switch {
	case j == nil:
		return nil, notFound("job", string(c.Target))
	case !j.Open():
		return []Event{jobDone(r.Job)}, nil
	case j.Load != nil:
		return append(s.cancelLoad(j, r.Job), jobDone(r.Job)), nil
	case j.Noun.Kind == KindContainer:
		return s.cancelStart(j, r.Job)
	}
	return nil, refuse(errdefs.ErrFailedPrecondition, "job %s (%s) cannot be taken back", j.ID, j.Command)
}

// accept puts the acceptance of r's job before the events of its decision. The
// job is about the noun of the first event that is not a job's own.
func accept(s *State, r Request, events []Event) []Event {
	a := &JobAccepted{
		Header:  about(Noun{KindJob, string(r.Job)}),
		Command: r.Command.name(), Digest: r.Digest, Actor: r.Actor, Client: r.Client, Reason: r.Reason,
	}
	if t, ok := r.Command.(interface{ subject(*State) Noun }); ok {
		a.Subject = t.subject(s)
	}
	for _, e := range events {
		if a.Subject.Kind == "" && e.Head().Noun != KindJob {
			a.Subject = e.Head().Of()
		}
	}
	return append([]Event{a}, events...)
}

// knownJob reports whether r repeats a job; its receipt is in s.Jobs.
func (s *State) knownJob(r Request) (bool, error) {
	if !isUUIDv7(string(r.Job)) {
		return false, refuse(errdefs.ErrInvalidArgument, "job id %q is not a UUIDv7 in lower case", r.Job)
	}
	j := s.Jobs[r.Job]
	switch {
	// What was forgotten in the future says nothing: the clock was set back.
	case j == nil && r.Job <= s.Forgotten && s.Forgotten <= lastJobAt(r.Time):
		return false, refuse(errdefs.ErrFailedPrecondition, "job id %s is older than the jobs remembered: send the command under a new id", r.Job)
	case j == nil:
		return false, nil
	case j.Command != r.Command.name() || j.Digest != r.Digest:
		return false, refuse(errdefs.ErrConflict, "job id %s was used for another command (%s)", r.Job, j.Command)
	case j.Actor.UID != r.Actor.UID:
		return false, refuse(errdefs.ErrConflict, "job id %s was used by another user", r.Job)
	}
	return true, nil
}

func ended(id JobID, outcome JobState, by JobID, f *Fault) Event {
	e := &JobEnded{Header: about(Noun{KindJob, string(id)}), Outcome: outcome, By: by, Fault: f}
	e.Job = id
	return e
}

func jobDone(id JobID) Event { return ended(id, JobDone, "", nil) }

// endJobs ends every job of ids alike.
func endJobs(ids []JobID, outcome JobState, by JobID, f *Fault) []Event {
	if len(ids) == 0 {
		return nil
	}
	events := make([]Event, 0, len(ids))
	for _, id := range ids {
		events = append(events, ended(id, outcome, by, f))
	}
	return events
}

// without is ids less id.
func without(ids []JobID, id JobID) []JobID {
	var rest []JobID
	for _, k := range ids {
		if k != id {
			rest = append(rest, k)
		}
	}
	return rest
}
