package core

import (
	"time"

	"github.com/containerd/errdefs"
)

// StartContainer wants a container running.
type StartContainer struct {
	ID     ContainerID `json:"id"`
	Attach bool        `json:"attach,omitempty"` // hold the program until a client has attached
}

func (*StartContainer) name() string { return "container.start" }

func (c *StartContainer) subject(*State) Noun { return c.ID.noun() }

func (c *StartContainer) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.ID]
	switch {
	case k == nil:
		return nil, notFound("container", string(c.ID))
	case k.Want == Removed:
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is being removed", k.Name)
	case k.Want == Running && k.Running():
		return []Event{jobDone(r.Job)}, nil
	case k.Want == Running:
		return []Event{&ContainerJoined{Header: about(k.ID.noun())}}, nil
	}
	start, err := s.startWanted(k.ID, k, c.Attach)
	if err != nil {
		return nil, err
	}
	events := append([]Event{start}, endJobs(k.Jobs, JobSuperseded, r.Job, nil)...)
	if k.Running() { // its stop is called off before it has ended: no start will be told
		events = append(events, jobDone(r.Job))
	}
	return events, nil
}

// startWanted allots addresses for the networks of k and says that the
// container is wanted running.
func (s *State) startWanted(id ContainerID, k *Container, attach bool) (*ContainerStartWanted, error) {
	e := &ContainerStartWanted{Header: about(id.noun()), Attach: attach}
	if err := s.needDrivers("graphdriver/"+s.Engine.Drivers.Graph, "exec/"+s.Engine.Drivers.Exec); err != nil {
		return nil, err
	}
	for i := range k.Nets {
		slot := &k.Nets[i]
		n := s.Networks[slot.Network]
		if n == nil || n.Want == Removed {
			return nil, refuse(errdefs.ErrNotFound, "network %.12s of the container is gone: make the container anew on another one", slot.Network)
		}
		if err := s.needDrivers("net/" + n.Driver); err != nil {
			return nil, err
		}
		a := slot.Address
		if !a.IP.IsValid() {
			var err error
			if a, err = n.allot(); err != nil {
				return nil, err
			}
		}
		e.Addresses = append(e.Addresses, a)
	}
	return e, nil
}

// ContainerStartWanted turns the want to running. A new run begins; its
// addresses are taken from here on.
type ContainerStartWanted struct {
	Header
	Addresses []Address `json:"addresses,omitempty"` // one for each network; zero where it has none
	Attach    bool      `json:"attach,omitempty"`
}

func (*ContainerStartWanted) name() string { return "container.start-wanted" }

func (e *ContainerStartWanted) apply(s *State) []Noun {
	touched := s.fold(&e.Header, func(c *Container) {
		c.Run++
		c.Fault, c.Attach = nil, e.Attach
		c.Jobs = jobs(e.Job)
		c.Want = Running
		for i := range c.Nets {
			c.Nets[i].Address = e.Addresses[i]
			s.holdAddress(c.Nets[i], c.ID)
			if n := s.Networks[c.Nets[i].Network]; n != nil {
				n.use(e.Seq)
				if ip := e.Addresses[i].IP; ip.IsValid() {
					n.Last = ip.Addr()
				}
			}
		}
	})
	for _, slot := range s.Containers[ContainerID(e.ID)].Nets {
		touched = append(touched, slot.Network.noun())
	}
	return touched
}

func jobs(id JobID) []JobID {
	if id == "" {
		return nil
	}
	return []JobID{id}
}

// ContainerJoined says that a further job waits for the want that is set.
type ContainerJoined struct{ Header }

func (*ContainerJoined) name() string { return "container.joined" }

func (e *ContainerJoined) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) { c.Jobs = append(c.Jobs, e.Job) })
}

// RootfsPrepared says that the root filesystem is held.
type RootfsPrepared struct {
	Header
	Mounts []Mount `json:"mounts"`
}

func (*RootfsPrepared) name() string { return "container.rootfs-prepared" }

func (e *RootfsPrepared) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) { c.Rootfs.State, c.Rootfs.Mounts = Held, e.Mounts })
}

func (st PrepareRootfs) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return s.startFailed(st.Container, st.StepID, r.Fault)
	}
	return []Event{&RootfsPrepared{Header: about(st.Container.noun()), Mounts: r.Result.Mounts}}
}

