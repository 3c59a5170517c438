package core

import "github.com/containerd/errdefs"

// RemoveContainer wants a container gone.
type RemoveContainer struct {
	ID    ContainerID `json:"id"`
	Force bool        `json:"force,omitempty"` // also a running one: SIGKILL first
}

func (*RemoveContainer) name() string { return "container.remove" }

func (c *RemoveContainer) subject(*State) Noun { return c.ID.noun() }

func (c *RemoveContainer) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.ID]
	switch {
	case k == nil:
		return nil, notFound("container", string(c.ID))
	case k.Want == Removed:
		return []Event{&ContainerJoined{Header: about(k.ID.noun())}}, nil
	case !c.Force && (k.Want == Running || k.Running()):
		how := "running"
		if status := k.Status(); status == "paused" || status == "restarting" {
			how = status
		}
		return nil, refuse(errdefs.ErrFailedPrecondition,
			"container %s is %s: stop it before removing it, or force its removal", k.Name, how)
	}
	e := &ContainerRemoveWanted{Header: about(k.ID.noun()), Force: c.Force}
	e.Job = r.Job
	events := append([]Event{e}, k.supersede(r.Job)...)
	events = append(events, endJobs(k.Preparing, JobSuperseded, r.Job, nil)...)
	after := k.clone()
	after.fold(0, e.on)
	return append(events, after.settle()...), nil
}

// ContainerRemoveWanted turns the want to removed; the name is free from here on.
type ContainerRemoveWanted struct {
	Header
	Force bool `json:"force,omitempty"`
}

func (*ContainerRemoveWanted) name() string { return "container.remove-wanted" }

func (e *ContainerRemoveWanted) on(c *Container) {
	c.Want = Removed
	c.Jobs, c.Preparing = jobs(e.Job), nil
	c.Backoff.Pending = false
	c.Paused.turn(false, "")
	if c.Running() {
		c.Process.Stop, c.Process.Ending = Stopping{Signal: sigkill}, false
	}
}

func (e *ContainerRemoveWanted) apply(s *State) []Noun {
	touched := s.fold(&e.Header, e.on)
	s.freeName(s.Containers[ContainerID(e.ID)])
	return touched
}

// ContainerRemoved says that nothing of the container is left.
type ContainerRemoved struct{ Header }

func (*ContainerRemoved) name() string { return "container.removed" }

func (e *ContainerRemoved) apply(s *State) []Noun {
	c := s.Containers[ContainerID(e.ID)]
	if !c.empty() {
		panicf("event %d removes container %s, which still holds something", e.Seq, e.ID)
	}
	delete(s.Containers, c.ID)
	s.forgetSharer(c)
	return append(s.touch(c.ID.noun()), s.sharersOf(c.ID)...)
}

// supersede ends the jobs that wait for what the container is wanted to be.
func (c *Container) supersede(by JobID) []Event {
	return append(endJobs(c.Jobs, JobSuperseded, by, nil), endJobs(c.Paused.Jobs, JobSuperseded, by, nil)...)
}

// settle says what follows when the container, which is a clone with the next
// event folded in, has come to what it is wanted to be.
func (c *Container) settle() []Event {
	switch {
	case c.Want == Removed && c.empty():
		removed := &ContainerRemoved{Header: about(c.ID.noun())}
		return append([]Event{removed}, endJobs(c.Jobs, JobDone, "", nil)...)
	case c.Want != Removed && c.settled():
		return endJobs(c.Jobs, JobDone, "", nil)
	}
	return nil
}

// near reports whether one more thing given back, or prepared, can be the last one
// that a container which stays lacks to be what it is wanted to be, with something to
// say about that. It is what settle needs at least, and spares most steps a clone.
func (c *Container) near() bool { return len(c.Jobs) > 0 && (c.Want == Running) == c.Running() }

