package core

import "github.com/containerd/errdefs"

// PrepareContainer has the root filesystem of a container held although nothing
// runs, so that its files can be read and written.
type PrepareContainer struct {
	ID ContainerID `json:"id"`
}

func (*PrepareContainer) name() string { return "container.prepare" }

func (c *PrepareContainer) subject(*State) Noun { return c.ID.noun() }

func (c *PrepareContainer) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.ID]
	switch {
	case k == nil:
		return nil, notFound("container", string(c.ID))
	case k.Want == Removed:
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is being removed", k.Name)
	case k.Rootfs.State == Held:
		return []Event{jobDone(r.Job)}, nil
	}
	if err := s.needDriver("graphdriver", s.Engine.Drivers.Graph); err != nil {
		return nil, err
	}
	ids, err := s.allotIDs(k)
	if err != nil {
		return nil, err
	}
	return []Event{&ContainerPrepareWanted{Header: about(k.ID.noun()), IDMap: ids}}, nil
}

// ContainerPrepareWanted says that somebody needs the root filesystem.
type ContainerPrepareWanted struct {
	Header
	IDMap *IDMap `json:"id_map,omitempty"` // allotted by this event
}

func (*ContainerPrepareWanted) name() string { return "container.prepare-wanted" }

func (e *ContainerPrepareWanted) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Prepared = true
		c.Preparing = append(c.Preparing[:len(c.Preparing):len(c.Preparing)], jobs(e.Job)...)
		c.takeIDs(e.IDMap)
	})
}

// takeIDs notes what was allotted.
func (c *Container) takeIDs(m *IDMap) {
	if m != nil {
		c.IDMap = m
	}
}

// RootfsPrepared says that the root filesystem is held.
type RootfsPrepared struct {
	Header
	Mounts []Mount `json:"mounts"`
}

func (*RootfsPrepared) name() string { return "container.rootfs-prepared" }

func (e *RootfsPrepared) on(c *Container) {
	c.Rootfs.State, c.Rootfs.Mounts = Held, e.Mounts
	c.Preparing = nil
}

func (e *RootfsPrepared) apply(s *State) []Noun { return s.fold(&e.Header, e.on) }

func (st PrepareRootfs) finish(s *State, r *FinishStep) []Event {
	k := s.Containers[st.Container]
	if r.Fault != nil {
		return s.prepareFailed(k, st.StepID, r.Fault)
	}
	e := &RootfsPrepared{Header: about(st.Container.noun()), Mounts: r.Result.Mounts}
	events := s.released(st.Container, 0, e)
	if k.Want == Stopped {
		e.Job = first(k.Preparing)
	}
	return append(events, endJobs(k.Preparing, JobDone, "", nil)...)
}

// prepareFailed: whoever needs the root filesystem has failed.
func (s *State) prepareFailed(k *Container, step StepID, f *Fault) []Event {
	var events []Event
	waiting := k.Preparing
	if k.Want == Running {
		events = s.startFailed(k.ID, step, f)
		if k.AutoRemove {
			waiting = nil // they have ended with the start
		}
	}
	if !k.Prepared {
		return events
	}
	fault := *f
	fault.Step = step
	e := &PrepareFailed{Header: about(k.ID.noun()), Fault: fault}
	e.Job = first(waiting)
	events = append(events, e)
	return append(events, endJobs(waiting, JobFailed, "", &fault)...)
}

// PrepareFailed says that the root filesystem could not be held; what there is of
// it is given back.
type PrepareFailed struct {
	Header
	Fault Fault `json:"fault"`
}

func (*PrepareFailed) name() string { return "container.prepare-failed" }

func (e *PrepareFailed) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) { c.Prepared, c.Preparing = false, nil })
}
