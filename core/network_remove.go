package core

import "github.com/containerd/errdefs"

// DropNetwork wants a network gone.
type DropNetwork struct {
	ID NetworkID `json:"id"`
}

func (*DropNetwork) name() string { return "network.remove" }

func (c *DropNetwork) subject(*State) Noun { return c.ID.noun() }

func (c *DropNetwork) decide(s *State, r Request) ([]Event, error) {
	n := s.Networks[c.ID]
	switch {
	case n == nil:
		return nil, notFound("network", string(c.ID))
	case n.Builtin:
		return nil, refuse(errdefs.ErrPermissionDenied, "%s is a built-in network and cannot be removed", n.Name)
	case n.Want == Removed:
		return []Event{&NetworkJoined{Header: about(n.ID.noun())}}, nil
	}
	if used := s.attached(n.ID); len(used) > 0 {
		return nil, refuse(errdefs.ErrFailedPrecondition, "network %s has active endpoints (container %s): stop those first", n.Name, used[0].Name)
	}
	e := &NetworkRemoveWanted{Header: about(n.ID.noun())}
	events := append([]Event{e}, endJobs(n.Jobs, JobSuperseded, r.Job, nil)...)
	if n.Slot.State == Absent && n.verb() == "" {
		events = append(events, &NetworkRemoved{Header: about(n.ID.noun())}, jobDone(r.Job))
	}
	return events, nil
}

// NetworkJoined says that a further job waits for the removal.
type NetworkJoined struct{ Header }

func (*NetworkJoined) name() string { return "network.joined" }

func (e *NetworkJoined) apply(s *State) []Noun {
	n := s.Networks[NetworkID(e.ID)]
	n.Jobs = append(n.Jobs, e.Job)
	return []Noun{n.ID.noun()}
}

// NetworkRemoveWanted turns the want to removed; the name is free from here on.
type NetworkRemoveWanted struct{ Header }

func (*NetworkRemoveWanted) name() string { return "network.remove-wanted" }

func (e *NetworkRemoveWanted) apply(s *State) []Noun {
	n := s.Networks[NetworkID(e.ID)]
	n.turn(e.Seq, func() { n.Want = Removed })
	n.Jobs = jobs(e.Job)
	s.freeNetworkName(n)
	return []Noun{n.ID.noun()}
}

// NetworkDown says that a network is gone from the machine.
type NetworkDown struct{ Header }

func (*NetworkDown) name() string { return "network.down" }

func (e *NetworkDown) apply(s *State) []Noun {
	n := s.Networks[NetworkID(e.ID)]
	n.Slot = Slot{Absent, e.Seq}
	return s.dependents(n)
}

// NetworkRemoved says that nothing of the network is left.
type NetworkRemoved struct{ Header }

func (*NetworkRemoved) name() string { return "network.removed" }

func (e *NetworkRemoved) apply(s *State) []Noun {
	delete(s.Networks, NetworkID(e.ID))
	return []Noun{e.Of()}
}

func (st RemoveNetwork) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	n := s.Networks[st.Network]
	if n.Want != Removed {
		return []Event{&NetworkDown{Header: about(n.ID.noun())}}
	}
	events := []Event{&NetworkRemoved{Header: about(n.ID.noun())}}
	return append(events, endJobs(n.Jobs, JobDone, "", nil)...)
}