// NetworkAttached says that one network is held.
type NetworkAttached struct {
	Header
	Network  NetworkID `json:"network"`
	Endpoint Endpoint  `json:"endpoint"`
}

func (*NetworkAttached) name() string { return "container.network-attached" }

func (e *NetworkAttached) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		if n := c.net(e.Network); n != nil {
			n.State, n.Endpoint = Held, e.Endpoint
		}
	})
}

func (c *Container) net(id NetworkID) *NetSlot {
	for i := range c.Nets {
		if c.Nets[i].Network == id {
			return &c.Nets[i]
		}
	}
	return nil
}

func (st AttachNetwork) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return s.startFailed(st.Container, st.StepID, r.Fault)
	}
	e := &NetworkAttached{Header: about(st.Container.noun()), Network: st.Network}
	if r.Result.Endpoint != nil {
		e.Endpoint = *r.Result.Endpoint
	}
	return []Event{e}
}

// ProcessStarted says that a run's program was executed.
type ProcessStarted struct {
	Header
	Run uint64 `json:"run"`
	PID int    `json:"pid,omitempty"`
	Log string `json:"log,omitempty"`
}

func (*ProcessStarted) name() string { return "container.started" }

func (e *ProcessStarted) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Process = ProcessSlot{
			Slot: Slot{State: Held, Turn: c.Process.Turn}, Run: e.Run, PID: e.PID, Log: e.Log,
		}
		c.Started = e.Time
		if e.Log != "" {
			c.LogPath = e.Log
		}
		c.Jobs = nil
	})
}

func (st StartProcess) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return s.startFailed(st.Container, st.StepID, r.Fault)
	}
	e := &ProcessStarted{Header: about(st.Container.noun()), Run: st.Run}
	if r.Result.Started != nil {
		e.PID, e.Log = r.Result.Started.PID, r.Result.Started.Log
	}
	return append([]Event{e}, endJobs(s.Containers[st.Container].Jobs, JobDone, "", nil)...)
}

// StartFailed says that a step of a start failed: the container is no longer
// wanted running, and what was acquired is given back from the failed step on.
type StartFailed struct {
	Header
	Fault Fault `json:"fault"`
}

func (*StartFailed) name() string { return "container.start-failed" }

func (e *StartFailed) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Want = c.wantAfterEnd()
		c.Jobs = nil
		c.Fault = &e.Fault
		s.freeName(c)
	})
}

// wantAfterEnd is what becomes of a container whose run has ended.
func (c *Container) wantAfterEnd() Want {
	if c.AutoRemove {
		return Removed
	}
	return Stopped
}

func (s *State) startFailed(id ContainerID, step StepID, f *Fault) []Event {
	c := s.Containers[id]
	fault := *f
	fault.Step = step
	e := &StartFailed{Header: about(id.noun()), Fault: fault}
	return append([]Event{e}, endJobs(c.Jobs, JobFailed, "", &fault)...)
}

// cancelStart turns a start back before the program runs.
func (s *State) cancelStart(j *Job, by JobID) ([]Event, error) {
	c := s.Containers[ContainerID(j.Noun.ID)]
	if c == nil || c.Want != Running || c.Running() {
		return nil, refuse(errdefs.ErrFailedPrecondition, "job %s (%s) cannot be taken back", j.ID, j.Command)
	}
	e := &StartCancelled{Header: about(c.ID.noun())}
	events := append([]Event{e}, endJobs(c.Jobs, JobCancelled, by, nil)...)
	return append(events, jobDone(by)), nil
}

// StartCancelled says that somebody took a start back.
type StartCancelled struct{ Header }

func (*StartCancelled) name() string { return "container.start-cancelled" }

func (e *StartCancelled) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Want = c.wantAfterEnd()
		c.Jobs = nil
		s.freeName(c)
	})
}

func (s *State) freeName(c *Container) {
	if c.Want == Removed && s.names[c.Name] == c.ID {
		delete(s.names, c.Name)
	}
}

// stopTimeout is the container's own grace before SIGKILL.
func (c *Container) stopTimeout() time.Duration {
	if c.Spec.Process.StopTimeout != 0 {
		return c.Spec.Process.StopTimeout
	}
	return defaultStopTimeout
}
