package core

import (
	"time"

	"github.com/containerd/errdefs"
)

// Command asks for a change. Its decide lives in the file of its verb.
type Command interface {
	name() string
	decide(s *State, r Request) ([]Event, error)
}

// Event is a fact. Its fold lives beside the decision that causes it.
type Event interface {
	// Head is the part that all events share. Only Decide writes to it.
	Head() *Header
	name() string
	// apply folds the event into s and returns the nouns whose Next may
	// differ now. It cannot fail and keeps no reference to s.
	apply(s *State) []Noun
}

// Step is one piece of work owed to the world.
type Step interface {
	// ID is unique for ever: noun/slot/verb@sequence of the event that made
	// the step owed.
	ID() StepID
	// Driver says who runs the step: kind and name of a driver. The kind is
	// empty for what the engine's own clock does (Wait).
	Driver() (kind, name string)
	name() string
}

// Actor is who asked, in the kernel's word: not what the client claims.
type Actor struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	PID int32  `json:"pid,omitempty"`
	// Engine marks requests of the engine itself: results, reports, start-up.
	Engine bool `json:"engine,omitempty"`
}

// Request is a command with all that comes from outside of it.
type Request struct {
	Command Command
	Job     JobID     // made by whoever sends the command; empty for results and reports
	Digest  string    // of the command's bytes as sent; tells a repeat from a reuse of the job id
	Actor   Actor     // the socket's peer credentials
	Client  string    // what the client says it is, e.g. "gantry/0.1"
	Reason  string    // why, in the client's words
	Time    time.Time // the wall clock at the edge; order is the sequence alone
}

// Header is the part that all events share.
type Header struct {
	Seq   uint64    `json:"seq"`
	Name  string    `json:"event"`
	Time  time.Time `json:"time"`
	Noun  string    `json:"noun"`
	ID    string    `json:"id"`
	Job   JobID     `json:"job,omitempty"`
	Cause uint64    `json:"cause,omitempty"` // sequence of the event that made it so; 0 for a command or a report
}

// Head returns the header itself.
func (h *Header) Head() *Header { return h }

// Of is the noun that the event is about.
func (h *Header) Of() Noun { return Noun{h.Noun, h.ID} }

func about(n Noun) Header { return Header{Noun: n.Kind, ID: n.ID} }

// Decide says which events follow from r, or refuses it. It changes nothing.
//
// The events come stamped: sequence numbers follow the state's own, the first
// one's cause is what made the decision necessary, and each later one is caused
// by the first unless it says otherwise. No events and no error means that
// there is nothing to do: a repeated job (its receipt is in s.Jobs) or a stale
// result.
func Decide(s *State, r Request) ([]Event, error) {
	if r.Job != "" {
		if known, err := s.knownJob(r); known || err != nil {
			return nil, err
		}
	}
	events, err := r.Command.decide(s, r)
	if err != nil || len(events) == 0 {
		return nil, err
	}
	if r.Job != "" {
		events = accept(s, r, events)
	}
	for i, e := range events {
		h := e.Head()
		h.Seq, h.Name, h.Time = s.Seq+1+uint64(i), e.name(), r.Time
		if h.Job == "" {
			h.Job = r.Job
		}
		if h.Cause == 0 && i > 0 {
			h.Cause = s.Seq + 1
		}
	}
	return events, nil
}

// Apply folds one event into s and returns the nouns whose Next may differ now,
// dependents included. It cannot fail: an event is a fact. An event out of order
// is a broken invariant of the caller and stops the program. The list is good until
// the next Apply to s.
func (s *State) Apply(e Event) []Noun {
	h := e.Head()
	if h.Seq != s.Seq+1 {
		panicf("event %d %s applied to state at %d", h.Seq, h.Name, s.Seq)
	}
	s.Seq = h.Seq
	return e.apply(s)
}

// touch begins the list of an Apply's nouns with n. Nearly every event touches one or
// two, so the room is kept for the next one.
func (s *State) touch(n Noun) []Noun {
	if s.touched == nil {
		s.touched = make([]Noun, 0, 8)
	}
	return append(s.touched, n)
}

// Next lists the steps that noun n still owes, at most one for a slot. It is
// asked of the nouns that Apply returned, and of all (State.Nouns) at start-up.
func Next(s *State, n Noun) []Step {
	switch n.Kind {
	case KindContainer:
		if c := s.Containers[ContainerID(n.ID)]; c != nil {
			return s.enabledOnly(c.next(s))
		}
	case KindImage:
		if i := s.Images[ImageID(n.ID)]; i != nil {
			return s.enabledOnly(i.next(s))
		}
	case KindLayer:
		if l := s.Layers[LayerID(n.ID)]; l != nil {
			return s.enabledOnly(l.next(s))
		}
	case KindNetwork:
		if w := s.Networks[NetworkID(n.ID)]; w != nil {
			return s.enabledOnly(w.next(s))
		}
	case KindJob:
		if j := s.Jobs[JobID(n.ID)]; j != nil {
			return s.enabledOnly(j.next(s))
		}
	case KindDriver:
		if d := s.Drivers[n.ID]; d != nil {
			return d.next()
		}
	}
	return nil
}

// owes is the step among those of Next(s, n) that is in the slot of id, or nil.
func (s *State) owes(n Noun, id StepID) Step {
	if c := s.Containers[ContainerID(n.ID)]; c != nil && n.Kind == KindContainer {
		if st := c.owes(ask{s, id}, id.slotName()); st != nil && s.enabled(st) {
			return st
		}
		return nil
	}
	for _, st := range Next(s, n) {
		if st.ID().Slot() == id.Slot() {
			return st
		}
	}
	return nil
}

// enabledOnly leaves out the steps of drivers that are disabled: they stay owed
// and are named again when the driver is enabled.
func (s *State) enabledOnly(steps []Step) []Step {
	if s.disabled == 0 {
		return steps
	}
	kept := steps[:0]
	for _, st := range steps {
		if s.enabled(st) {
			kept = append(kept, st)
		}
	}
	return kept
}

func (s *State) enabled(st Step) bool {
	kind, name := st.Driver()
	return kind == "" || s.driverEnabled(kind, name)
}

// refusal is a refused wish: a sentence and its class.
type refusal struct {
	class error
	text  string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.class }

func refuse(class error, format string, args ...any) error {
	return &refusal{class, sprintf(format, args...)}
}

func notFound(what, name string) error {
	return refuse(errdefs.ErrNotFound, "no such %s: %s", what, name)
}
