package core

import (
	"time"

	"github.com/containerd/errdefs"
)

// ReportOOM tells how often the kernel has killed in a run for want of memory. It is
// unavailable while the run's start is owed: what was done by then is told later.
type ReportOOM struct {
	Container ContainerID `json:"container"`
	Run       uint64      `json:"run"`
	Count     uint64      `json:"count"` // since the run began
	Time      time.Time   `json:"time,omitzero"`
}

func (*ReportOOM) name() string { return "container.report-oom" }

func (c *ReportOOM) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.Container]
	if k != nil && k.Process.Run == c.Run && k.processVerb() == "start" {
		return nil, refuse(errdefs.ErrUnavailable, "run %d of container %s is not told to have started yet: tell it again", c.Run, k.Name)
	}
	if k == nil || k.Process.Run != c.Run || k.Process.State != Held || c.Count <= k.OOMKills {
		return nil, nil
	}
	e := &OOMKilled{
		Header: about(k.ID.noun()), Run: c.Run, Kills: c.Count, New: c.Count - k.OOMKills,
		MemoryBytes: k.Spec.Resources.MemoryBytes, At: c.Time,
	}
	if e.At.IsZero() {
		e.At = r.Time
	}
	e.Cause = k.Process.Turn // its start, or the signal that it was sent last
	return []Event{e}, nil
}

// oomAtEnd is the kill of which the run's end is the first word: it came before its
// memory was watched, or the watch was slower. There was one at least.
func (c *Container) oomAtEnd(exit Exit) *OOMKilled {
	return &OOMKilled{
		Header: about(c.ID.noun()), Run: exit.Run, Kills: 1, New: 1, MemoryBytes: c.Spec.Resources.MemoryBytes, At: exit.Time,
	}
}

// OOMKilled says that the kernel has killed processes of a run: they wanted more
// memory than the limit allows or, without a limit, than the machine had.
type OOMKilled struct {
	Header
	Run         uint64    `json:"run"`
	Kills       uint64    `json:"kills"`                  // since the run began
	New         uint64    `json:"new"`                    // of them since the last event
	MemoryBytes int64     `json:"memory_bytes,omitempty"` // the limit; 0: none
	At          time.Time `json:"at"`
}

func (*OOMKilled) name() string { return "container.oom-killed" }

func (e *OOMKilled) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) { c.OOMKills = e.Kills })
}
