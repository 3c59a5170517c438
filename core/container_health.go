package core

import (
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// The words for a container's health.
const (
	HealthStarting = "starting"
	Healthy        = "healthy"
	Unhealthy      = "unhealthy"
)

// The bounds on what is kept of probes.
const (
	ProbesKept      = 5
	ProbeOutputKept = 4096 // bytes
)

// HealthState is how a run's health stands.
type HealthState struct {
	Status string        `json:"status"`           // one of the words above
	Streak int           `json:"streak,omitempty"` // failures in a row
	Probes []HealthProbe `json:"probes,omitempty"` // the last ones before the change
	Since  time.Time     `json:"since"`            // of the status
	Fault  *Fault        `json:"fault,omitempty"`  // why it cannot be watched
}

// HealthProbe is how one probe went.
type HealthProbe struct {
	Begun    time.Time `json:"begun"`
	Ended    time.Time `json:"ended"`
	Code     int       `json:"code"`
	Output   string    `json:"output,omitempty"`
	TimedOut bool      `json:"timed_out,omitempty"`
}

// ReportHealth tells that a run's health has changed.
type ReportHealth struct {
	Container ContainerID   `json:"container"`
	Run       uint64        `json:"run"`
	Status    string        `json:"status"`
	Streak    int           `json:"streak,omitempty"`
	Probes    []HealthProbe `json:"probes,omitempty"` // the last five, output at most 4 KiB each
}

func (*ReportHealth) name() string { return "container.report-health" }

func (c *ReportHealth) decide(s *State, _ Request) ([]Event, error) {
	if c.Status != HealthStarting && c.Status != Healthy && c.Status != Unhealthy {
		return nil, refuse(errdefs.ErrInvalidArgument, "health %q is not one of starting, healthy, unhealthy", c.Status)
	}
	k := s.Containers[c.Container]
	if k == nil || !k.Running() || k.Process.Run != c.Run || k.Health == nil || k.Health.Status == c.Status {
		return nil, nil
	}
	e := &HealthChanged{Header: about(k.ID.noun()), Run: c.Run, Status: c.Status, Streak: c.Streak}
	e.Probes = slices.Clone(c.Probes[max(0, len(c.Probes)-ProbesKept):])
	for i := range e.Probes {
		p := &e.Probes[i]
		p.Output = strings.ToValidUTF8(p.Output[:min(len(p.Output), ProbeOutputKept)], "?")
	}
	events := []Event{e}
	if c.Status == Unhealthy && k.Spec.Restart.Unhealthy && k.Want == Running && !k.Process.Ending && !k.exhausted() {
		again := &ContainerRestartWanted{Header: about(k.ID.noun()), Unhealthy: true}
		again.Signal, again.Grace = k.stopping(0, nil)
		events = append(append(events, again), endJobs(k.Paused.Jobs, JobFailed, "", &Fault{
			Class: "aborted", Message: sprintf("container %s is unhealthy and is started again", k.Name),
		})...)
	}
	return events, nil
}

// HealthChanged says that a run has become healthy or unhealthy.
type HealthChanged struct {
	Header
	Run    uint64        `json:"run"`
	Status string        `json:"status"`
	Streak int           `json:"streak,omitempty"`
	Probes []HealthProbe `json:"probes,omitempty"`
}

func (*HealthChanged) name() string { return "container.health-changed" }

func (e *HealthChanged) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Health = &HealthState{Status: e.Status, Streak: e.Streak, Probes: e.Probes, Since: e.Time}
		if c.Watch.State == Absent { // a watch that is just being begun was told the health before: it is another step now
			c.Watch.Turn = e.Seq
		}
	})
}

// withDefaults is h with no field zero but what means so.
func (h Health) withDefaults() Health {
	fill(&h.Interval, 30*time.Second)
	fill(&h.Timeout, 30*time.Second)
	fill(&h.StartInterval, 5*time.Second)
	fill(&h.Retries, 3)
	return h
}

func (c *Container) watchHealth(id owedStep) WatchHealth {
	st := WatchHealth{
		owedStep: id, Container: c.ID, Run: c.Process.Run, Spec: c.Spec.Health.withDefaults(), Process: c.Spec.Process,
		Status: HealthStarting, Started: c.Started,
	}
	if c.Health != nil {
		st.Status, st.Streak = c.Health.Status, c.Health.Streak
	}
	return st
}

// HealthWatched says that a host probes the run.
type HealthWatched struct {
	Header
	Run uint64 `json:"run"`
}

func (*HealthWatched) name() string { return "container.health-watched" }

func (e *HealthWatched) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) { c.Watch.State, c.Watch.Run = Held, e.Run })
}

func (st WatchHealth) finish(_ *State, r *FinishStep) []Event {
	if r.Fault != nil {
		fault := *r.Fault
		fault.Step = st.StepID
		return []Event{&HealthWatchFailed{Header: about(st.Container.noun()), Run: st.Run, Fault: fault}}
	}
	return []Event{&HealthWatched{Header: about(st.Container.noun()), Run: st.Run}}
}

// HealthWatchFailed says that a run cannot be watched. It is tried again when the
// engine or the driver has started anew, and with the next run.
type HealthWatchFailed struct {
	Header
	Run   uint64 `json:"run"`
	Fault Fault  `json:"fault"`
}

func (*HealthWatchFailed) name() string { return "container.health-watch-failed" }

func (e *HealthWatchFailed) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Watch.State = Unsure
		if c.Health != nil {
			health := *c.Health
			health.Fault = &e.Fault
			c.Health = &health
		}
	})
}

// HealthUnwatched says that nobody probes the run any more.
type HealthUnwatched struct{ Header }

func (*HealthUnwatched) name() string { return "container.health-unwatched" }

func (e *HealthUnwatched) on(c *Container) { c.Watch.State = Absent }

func (e *HealthUnwatched) apply(s *State) []Noun { return s.fold(&e.Header, e.on) }

func (st UnwatchHealth) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	return s.released(st.Container, 1, &HealthUnwatched{Header: about(st.Container.noun())})
}

// watchersGone makes every watch absent: the host that watched is gone. One that is
// to end anyway is still ended, as a step: whoever waits for it is told by that.
func (s *State) watchersGone(h *Header) []Noun {
	var touched []Noun
	for id, c := range s.Containers {
		if c.Watch.State == Absent && (c.Health == nil || c.Health.Fault == nil) || c.watchVerb() == "unwatch" {
			continue
		}
		of := Header{Seq: h.Seq, Name: h.Name, Noun: KindContainer, ID: string(id)}
		touched = append(touched, s.fold(&of, func(c *Container) {
			c.Watch.State = Absent
			if c.Health != nil {
				health := *c.Health
				health.Fault = nil
				c.Health = &health
			}
		})...)
	}
	slices.SortFunc(touched, func(a, b Noun) int { return strings.Compare(a.String(), b.String()) })
	return touched
}
