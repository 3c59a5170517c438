package core

import (
	"slices"
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
		return append([]Event{&ContainerJoined{Header: about(k.ID.noun())}}, c.hasten(k, r.Time)...), nil
	}
	e := &ContainerStopWanted{Header: about(k.ID.noun())}
	e.Job = r.Job
	e.Signal, e.Grace = k.stopping(c.Signal, c.Timeout)
	events := append([]Event{e}, k.supersede(r.Job)...)
	if !k.Running() {
		events = append(events, endJobs(k.unprepared(), JobSuperseded, r.Job, nil)...)
	}
	after := k.clone()
	after.fold(0, e.on)
	return append(events, after.settle()...), nil
}

// hasten has a container that is being stopped end earlier, if it is stopped again with
// less patience than is left.
func (c *StopContainer) hasten(k *Container, now time.Time) []Event {
	stop := &k.Process.Stop
	if !k.Running() || stop.Signal == sigkill {
		return nil
	}
	e := &ContainerStopHastened{Header: about(k.ID.noun())}
	e.Signal, e.Grace = k.stopping(c.Signal, c.Timeout)
	left := stop.Grace
	if stop.Sent {
		left -= now.Sub(k.Process.Since)
	}
	if e.Grace >= left {
		return nil
	}
	return []Event{e}
}

// ContainerStopHastened says that a container which is being stopped is asked again to
// end, and waited for less long.
type ContainerStopHastened struct {
	Header
	Signal int           `json:"signal"`
	Grace  time.Duration `json:"grace_ns"`
}

func (*ContainerStopHastened) name() string { return "container.stop-hastened" }

func (e *ContainerStopHastened) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Process.Stop = Stopping{Signal: e.Signal, Grace: e.Grace}
	})
}

// stopping is how a process is asked to end: which signal, and how long it is
// waited for before SIGKILL.
func (c *Container) stopping(signal int, timeout *time.Duration) (int, time.Duration) {
	grace := c.stopTimeout()
	if signal == 0 {
		signal = c.stopSignal()
	}
	if timeout != nil {
		grace = *timeout
	}
	switch {
	case grace == 0:
		signal = sigkill
	case grace < 0:
		grace = endless
	}
	return signal, grace
}

// ContainerStopWanted turns the want to stopped.
type ContainerStopWanted struct {
	Header
	Signal int           `json:"signal"`
	Grace  time.Duration `json:"grace_ns"`
}

func (*ContainerStopWanted) name() string { return "container.stop-wanted" }

func (e *ContainerStopWanted) apply(s *State) []Noun {
	return s.turnedBack(&e.Header, e.on)
}

func (e *ContainerStopWanted) on(c *Container) {
	if c.Running() {
		c.Want = Stopped
	} else {
		c.turnBack()
	}
	c.Jobs, c.ByHand = jobs(e.Job), true
	c.Paused.turn(false, "")
	c.Process.Stop = Stopping{Signal: e.Signal, Grace: e.Grace}
	c.Process.Ending, c.Process.Sick = false, false
}

// ContainerSignaled says that a signal was delivered, or that there was nobody
// left to take it.
type ContainerSignaled struct {
	Header
	Exec   ExecID `json:"exec,omitempty"`
	Signal int    `json:"signal"`
	Asked  bool   `json:"asked,omitempty"` // by a kill command; otherwise on the way to stopped
	Fault  *Fault `json:"fault,omitempty"` // why it could not be delivered
}

func (*ContainerSignaled) name() string { return "container.signaled" }

func (e *ContainerSignaled) apply(s *State) []Noun {
	if e.Exec != "" {
		return s.foldExec(&e.Header, e.Exec, func(x *Exec) { x.Kills = slices.Clone(x.Kills[1:]) })
	}
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
	e := &ContainerSignaled{Header: about(st.Container.noun()), Exec: st.Exec, Signal: st.Signal, Fault: r.Fault}
	if st.StepID.Verb() != "kill" {
		return []Event{e}
	}
	e.Asked = true
	kills := s.Containers[st.Container].Process.Kills
	if st.Exec != "" {
		kills = s.Containers[st.Container].exec(st.Exec).Kills
	}
	job := kills[0].Job
	e.Job = job
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
	if st.StepID.slotName() == backoffSlot {
		return s.restartDue(s.Containers[ContainerID(st.StepID.Noun().ID)], st.StepID)
	}
	return []Event{&ContainerGraceEnded{Header: about(st.StepID.Noun()), Waited: st.Length}}
}
