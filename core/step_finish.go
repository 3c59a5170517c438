package core

// FinishStep tells a step's result. The host repeats it until it has the
// receipt; for a step that Next does not name it is stale.
type FinishStep struct {
	Step   StepID `json:"step"`
	Result Result `json:"result,omitzero"`
	Fault  *Fault `json:"fault,omitempty"` // set when the step failed
	// Untaken says of a failed step that no host has ever taken it: nothing of it is
	// done, and nothing is to be given back.
	Untaken bool `json:"untaken,omitempty"`
}

func (*FinishStep) name() string { return "step.finish" }

// finisher is implemented by every step: what its result means.
type finisher interface {
	Step
	finish(s *State, r *FinishStep) []Event
}

func (f *FinishStep) decide(s *State, r Request) ([]Event, error) {
	n := f.Step.Noun()
	st := s.owes(n, f.Step)
	if st == nil || st.ID() != f.Step && !plantedLateFinish {
		return nil, nil
	}
	events := st.(finisher).finish(s, f)
	if cause := f.Step.Turn(); cause > 0 && len(events) > 0 {
		events[0].Head().Cause = cause
	}
	job := s.jobOf(n)
	for _, e := range events {
		if h := e.Head(); h.Job == "" && h.Of() == n {
			h.Job = job
		}
	}
	return events, nil
}

// jobOf is the job on whose behalf the noun works, if one is open.
func (s *State) jobOf(n Noun) JobID {
	var open []JobID
	switch n.Kind {
	case KindContainer:
		if c := s.Containers[ContainerID(n.ID)]; c != nil {
			open = c.Jobs
		}
	case KindImage:
		if i := s.Images[ImageID(n.ID)]; i != nil {
			open = i.Jobs
		}
	case KindNetwork:
		if w := s.Networks[NetworkID(n.ID)]; w != nil {
			open = w.Jobs
		}
	case KindDriver:
		if d := s.Drivers[n.ID]; d != nil {
			open = d.Jobs
		}
	case KindJob:
		return JobID(n.ID)
	}
	if len(open) == 0 {
		return ""
	}
	return open[0]
}

// ReleaseFailed says that something could not be given back. It stays owed, as
// a new step.
type ReleaseFailed struct {
	Header
	Fault Fault `json:"fault"`
}

func (*ReleaseFailed) name() string { return "step.release-failed" }

func releaseFailed(step StepID, f *Fault) Event {
	fault := *f
	fault.Step = step
	return &ReleaseFailed{Header: about(step.Noun()), Fault: fault}
}

func (e *ReleaseFailed) apply(s *State) []Noun {
	n := e.Of()
	touched := []Noun{n}
	if n.Kind == KindContainer {
		touched = s.fold(&e.Header, func(c *Container) { c.Stuck = &e.Fault })
	}
	if slot := s.slot(n, e.Fault.Step.slotName()); slot != nil {
		slot.Turn = e.Seq
	}
	return touched
}

// slot is the slot of n by its name in step ids, or nil.
func (s *State) slot(n Noun, name string) *Slot {
	switch n.Kind {
	case KindContainer:
		return s.Containers[ContainerID(n.ID)].slot(name)
	case KindImage:
		return map[string]*Slot{
			"store": &s.Images[ImageID(n.ID)].Store, "names": &s.Images[ImageID(n.ID)].Naming,
		}[name]
	case KindLayer:
		return &s.Layers[LayerID(n.ID)].Slot
	case KindNetwork:
		return &s.Networks[NetworkID(n.ID)].Slot
	case KindJob:
		return &s.Jobs[JobID(n.ID)].Load.Slot
	case KindDriver:
		return s.Drivers[n.ID].slot(name)
	}
	return nil
}

func (c *Container) slot(name string) *Slot {
	switch name {
	case rootfsSlot:
		return &c.Rootfs.Slot
	case processSlot:
		return &c.Process.Slot
	case logSlot:
		return &c.Log
	case usernsSlot:
		return &c.UserNS.Slot
	case freezerSlot:
		return &c.Paused.Slot
	case limitsSlot:
		return &c.Update.Slot
	case healthSlot:
		return &c.Watch.Slot
	case backoffSlot:
		return &c.Backoff.Slot
	}
	for i := range c.Execs {
		if x := &c.Execs[i]; x.slotName() == name {
			return &x.Slot
		}
	}
	for i := range c.Nets {
		if n := &c.Nets[i]; n.slotName() == name {
			return &n.Slot
		}
	}
	return nil
}
