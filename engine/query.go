package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// view answers a query from what is folded. It runs under the lock: it must be
// short, and what it gives is encoded before the lock is released.
type view func(s *core.State, body []byte) (any, error)

// Query answers what is asked, from memory or, for the log's own queries, from
// its files. It waits neither for a driver nor for a write.
func (e *Engine) Query(ctx context.Context, q bus.Query) (json.RawMessage, error) {
	switch q.Name {
	case query.LogRead:
		return answer[query.LogIn](ctx, q.Body, e.readLog)
	case query.ContainerWhy:
		return answer[query.RefIn](ctx, q.Body, e.why)
	}
	f := e.views()[q.Name]
	if f == nil {
		return nil, errclass.Errorf(errdefs.ErrNotImplemented, "no such query: %s", q.Name)
	}
	var security []query.Protection
	if q.Name == query.EngineInfo && e.o.Security != nil {
		security = e.o.Security() // it looks at the machine: not under the lock
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	out, err := f(e.durable, q.Body)
	if err != nil {
		return nil, err
	}
	if i, ok := out.(query.Info); ok {
		i.Security = security
		out = i
	}
	return json.Marshal(out)
}

func answer[In any, Out any](ctx context.Context, body []byte, f func(context.Context, In) (Out, error)) (json.RawMessage, error) {
	in, err := read[In](body)
	if err != nil {
		return nil, err
	}
	out, err := f(ctx, in)
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// read decodes what goes into a query; an empty body is the zero value.
func read[In any](body []byte) (In, error) {
	var in In
	if len(body) == 0 {
		return in, nil
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return in, errclass.Errorf(errdefs.ErrInvalidArgument, "read the query: %w", err)
	}
	return in, nil
}

// with makes a view of a function that takes the query's input.
func with[In any](f func(*core.State, In) (any, error)) view {
	return func(s *core.State, body []byte) (any, error) {
		in, err := read[In](body)
		if err != nil {
			return nil, err
		}
		return f(s, in)
	}
}

func (e *Engine) views() map[string]view {
	return map[string]view{
		query.EngineInfo:       func(s *core.State, _ []byte) (any, error) { return e.info(s), nil },
		query.EngineHash:       func(s *core.State, _ []byte) (any, error) { return e.hash(s), nil },
		query.ContainerList:    with(listContainers),
		query.ContainerInspect: with(e.inspectContainer),
		query.ContainerExec:    with(inspectExec),
		query.ImageList:        func(s *core.State, _ []byte) (any, error) { return listImages(s), nil },
		query.ImageInspect:     with(e.inspectImage),
		query.NetworkList:      func(s *core.State, _ []byte) (any, error) { return listNetworks(s), nil },
		query.NetworkInspect:   with(e.inspectNetwork),
		query.DriverList:       func(s *core.State, _ []byte) (any, error) { return e.listDrivers(s), nil },
		query.DriverInspect:    with(e.inspectDriver),
		query.JobList:          with(listJobs),
		query.JobInspect:       with(e.inspectJob),
		query.NounResolve:      with(resolve),
		query.StepList: func(s *core.State, _ []byte) (any, error) {
			return query.Steps{Seq: s.Seq, Steps: e.dispatch.list(func(*slot) bool { return true })}, nil
		},
	}
}

func (e *Engine) hash(s *core.State) query.Hash {
	h := query.Hash{Seq: s.Seq, Hash: s.Hash()}
	if head := e.o.Log.Head(); head.Seq == s.Seq {
		h.Log = head.Hash.String()
	}
	return h
}

func (e *Engine) info(s *core.State) query.Info {
	i := e.o.Machine
	i.Opening = e.opening.Load()
	i.Seq, i.Engine, i.Started = s.Seq, s.Engine, e.began
	i.Containers, i.Images, i.Strays = len(s.Containers), len(s.Images), s.Strays
	for _, c := range s.Containers {
		if c.Running() {
			i.Running++
		}
	}
	for _, n := range s.Networks {
		if n.Want == core.Present {
			i.Networks++
		}
	}
	for _, j := range s.Jobs {
		if j.Open() {
			i.OpenJobs++
		}
	}
	// By the state, not by what dispatch knows: between the two there is a
	// moment in which dispatch has not been asked yet.
	i.Owed = len(s.Owed())
	for _, st := range e.dispatch.list(func(*slot) bool { return true }) {
		if st.State != stepWaiting {
			i.InFlight++
		}
	}
	return i
}

// The states of a step, in the words of query.Step.
const (
	stepWaiting    = "waiting"
	stepSent       = "sent"
	stepRunning    = "running"
	stepCancelling = "cancelling"
)

// list describes the steps owed and in flight of the slots that f wants.
func (d *dispatch) list(f func(*slot) bool) []query.Step {
	d.mu.Lock()
	defer d.mu.Unlock()
	var steps []query.Step
	for _, slots := range d.nouns {
		for _, sl := range slots {
			if f(sl) {
				steps = append(steps, sl.describe()...)
			}
		}
	}
	slices.SortFunc(steps, func(a, b query.Step) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return steps
}

// describe is what the slot has in flight, and what it owes beside that.
func (sl *slot) describe() []query.Step {
	var steps []query.Step
	if f := sl.flight; f != nil {
		st := describeStep(f.step, stepSent)
		st.Since, st.Tries, st.Last = f.began.Round(0), sl.failures+1, sl.last
		switch {
		case f.cancelling:
			st.State = stepCancelling
		case !f.heard.IsZero():
			st.State = stepRunning
		}
		steps = append(steps, st)
	}
	if sl.owed != nil && (sl.flight == nil || sl.flight.step.ID() != sl.owed.ID()) {
		st := describeStep(sl.owed, stepWaiting)
		st.Tries, st.Last = sl.failures, sl.last
		steps = append(steps, st)
	}
	return steps
}

func describeStep(st core.Step, state string) query.Step {
	q := query.Step{ID: st.ID(), Name: core.StepName(st), State: state}
	if kind, name := st.Driver(); kind != "" {
		q.Driver = kind + "/" + name
	}
	return q
}

// stepsOf are the steps of one noun.
func (e *Engine) stepsOf(n core.Noun) []query.Step {
	return e.dispatch.list(func(sl *slot) bool { return sl.noun == n })
}

func listJobs(s *core.State, in query.JobsIn) (any, error) {
	jobs := make([]core.Job, 0, len(s.Jobs))
	for _, j := range s.Jobs {
		if in.Open && !j.Open() || in.Noun != "" && j.Noun.Kind != in.Noun || in.ID != "" && j.Noun.ID != in.ID {
			continue
		}
		jobs = append(jobs, *j)
	}
	slices.SortFunc(jobs, func(a, b core.Job) int { return cmp.Compare(b.Seq, a.Seq) })
	limit := in.Limit
	if limit <= 0 {
		limit = 200
	}
	return query.Jobs{Seq: s.Seq, Jobs: jobs[:min(limit, len(jobs))]}, nil
}

func (e *Engine) inspectJob(s *core.State, in query.RefIn) (any, error) {
	j := s.Jobs[core.JobID(in.Ref)]
	if j == nil {
		var hits []*core.Job
		for id, k := range s.Jobs {
			if in.Ref != "" && strings.HasPrefix(string(id), in.Ref) {
				hits = append(hits, k)
			}
		}
		switch len(hits) {
		case 0:
			return nil, errclass.Errorf(errdefs.ErrNotFound, "no such job: %s", in.Ref)
		case 1:
			j = hits[0]
		default:
			return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "job id prefix %q is ambiguous: give more digits", in.Ref)
		}
	}
	return query.JobDetail{Seq: s.Seq, Job: *j, Steps: e.stepsOf(j.Noun)}, nil
}

// openJobs are the jobs of ids.
func openJobs(s *core.State, ids []core.JobID) []core.Job {
	var jobs []core.Job
	for _, id := range ids {
		if j := s.Jobs[id]; j != nil {
			jobs = append(jobs, *j)
		}
	}
	return jobs
}
