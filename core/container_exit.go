package core

import "time"

// ReportExit tells how a run has ended. The driver host repeats it until it has
// the receipt; one of an older run is stale.
type ReportExit struct {
	Container ContainerID `json:"container"`
	Run       uint64      `json:"run"`
	Exec      ExecID      `json:"exec,omitempty"` // the exec that has ended, and not the run
	Code      int         `json:"code"`
	Signal    int         `json:"signal,omitempty"`
	OOMKilled bool        `json:"oom_killed,omitempty"`
	Lost      bool        `json:"lost,omitempty"`
	Reason    string      `json:"reason,omitempty"`
	Time      time.Time   `json:"time,omitzero"` // when it was seen
}

func (*ReportExit) name() string { return "container.report-exit" }

func (c *ReportExit) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.Container]
	if k == nil || k.Process.Run != c.Run || k.Process.Exited || k.Process.State == Unsure {
		return nil, nil
	}
	exit := Exit{c.Run, c.Code, c.Signal, c.OOMKilled, c.Lost, c.Reason, c.Time}
	if exit.Time.IsZero() {
		exit.Time = r.Time
	}
	events := s.exited(k, exit)
	switch {
	case k.Process.State == Held:
		events[0].Head().Cause = k.Process.Turn // its start, or the signal that it was sent last
		return events, nil
	case k.processVerb() != "start":
		return nil, nil
	}
	// The program ended before its start was reported.
	started := &ProcessStarted{Header: about(k.ID.noun()), Run: c.Run}
	started.Cause = k.Process.Turn
	return append(append([]Event{started}, endJobs(k.Jobs, JobDone, "", nil)...), events...), nil
}

// exited is the end of c's run with what follows from it.
func (s *State) exited(c *Container, exit Exit) []Event {
	e := &ProcessExited{Header: about(c.ID.noun()), Exit: exit}
	return append([]Event{e}, endKills(c.Process.Kills)...)
}

// ProcessExited says how a run has ended. The container is wanted stopped
// from here on, or removed if that was asked for at its creation.
type ProcessExited struct {
	Header
	Exit Exit `json:"exit"`
}

func (*ProcessExited) name() string { return "container.exited" }

func (e *ProcessExited) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		exit := e.Exit
		c.Exit = &exit
		c.Process.Exited, c.Process.PID, c.Process.Kills = true, 0, nil
		if c.Want != Removed {
			c.Want = c.wantAfterEnd()
			s.freeName(c)
		}
	})
}
