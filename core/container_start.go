package core

import (
	"slices"
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
	case k.Want == Running && k.Running() && !k.Process.Ending:
		return []Event{jobDone(r.Job)}, nil
	case k.Want == Running && (k.Running() || k.climbing()):
		return []Event{&ContainerJoined{Header: about(k.ID.noun())}}, nil
	}
	start, err := s.startWanted(k, c.Attach)
	if err != nil {
		return nil, err
	}
	events := append([]Event{start}, k.supersede(r.Job)...)
	if k.Running() { // its stop is called off before it has ended: no start will be told
		events = append(events, jobDone(r.Job))
	}
	return events, nil
}

// startWanted says that the container is wanted running, with what is allotted
// to it.
func (s *State) startWanted(k *Container, attach bool) (*ContainerStartWanted, error) {
	if err := s.sharesReady(k.Spec); err != nil {
		return nil, err
	}
	e, err := s.allotStart(k)
	if err == nil {
		e.Attach = attach
	}
	return e, err
}

// allotStart allots what a start of k needs.
func (s *State) allotStart(k *Container) (*ContainerStartWanted, error) {
	e := &ContainerStartWanted{Header: about(k.ID.noun())}
	ids, err := s.allotIDs(k)
	if err := anyOf(s.needDriver("graphdriver", s.Engine.Drivers.Graph), s.needDriver("exec", s.Engine.Drivers.Exec), err); err != nil {
		return nil, err
	}
	e.IDMap = ids
	for i := range k.Nets {
		slot := &k.Nets[i]
		n := s.Networks[slot.Network]
		if n == nil || n.Want == Removed {
			return nil, refuse(errdefs.ErrNotFound, "network %.12s of the container is gone: make the container anew on another one", slot.Network)
		}
		if err := s.needDriver("net", n.Driver); err != nil {
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
	IDMap     *IDMap    `json:"id_map,omitempty"` // allotted by this event
}

func (*ContainerStartWanted) name() string { return "container.start-wanted" }

func (e *ContainerStartWanted) apply(s *State) []Noun {
	touched := s.fold(&e.Header, func(c *Container) {
		c.Run++
		c.Fault, c.Stuck, c.Attach = nil, nil, e.Attach
		c.Jobs = jobs(e.Job)
		c.Want = Running
		c.Restarts, c.Auto, c.ByHand = 0, false, false
		c.Backoff.Pending, c.Backoff.Length = false, 0
		c.takeIDs(e.IDMap)
		s.takeAddresses(c, e.Seq, e.Addresses)
	})
	return touchNetworks(s.Containers[ContainerID(e.ID)], touched)
}

// takeAddresses takes what was allotted, one for each network.
func (s *State) takeAddresses(c *Container, seq uint64, addresses []Address) {
	for i := range c.Nets {
		c.Nets[i].Address = addresses[i]
		s.holdAddress(c.Nets[i], c.ID)
		if n := s.Networks[c.Nets[i].Network]; n != nil {
			n.use(seq)
			if ip := addresses[i].IP; ip.IsValid() {
				n.Last = ip.Addr()
			}
		}
	}
}

// touchNetworks adds the networks that a container uses.
func touchNetworks(c *Container, touched []Noun) []Noun {
	for _, slot := range c.Nets {
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
	// Early: its end was told before its start, which may be running still.
	Early bool `json:"early,omitempty"`
}

func (*ProcessStarted) name() string { return "container.started" }

func (e *ProcessStarted) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Process = ProcessSlot{
			Slot: Slot{State: Held, Turn: c.Process.Turn}, Run: e.Run, PID: e.PID, Log: e.Log,
			Early: e.Early,
		}
		c.Auto, c.Health, c.OOMKills = false, nil, 0
		if c.Spec.Health != nil {
			c.Health = &HealthState{Status: HealthStarting, Since: e.Time}
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
	return s.turnedBack(&e.Header, e.on)
}

func (e *StartFailed) on(c *Container) {
	c.turnBack()
	c.Fault = &e.Fault
}

// turnBack ends a start.
func (c *Container) turnBack() {
	c.Want = c.wantAfterEnd()
	c.Jobs, c.Backoff.Pending, c.Auto = nil, false, false
}

func (s *State) turnedBack(h *Header, on func(*Container)) []Noun {
	touched := s.fold(h, on)
	s.freeName(s.Containers[ContainerID(h.ID)])
	return touched
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
	events := append([]Event{e}, endJobs(c.Jobs, JobFailed, "", &fault)...)
	events = append(events, endJobs(c.unprepared(), JobFailed, "", &fault)...)
	if plan := c.restartAfterFailure(); plan != nil {
		return append(events, plan)
	}
	return append(events, c.gone(e.on)...)
}

// unprepared are the jobs that wait for the root filesystem of a container which
// is removed when its start is turned back.
func (c *Container) unprepared() []JobID {
	if c.AutoRemove {
		return c.Preparing
	}
	return nil
}

// gone is the removal of a container of which nothing is left after on.
func (c *Container) gone(on func(*Container)) []Event {
	after := c.clone()
	after.fold(0, on)
	if after.Want == Removed && after.empty() {
		return []Event{&ContainerRemoved{Header: about(c.ID.noun())}}
	}
	return nil
}

// cancelStart turns a start back before the program runs.
func (s *State) cancelStart(j *Job, by JobID) ([]Event, error) {
	c := s.Containers[ContainerID(j.Noun.ID)]
	if c == nil || c.Want != Running || c.Running() || !slices.Contains(c.Jobs, j.ID) {
		return nil, refuse(errdefs.ErrFailedPrecondition, "job %s (%s) cannot be taken back", j.ID, j.Command)
	}
	e := &StartCancelled{Header: about(c.ID.noun())}
	events := append([]Event{e}, endJobs(c.Jobs, JobCancelled, by, nil)...)
	events = append(events, endJobs(c.unprepared(), JobSuperseded, by, nil)...)
	return append(append(events, jobDone(by)), c.gone(e.on)...), nil
}

// StartCancelled says that somebody took a start back.
type StartCancelled struct{ Header }

func (*StartCancelled) name() string { return "container.start-cancelled" }

func (e *StartCancelled) apply(s *State) []Noun {
	return s.turnedBack(&e.Header, e.on)
}

func (e *StartCancelled) on(c *Container) { c.turnBack() }

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
