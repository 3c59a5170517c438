package core

import (
	"hash/fnv"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Driver is what the log knows of a driver: which program it is, whether it
// may be used, and what it holds for nobody.
type Driver struct {
	ID       string `json:"id"`                 // "kind/name"
	Path     string `json:"path,omitempty"`     // set by a replacement; empty: found by its name
	Version  string `json:"version,omitempty"`  // of the instance that ran last
	Instance string `json:"instance,omitempty"` // that runs; empty for none
	PID      int    `json:"pid,omitempty"`
	Disabled bool   `json:"disabled,omitempty"`

	Jobs    []JobID `json:"jobs,omitempty"`   // open replacements and disablings
	Process Slot    `json:"process,omitzero"` // unsure: to be stopped, or to be replaced by Next
	Next    string  `json:"next,omitempty"`   // path of the program that is to take over
	Strays  []Stray `json:"strays,omitempty"` // to be given back
	Reason  string  `json:"reason,omitempty"` // why the last instance ended
}

// Stray is something that a driver holds for nobody.
type Stray struct {
	Item Item `json:"item"`
	Slot Slot `json:"slot"`
}

func (st Stray) slotName() string {
	h := fnv.New64a()
	h.Write([]byte(st.Item.key())) //nolint:errcheck // a hash takes everything
	return sprintf("stray-%016x", h.Sum64())
}

func driverNoun(id string) Noun { return Noun{KindDriver, id} }

// driver finds or makes the noun: drivers are found by name, no list is kept.
func (s *State) driver(id string) *Driver {
	d := s.Drivers[id]
	if d == nil {
		d = &Driver{ID: id}
		s.Drivers[id] = d
	}
	return d
}

func (s *State) driverEnabled(kind, name string) bool {
	if s.disabled == 0 {
		return true
	}
	d := s.Drivers[kind+"/"+name]
	return d == nil || !d.Disabled
}

// needDriver refuses what a disabled driver would have to do.
func (s *State) needDriver(kind, name string) error {
	if !s.driverEnabled(kind, name) {
		return refuse(errdefs.ErrFailedPrecondition, "driver %s/%s is disabled: enable it first", kind, name)
	}
	return nil
}

func (d *Driver) processVerb() string {
	switch {
	case d.Process.State != Unsure:
		return ""
	case d.Next != "":
		return "replace"
	}
	return "stop"
}

func (d *Driver) next() []Step {
	kind, name, _ := strings.Cut(d.ID, "/")
	var steps []Step
	id := owed(stepID(driverNoun(d.ID), "process", d.processVerb(), d.Process.Turn), kind, name)
	switch d.processVerb() {
	case "replace":
		return []Step{ReplaceDriver{id, d.Next}}
	case "stop":
		steps = append(steps, StopDriver{id})
	}
	if d.Disabled {
		return steps
	}
	for _, st := range d.Strays {
		steps = append(steps, GiveBack{owed(stepID(driverNoun(d.ID), st.slotName(), "give-back", st.Slot.Turn), kind, name), st.Item})
	}
	return steps
}

func (d *Driver) slot(name string) *Slot {
	if name == "process" {
		return &d.Process
	}
	for i := range d.Strays {
		if d.Strays[i].slotName() == name {
			return &d.Strays[i].Slot
		}
	}
	return nil
}

var driverKinds = []string{"graphdriver", "net", "exec", "image"}

func checkDriver(id string) error {
	kind, name, ok := strings.Cut(id, "/")
	if !ok || !slices.Contains(driverKinds, kind) || strings.Contains(name, "/") || !isName(name+"x") {
		return refuse(errdefs.ErrInvalidArgument, "driver %q is not KIND/NAME with a kind of %s", id, strings.Join(driverKinds, ", "))
	}
	return nil
}

// EnableDriver allows a driver to be used again.
type EnableDriver struct {
	Driver string `json:"driver"` // "kind/name"
}

func (*EnableDriver) name() string { return "driver.enable" }

func (c *EnableDriver) subject(*State) Noun { return driverNoun(c.Driver) }

func (c *EnableDriver) decide(s *State, r Request) ([]Event, error) {
	if err := checkDriver(c.Driver); err != nil {
		return nil, err
	}
	if s.driverEnabled(splitDriver(c.Driver)) {
		return []Event{jobDone(r.Job)}, nil
	}
	events := []Event{&DriverEnabled{Header: about(driverNoun(c.Driver))}}
	return append(events, append(endJobs(s.driver(c.Driver).Jobs, JobSuperseded, r.Job, nil), jobDone(r.Job))...), nil
}

func splitDriver(id string) (kind, name string) {
	kind, name, _ = strings.Cut(id, "/")
	return kind, name
}

// DriverEnabled says that a driver may be used.
type DriverEnabled struct{ Header }

func (*DriverEnabled) name() string { return "driver.enabled" }

func (e *DriverEnabled) apply(s *State) []Noun {
	d := s.driver(e.ID)
	if d.Disabled {
		d.Disabled = false
		s.disabled--
	}
	d.Process = Slot{Absent, e.Seq}
	return s.Nouns() // whatever waited for it
}

// DisableDriver ends a driver's processes and lets nothing use it. Containers
// that run go on.
type DisableDriver struct {
	Driver string `json:"driver"`
}

func (*DisableDriver) name() string { return "driver.disable" }

func (c *DisableDriver) subject(*State) Noun { return driverNoun(c.Driver) }

func (c *DisableDriver) decide(s *State, r Request) ([]Event, error) {
	if err := checkDriver(c.Driver); err != nil {
		return nil, err
	}
	if !s.driverEnabled(splitDriver(c.Driver)) {
		return []Event{jobDone(r.Job)}, nil
	}
	var before []JobID
	if d := s.Drivers[c.Driver]; d != nil {
		before = d.Jobs
	}
	events := []Event{&DriverDisabled{Header: about(driverNoun(c.Driver))}}
	return append(events, endJobs(before, JobSuperseded, r.Job, nil)...), nil
}

// DriverDisabled says that nothing may use a driver; its processes are to end.
type DriverDisabled struct{ Header }

func (*DriverDisabled) name() string { return "driver.disabled" }

func (e *DriverDisabled) apply(s *State) []Noun {
	d := s.driver(e.ID)
	if !d.Disabled {
		d.Disabled = true
		s.disabled++
	}
	d.Next = ""
	d.Process = Slot{Unsure, e.Seq}
	d.Jobs = jobs(e.Job)
	return s.Nouns()
}

// DriverStopped says that no process of the driver is left.
type DriverStopped struct{ Header }

func (*DriverStopped) name() string { return "driver.stopped" }

func (e *DriverStopped) apply(s *State) []Noun {
	d := s.driver(e.ID)
	d.Process = Slot{Absent, e.Seq}
	d.Instance, d.PID = "", 0
	return []Noun{e.Of()}
}

func (st StopDriver) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	n := st.StepID.Noun()
	return append([]Event{&DriverStopped{Header: about(n)}}, endJobs(s.Drivers[n.ID].Jobs, JobDone, "", nil)...)
}

// SwapDriver puts another program in a driver's place while containers run.
type SwapDriver struct {
	Driver string `json:"driver"`
	Path   string `json:"path"` // absolute
}

func (*SwapDriver) name() string { return "driver.replace" }

func (c *SwapDriver) subject(*State) Noun { return driverNoun(c.Driver) }

func (c *SwapDriver) decide(s *State, r Request) ([]Event, error) {
	if err := checkDriver(c.Driver); err != nil {
		return nil, err
	}
	if !path.IsAbs(c.Path) {
		return nil, refuse(errdefs.ErrInvalidArgument, "path %q of the driver is not absolute", c.Path)
	}
	if err := s.needDriver(splitDriver(c.Driver)); err != nil {
		return nil, err
	}
	var before []JobID
	if d := s.Drivers[c.Driver]; d != nil {
		before = d.Jobs
	}
	events := []Event{&DriverReplaceWanted{Header: about(driverNoun(c.Driver)), Path: c.Path}}
	return append(events, endJobs(before, JobSuperseded, r.Job, nil)...), nil
}
