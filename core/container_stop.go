package core

import (
	"time"

	"github.com/containerd/errdefs"
)

// StopContainer wants a container stopped: a signal, a grace, then SIGKILL.
type StopContainer struct {
	ID      ContainerID    `json:"id"`
	Signal  int            `json:"signal,omitempty"`     // 0: the container's own stop signal
	Timeout *time.Duration `json:"timeout_ns,omitempty"` // nil: the container's own; 0: SIGKILL at once; negative: wait without end
}

func (*StopContainer) name() string { return "container.stop" }

func (c *StopContainer) subject(*State) Noun { return c.ID.noun() }

// endless is the grace of somebody who wants to wait without end.
const endless = 10 * 365 * 24 * time.Hour

func (c *StopContainer) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.ID]
	switch {
	case k == nil:
		return nil, notFound("container", string(c.ID))
	case c.Signal < 0 || c.Signal > 64:
		return nil, refuse(errdefs.ErrInvalidArgument, "signal %d is not between 1 and 64", c.Signal)
	case k.Want == Removed:
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is being removed", k.Name)
	case k.Want == Stopped && k.settled():
		return []Event{jobDone(r.Job)}, nil
	case k.Want == Stopped:
		return []Event{&ContainerJoined{Header: about(k.ID.noun())}}, nil
	}
	e := &ContainerStopWanted{Header: about(k.ID.noun()), Signal: c.Signal, Grace: k.stopTimeout()}
	if e.Signal == 0 {
		e.Signal = k.Spec.Process.StopSignal
	}
	if e.Signal == 0 {
		e.Signal = sigterm
	}
	if c.Timeout != nil {
		e.Grace = *c.Timeout
	}
	switch {
	case e.Grace == 0:
		e.Signal = sigkill
	case e.Grace < 0:
		e.Grace = endless
	}
	return append([]Event{e}, endJobs(k.Jobs, JobSuperseded, r.Job, nil)...), nil
}

// ContainerStopWanted turns the want to stopped.
type ContainerStopWanted struct {
	Header
	Signal int           `json:"signal"`
	Grace  time.Duration `json:"grace_ns"`
}

func (*ContainerStopWanted) name() string { return "container.stop-wanted" }

func (e *ContainerStopWanted) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		if c.Running() {
			c.Want = Stopped
		} else {
			c.Want = c.wantAfterEnd()
			s.freeName(c)
		}
		c.Jobs = jobs(e.Job)
		c.Process.Stop = Stopping{Signal: e.Signal, Grace: e.Grace}
	})
}

// ContainerSignaled says that a signal was delivered, or that there was nobody
// left to take it.
type ContainerSignaled struct {
	Header
	Signal int    `json:"signal"`
	Asked  bool   `json:"asked,omitempty"` // by a kill command; otherwise on the way to stopped
	Fault  *Fault `json:"fault,omitempty"` // why it could not be delivered
}

func (*ContainerSignaled) name() string { return "container.signaled" }

func (e *ContainerSignaled) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		p := &c.Process
		if e.Asked {
			p.Kills = append([]Kill(nil), p.Kills[1:]...)
			return
		}
		p.Stop.Sent, p.Since = true, e.Time
		if e.Signal == sigkill {
			p.Stop.Round++
		}
	})
}

func (st SignalProcess) finish(s *State, r *FinishStep) []Event {
	e := &ContainerSignaled{Header: about(st.Container.noun()), Signal: st.Signal, Fault: r.Fault}
	if st.StepID.Verb() != "kill" {
		return []Event{e}
	}
	e.Asked = true
	job := s.Containers[st.Container].Process.Kills[0].Job
	if r.Fault != nil {
		return []Event{e, ended(job, JobFailed, "", r.Fault)}
	}
	return []Event{e, jobDone(job)}
}

// ContainerGraceEnded says that the process outlived the wait: SIGKILL is next.
type ContainerGraceEnded struct {
	Header
	Waited time.Duration `json:"waited_ns"`
}

func (*ContainerGraceEnded) name() string { return "container.grace-ended" }

func (e *ContainerGraceEnded) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Process.Stop.Signal, c.Process.Stop.Sent = sigkill, false
	})
}

func (st Wait) finish(s *State, r *FinishStep) []Event {
	return []Event{&ContainerGraceEnded{Header: about(st.StepID.Noun()), Waited: st.Length}}
}