// released is the event of something given back, or prepared, with all that follows
// from it; frees is how many slots it makes absent.
func (s *State) released(id ContainerID, frees int, e interface {
	Event
	on(*Container)
}) []Event {
	c := s.Containers[id]
	switch {
	case c.Want == Removed && c.holds() == frees:
		return append([]Event{e, &ContainerRemoved{Header: about(id.noun())}}, endJobs(c.Jobs, JobDone, "", nil)...)
	case c.Want == Removed || !c.near():
		return []Event{e}
	}
	after := c.clone()
	after.fold(0, e.on)
	return append([]Event{e}, after.settle()...)
}

// ProcessReleased says that nothing of the run is left.
type ProcessReleased struct {
	Header
	Run        uint64 `json:"run"`
	LogRemoved bool   `json:"log_removed,omitempty"`
}

func (*ProcessReleased) name() string { return "container.process-released" }

func (e *ProcessReleased) on(c *Container) {
	c.Process = ProcessSlot{Slot: Slot{Turn: c.Process.Turn}, Run: c.Process.Run}
	if c.Want == Running && c.Run == c.Process.Run {
		c.Run++ // a late report of the released run must not pass for the next one's
	}
	if e.LogRemoved {
		c.Log.State = Absent
	}
}

func (e *ProcessReleased) apply(s *State) []Noun { return s.fold(&e.Header, e.on) }

func (st ReleaseProcess) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	if st.Exec != "" {
		return s.released(st.Container, 1, &ExecReleased{Header: about(st.Container.noun()), Exec: st.Exec})
	}
	e := &ProcessReleased{Header: about(st.Container.noun()), Run: st.Run, LogRemoved: st.RemoveLog}
	c, frees := s.Containers[st.Container], 1
	if st.RemoveLog && c.Log.State != Absent {
		frees++
	}
	return append(s.released(st.Container, frees, e), endKills(c.Process.Kills)...)
}

// endKills ends the jobs of signals that nobody is left to take.
func endKills(kills []Kill) []Event {
	var events []Event
	for _, k := range kills {
		events = append(events, jobDone(k.Job))
	}
	return events
}

// NetworkDetached says that an endpoint is given back; its address is free
// unless the container is wanted running again.
type NetworkDetached struct {
	Header
	Network NetworkID `json:"network"`
}

func (*NetworkDetached) name() string { return "container.network-detached" }

func (e *NetworkDetached) on(c *Container) {
	if n := c.net(e.Network); n != nil {
		n.State, n.Endpoint = Absent, Endpoint{}
	}
}

func (e *NetworkDetached) apply(s *State) []Noun {
	touched := s.fold(&e.Header, e.on)
	// One that could not be made since was left alone: nobody seemed to need it.
	if n := s.Networks[e.Network]; n != nil && s.Containers[ContainerID(e.ID)].Want == Running {
		n.use(e.Seq)
	}
	return touched
}

func (st DetachNetwork) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	return s.released(st.Container, 1, &NetworkDetached{Header: about(st.Container.noun()), Network: st.Network})
}

// RootfsReleased says that what the container had written is gone.
type RootfsReleased struct{ Header }

func (*RootfsReleased) name() string { return "container.rootfs-released" }

func (e *RootfsReleased) on(c *Container) { c.Rootfs.State, c.Rootfs.Mounts = Absent, nil }

func (e *RootfsReleased) apply(s *State) []Noun { return s.fold(&e.Header, e.on) }

func (st ReleaseRootfs) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	return s.released(st.Container, 1, &RootfsReleased{Header: about(st.Container.noun())})
}

// LogRemoved says that the log files are gone.
type LogRemoved struct{ Header }

func (*LogRemoved) name() string { return "container.log-removed" }

func (e *LogRemoved) on(c *Container) { c.Log.State = Absent }

func (e *LogRemoved) apply(s *State) []Noun { return s.fold(&e.Header, e.on) }

func (st RemoveLog) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	return s.released(st.Container, 1, &LogRemoved{Header: about(st.Container.noun())})
}
