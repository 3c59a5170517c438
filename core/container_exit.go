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
	LogEnd    uint64      `json:"log_end,omitempty"`
}

func (*ReportExit) name() string { return "container.report-exit" }

func (c *ReportExit) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.Container]
	exit := Exit{c.Run, c.Code, c.Signal, c.OOMKilled, c.Lost, c.Reason, c.Time, c.LogEnd}
	if exit.Time.IsZero() {
		exit.Time = r.Time
	}
	if k != nil && c.Exec != "" {
		return c.reportExec(k, exit), nil
	}
	if k == nil || k.Process.Run != c.Run || k.Process.Exited || k.Process.State == Unsure {
		return nil, nil
	}
	switch {
	case k.Process.State == Held:
		events := k.exited(exit, exit.Time.Sub(k.Started))
		if exit.OOMKilled && k.OOMKills == 0 {
			events = append([]Event{k.oomAtEnd(exit)}, events...)
			events[1].Head().Cause = k.Process.Turn
		}
		events[0].Head().Cause = k.Process.Turn // its start, or the signal that it was sent last
		return events, nil
	case k.processVerb() != "start":
		return nil, nil
	}
	// The program ended before its start was reported.
	started := &ProcessStarted{Header: about(k.ID.noun()), Run: c.Run, Early: true}
	started.Cause = k.Process.Turn
	events := append([]Event{started}, endJobs(k.Jobs, JobDone, "", nil)...)
	if exit.OOMKilled {
		events = append(events, k.oomAtEnd(exit))
	}
	return append(events, k.exited(exit, 0)...), nil
}

// exited is the end of c's run, which has run so long, with what follows from it.
func (c *Container) exited(exit Exit, ran time.Duration) []Event {
	return c.endRun(exit, c.restartAfter(exit, ran))
}

// endRun is the end of c's run; plan is the next one, or nil.
func (c *Container) endRun(exit Exit, plan *ContainerRestartPlanned) []Event {
	e := &ProcessExited{Header: about(c.ID.noun()), Exit: exit, Again: plan != nil}
	events := []Event{e}
	if plan != nil {
		events = append(events, plan)
	}
	events = append(events, endKills(c.Process.Kills)...)
	events = append(events, c.execsCutOff()...)
	if c.Update.Wanted != nil {
		events = append(events, c.updated()...) // for the next run
	}
	if c.Paused.Wanted {
		return append(events, endJobs(c.Paused.Jobs, JobFailed, "", &Fault{
			Class: "failed-precondition", Message: sprintf("container %s has ended before it was paused", c.Name),
		})...)
	}
	return append(events, endJobs(c.Paused.Jobs, JobDone, "", nil)...)
}

// logEnd is where the last run's output ended, should its log not tell: what
// follows is further on.
func (c *Container) logEnd() uint64 {
	if c.Exit == nil {
		return 0
	}
	return c.Exit.LogEnd
}

// ProcessExited says how a run has ended. Unless another one follows, the
// container is wanted stopped from here on, or removed if that was asked for at
// its creation.
type ProcessExited struct {
	Header
	Exit  Exit `json:"exit"`
	Again bool `json:"again,omitempty"` // another run follows: see container.restart-planned
}

func (*ProcessExited) name() string { return "container.exited" }

func (e *ProcessExited) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		exit := e.Exit
		c.Exit = &exit
		p := &c.Process
		p.Exited, p.PID, p.Kills, p.Ending, p.Sick = true, 0, nil, false, false
		c.Paused = PauseSlot{Slot: Slot{Turn: c.Paused.Turn}}
		if c.Want != Removed && !e.Again {
			c.Want = c.wantAfterEnd()
			s.freeName(c)
		}
	})
}
