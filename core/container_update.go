package core

import "github.com/containerd/errdefs"

// UpdateContainer changes limits, also of a running container, and the restart
// policy. What is nil stays.
type UpdateContainer struct {
	ID      ContainerID     `json:"id"`
	Change  ResourcesChange `json:"change,omitzero"`
	Restart *Restart        `json:"restart,omitempty"`
}

// ResourcesChange are new values for limits; nil leaves one as it is.
type ResourcesChange struct {
	MemoryBytes            *int64  `json:"memory_bytes,omitempty"`
	MemorySwapBytes        *int64  `json:"memory_swap_bytes,omitempty"`
	MemoryReservationBytes *int64  `json:"memory_reservation_bytes,omitempty"`
	NanoCPUs               *int64  `json:"nano_cpus,omitempty"`
	CPUShares              *int64  `json:"cpu_shares,omitempty"`
	CPUPeriod              *int64  `json:"cpu_period_us,omitempty"`
	CPUQuota               *int64  `json:"cpu_quota_us,omitempty"`
	CPURealtimePeriod      *int64  `json:"cpu_realtime_period_us,omitempty"`
	CPURealtimeRuntime     *int64  `json:"cpu_realtime_runtime_us,omitempty"`
	PidsLimit              *int64  `json:"pids_limit,omitempty"`
	CpusetCPUs             *string `json:"cpuset_cpus,omitempty"`
	CpusetMems             *string `json:"cpuset_mems,omitempty"`
	BlkioWeight            *uint16 `json:"blkio_weight,omitempty"`
}

// on is r with the change.
func (ch *ResourcesChange) on(r Resources) Resources {
	set(&r.MemoryBytes, ch.MemoryBytes)
	set(&r.MemorySwapBytes, ch.MemorySwapBytes)
	set(&r.MemoryReservationBytes, ch.MemoryReservationBytes)
	set(&r.NanoCPUs, ch.NanoCPUs)
	set(&r.CPUShares, ch.CPUShares)
	set(&r.CPUPeriod, ch.CPUPeriod)
	set(&r.CPUQuota, ch.CPUQuota)
	set(&r.CPURealtimePeriod, ch.CPURealtimePeriod)
	set(&r.CPURealtimeRuntime, ch.CPURealtimeRuntime)
	set(&r.PidsLimit, ch.PidsLimit)
	set(&r.CpusetCPUs, ch.CpusetCPUs)
	set(&r.CpusetMems, ch.CpusetMems)
	set(&r.BlkioWeight, ch.BlkioWeight)
	return r
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

func (*UpdateContainer) name() string { return "container.update" }

func (c *UpdateContainer) subject(*State) Noun { return c.ID.noun() }

func (c *UpdateContainer) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.ID]
	switch {
	case k == nil:
		return nil, notFound("container", string(c.ID))
	case k.Want == Removed:
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is being removed", k.Name)
	case k.Update.Wanted != nil:
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is being updated: wait for that to end", k.Name)
	case k.processVerb() == "start":
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is being started: wait until it runs", k.Name)
	}
	if c.Restart != nil {
		if err := c.Restart.check(k.AutoRemove); err != nil {
			return nil, err
		}
	}
	limits := c.Change.on(k.Spec.Resources)
	if err := limits.check(); err != nil {
		return nil, err
	}
	e := &ContainerUpdateWanted{Header: about(k.ID.noun()), Resources: limits, Restart: c.Restart}
	if c.Change != (ResourcesChange{}) && k.Running() {
		return []Event{e}, nil
	}
	done := &ContainerUpdated{Header: about(k.ID.noun()), Resources: limits, Restart: c.Restart}
	return []Event{done, jobDone(r.Job)}, nil
}

// ContainerUpdateWanted says that a running container is to have other limits.
type ContainerUpdateWanted struct {
	Header
	Resources Resources `json:"resources"` // whole
	Restart   *Restart  `json:"restart,omitempty"`
}

func (*ContainerUpdateWanted) name() string { return "container.update-wanted" }

func (e *ContainerUpdateWanted) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Update.Wanted, c.Update.Restart, c.Update.Job = &e.Resources, e.Restart, e.Job
	})
}

// ContainerUpdated says that the container has other limits, or another restart
// policy. One that runs has them in force.
type ContainerUpdated struct {
	Header
	Resources Resources `json:"resources"` // whole
	Restart   *Restart  `json:"restart,omitempty"`
}

func (*ContainerUpdated) name() string { return "container.updated" }

func (e *ContainerUpdated) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		spec := *c.Spec
		spec.Resources = e.Resources
		if e.Restart != nil {
			spec.Restart = *e.Restart
		}
		c.Spec = &spec
		c.Update = UpdateSlot{Slot: c.Update.Slot}
	})
}

// updated ends the change that is on its way well.
func (c *Container) updated() []Event {
	u := &c.Update
	e := &ContainerUpdated{Header: about(c.ID.noun()), Resources: *u.Wanted, Restart: u.Restart}
	e.Job = u.Job
	return append([]Event{e}, endJobs(jobs(u.Job), JobDone, "", nil)...)
}

func (st UpdateResources) finish(s *State, r *FinishStep) []Event {
	k := s.Containers[st.Container]
	if r.Fault == nil {
		return k.updated()
	}
	fault := *r.Fault
	fault.Step = st.StepID
	e := &UpdateFailed{Header: about(st.Container.noun()), Fault: fault}
	e.Job = k.Update.Job
	return append([]Event{e}, endJobs(jobs(k.Update.Job), JobFailed, "", &fault)...)
}

// UpdateFailed says that the limits stay as they were.
type UpdateFailed struct {
	Header
	Fault Fault `json:"fault"`
}

func (*UpdateFailed) name() string { return "container.update-failed" }

func (e *UpdateFailed) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) { c.Update = UpdateSlot{Slot: c.Update.Slot} })
}
