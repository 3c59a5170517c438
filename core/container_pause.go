package core

import "github.com/containerd/errdefs"

// PauseContainer holds all processes of a running container.
type PauseContainer struct {
	ID ContainerID `json:"id"`
}

func (*PauseContainer) name() string { return "container.pause" }

func (c *PauseContainer) subject(*State) Noun { return c.ID.noun() }

func (c *PauseContainer) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.ID]
	switch {
	case k == nil:
		return nil, notFound("container", string(c.ID))
	case k.Status() == "restarting":
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is restarting: wait until it runs", k.Name)
	case !k.Running():
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is not running", k.Name)
	case k.Want != Running || k.Process.Ending:
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is being stopped", k.Name)
	case k.Paused.Wanted && k.Paused.State == Held:
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is already paused", k.Name)
	}
	e := &ContainerPauseWanted{Header: about(k.ID.noun())}
	if k.Paused.Wanted {
		return []Event{e}, nil // another job waits for the same
	}
	return append([]Event{e}, endJobs(k.Paused.Jobs, JobSuperseded, r.Job, nil)...), nil
}

// ContainerPauseWanted says that the processes are to stand still.
type ContainerPauseWanted struct{ Header }

func (*ContainerPauseWanted) name() string { return "container.pause-wanted" }

func (e *ContainerPauseWanted) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) { c.Paused.turn(true, e.Job) })
}

// turn says what is wanted of the freezer, and which job waits for it.
func (p *PauseSlot) turn(wanted bool, job JobID) {
	if p.Wanted != wanted {
		p.Wanted, p.Jobs = wanted, nil
	}
	p.Jobs = append(p.Jobs[:len(p.Jobs):len(p.Jobs)], jobs(job)...)
}

// ContainerPaused says that every process of the run stands still.
type ContainerPaused struct{ Header }

func (*ContainerPaused) name() string { return "container.paused" }

func (e *ContainerPaused) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) { c.Paused.State = Held })
}

func (st Freeze) finish(s *State, r *FinishStep) []Event {
	waiting := s.Containers[st.Container].Paused.Jobs
	if r.Fault != nil {
		fault := *r.Fault
		fault.Step = st.StepID
		e := &PauseFailed{Header: about(st.Container.noun()), Fault: fault}
		return append(e.of(waiting), endJobs(waiting, JobFailed, "", &fault)...)
	}
	e := &ContainerPaused{Header: about(st.Container.noun())}
	e.Job = first(waiting)
	return append([]Event{e}, endJobs(waiting, JobDone, "", nil)...)
}

// PauseFailed says that the processes could not be held; what stands still by now
// is let go on.
type PauseFailed struct {
	Header
	Fault Fault `json:"fault"`
}

func (*PauseFailed) name() string { return "container.pause-failed" }

func (e *PauseFailed) of(waiting []JobID) []Event {
	e.Job = first(waiting)
	return []Event{e}
}

func (e *PauseFailed) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) { c.Paused.Wanted, c.Paused.State = false, Unsure })
}

// UnpauseContainer lets the processes go on.
type UnpauseContainer struct {
	ID ContainerID `json:"id"`
}

func (*UnpauseContainer) name() string { return "container.unpause" }

func (c *UnpauseContainer) subject(*State) Noun { return c.ID.noun() }

func (c *UnpauseContainer) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.ID]
	switch {
	case k == nil:
		return nil, notFound("container", string(c.ID))
	case !k.Running() || !k.Paused.Wanted && k.freezerVerb() == "":
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is not paused", k.Name)
	}
	e := &ContainerUnpauseWanted{Header: about(k.ID.noun())}
	if !k.Paused.Wanted {
		return []Event{e}, nil
	}
	events := append([]Event{e}, endJobs(k.Paused.Jobs, JobSuperseded, r.Job, nil)...)
	after := k.clone()
	after.fold(0, e.on)
	if after.freezerVerb() == "" {
		events = append(events, jobDone(r.Job)) // it had not been asked of anybody
	}
	return events, nil
}

// ContainerUnpauseWanted says that the processes are to go on.
type ContainerUnpauseWanted struct{ Header }

func (*ContainerUnpauseWanted) name() string { return "container.unpause-wanted" }

func (e *ContainerUnpauseWanted) on(c *Container) { c.Paused.turn(false, e.Job) }

func (e *ContainerUnpauseWanted) apply(s *State) []Noun { return s.fold(&e.Header, e.on) }

// ContainerUnpaused says that the processes go on.
type ContainerUnpaused struct{ Header }

func (*ContainerUnpaused) name() string { return "container.unpaused" }

func (e *ContainerUnpaused) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) { c.Paused.State = Absent })
}

func (st Thaw) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	k := s.Containers[st.Container]
	e := &ContainerUnpaused{Header: about(st.Container.noun())}
	if k.Paused.Wanted {
		return []Event{e} // it was turned back meanwhile: it is frozen anew
	}
	e.Job = first(k.Paused.Jobs)
	return append([]Event{e}, endJobs(k.Paused.Jobs, JobDone, "", nil)...)
}

func first(ids []JobID) JobID {
	if len(ids) == 0 {
		return ""
	}
	return ids[0]
}
