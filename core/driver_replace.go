package core

import "github.com/containerd/errdefs"

// DriverReplaceWanted says that the program at Path is to take over.
type DriverReplaceWanted struct {
	Header
	Path string `json:"path"`
}

func (*DriverReplaceWanted) name() string { return "driver.replace-wanted" }

func (e *DriverReplaceWanted) apply(s *State) []Noun {
	d := s.driver(e.ID)
	d.Next = e.Path
	d.Process = Slot{Unsure, e.Seq}
	d.Jobs = jobs(e.Job)
	return []Noun{e.Of()}
}

// DriverReplaced says that another program serves in the driver's place.
type DriverReplaced struct {
	Header
	Path    string `json:"path"`
	Version string `json:"version,omitempty"`
}

func (*DriverReplaced) name() string { return "driver.replaced" }

func (e *DriverReplaced) apply(s *State) []Noun {
	d := s.driver(e.ID)
	d.Path, d.Version, d.Next = e.Path, e.Version, ""
	d.Process = Slot{Absent, e.Seq}
	return []Noun{e.Of()}
}

// DriverReplaceFailed says that the old program serves on.
type DriverReplaceFailed struct {
	Header
	Fault Fault `json:"fault"`
}

func (*DriverReplaceFailed) name() string { return "driver.replace-failed" }

func (e *DriverReplaceFailed) apply(s *State) []Noun {
	d := s.driver(e.ID)
	d.Next = ""
	d.Process = Slot{Absent, e.Seq}
	return []Noun{e.Of()}
}

func (st ReplaceDriver) finish(s *State, r *FinishStep) []Event {
	n := st.StepID.Noun()
	open := s.Drivers[n.ID].Jobs
	if r.Fault != nil {
		fault := *r.Fault
		fault.Step = st.StepID
		return append([]Event{&DriverReplaceFailed{Header: about(n), Fault: fault}}, endJobs(open, JobFailed, "", &fault)...)
	}
	e := &DriverReplaced{Header: about(n), Path: st.Path, Version: r.Result.Version}
	return append([]Event{e}, endJobs(open, JobDone, "", nil)...)
}

// ReportDriver tells that an instance of a driver started or ended.
type ReportDriver struct {
	Driver   string `json:"driver"` // "kind/name"
	Instance string `json:"instance"`
	PID      int    `json:"pid,omitempty"`
	Version  string `json:"version,omitempty"`
	Ended    bool   `json:"ended,omitempty"`
	Reason   string `json:"reason,omitempty"` // of an end
}

func (*ReportDriver) name() string { return "driver.report" }

func (c *ReportDriver) decide(s *State, _ Request) ([]Event, error) {
	d := s.Drivers[c.Driver]
	switch {
	case !c.Ended && d != nil && d.Disabled: // it was started by a step that is cancelled by now
		return nil, refuse(errdefs.ErrFailedPrecondition, "driver %s is disabled: end this instance", c.Driver)
	case !c.Ended && (d == nil || d.Instance != c.Instance):
		return []Event{&DriverStarted{Header: about(driverNoun(c.Driver)), Instance: c.Instance, PID: c.PID, Version: c.Version}}, nil
	case c.Ended && d != nil && d.Instance == c.Instance:
		return []Event{&DriverEnded{Header: about(driverNoun(c.Driver)), Instance: c.Instance, Reason: c.Reason}}, nil
	}
	return nil, nil
}

// DriverStarted says that an instance of a driver runs.
type DriverStarted struct {
	Header
	Instance string `json:"instance"`
	PID      int    `json:"pid"`
	Version  string `json:"version,omitempty"`
}

func (*DriverStarted) name() string { return "driver.started" }

func (e *DriverStarted) apply(s *State) []Noun {
	d := s.driver(e.ID)
	d.Instance, d.PID, d.Version, d.Reason = e.Instance, e.PID, e.Version, ""
	if e.ID == "exec/"+s.Engine.Drivers.Exec { // perhaps of another host, which watches nobody
		return append(s.watchersGone(&e.Header), e.Of())
	}
	return []Noun{e.Of()}
}

// DriverEnded says that an instance has ended.
type DriverEnded struct {
	Header
	Instance string `json:"instance"`
	Reason   string `json:"reason,omitempty"`
}

func (*DriverEnded) name() string { return "driver.ended" }

func (e *DriverEnded) apply(s *State) []Noun {
	d := s.driver(e.ID)
	d.Instance, d.PID, d.Reason = "", 0, e.Reason
	return []Noun{e.Of()}
}
