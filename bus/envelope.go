package bus

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/gantryd/gantry/internal/errclass"
)

// MaxEvent bounds an event in bytes. An answer, which is a message of at most 8 MiB,
// carries it as a string: in the worst case that is twice as long.
const MaxEvent = 4<<20 - 4096

// Role is what a connection may do.
type Role string

// The roles. A unix socket gives control or read; host and engine are given
// within the engine's own process only.
const (
	RoleControl Role = "control" // commands, queries, events
	RoleRead    Role = "read"    // queries, events
	RoleHost    Role = "host"    // takes steps, sends results and reports
	RoleEngine  Role = "engine"  // answers
)

// Actor is who is at the other end of a connection, in the kernel's word.
type Actor struct {
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	PID   int32  `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"` // of the process, in clock ticks since boot; 0 if unknown
}

// Command is a wish on its way.
type Command struct {
	Job    string          `json:"job"`  // UUIDv7, made by whoever sends it
	Name   string          `json:"name"` // as in the catalogue, e.g. "container.create"
	Body   json.RawMessage `json:"body,omitempty"`
	Client string          `json:"client,omitempty"` // what the client says it is
	Reason string          `json:"reason,omitempty"` // why, in the client's words
}

// Receipt is the answer to a command, a result or a report that was taken.
type Receipt struct {
	Job   string          `json:"job,omitempty"`
	Seq   uint64          `json:"seq"`             // of the first event that followed, or of the last one there was
	Stale bool            `json:"stale,omitempty"` // of a result or report: nothing followed from it
	Body  json.RawMessage `json:"body,omitempty"`  // what the engine adds
}

// Error is an error on its way: a class of internal/errclass, a sentence, a hint.
type Error struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// maxSentence bounds an error's sentence on the wire, in bytes.
const maxSentence = 8 << 10

// NewError takes err apart for the way. It is nil for nil.
func NewError(err error) *Error {
	if err == nil {
		return nil
	}
	sentence := err.Error()
	if len(sentence) > maxSentence {
		sentence = sentence[:maxSentence-3] + "..."
	}
	return &Error{Class: errclass.Name(err), Message: sentence, Hint: errclass.Hint(err)}
}

// Err puts the error together again: errors.Is finds its class. It is nil for nil.
func (e *Error) Err() error {
	if e == nil {
		return nil
	}
	return &errclass.Error{Class: errclass.ByName(e.Class), Sentence: e.Message, Hint: e.Hint}
}

// Answer is what comes back for a request: a body or an error.
type Answer struct {
	Body  json.RawMessage `json:"body,omitempty"`
	Error *Error          `json:"error,omitempty"`
}

// Query asks for something that is known already. It changes nothing.
type Query struct {
	Name string          // e.g. "container.list"
	Body json.RawMessage // may be empty
}

// Event is a fact as the bus carries it. Its frame is what was decided at once.
type Event struct {
	Seq  uint64 // sequence in the log
	Noun string // e.g. "container"
	ID   string // of that noun
	Name string // e.g. "container.created"
	Line []byte // the event's JSON, as it is in the log, without a newline
}

// Seconds is a duration that travels as a number of seconds.
type Seconds time.Duration

// MarshalJSON writes seconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', -1, 64), nil
}

// UnmarshalJSON reads seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return err
	}
	*s = Seconds(f * float64(time.Second))
	return nil
}

// Step is work owed to the world, on its way to a driver's host.
type Step struct {
	Epoch    uint64          `json:"epoch"`         // sequence of the engine's start; a lower one is refused
	ID       string          `json:"id"`            // unique for ever
	Try      int             `json:"try,omitempty"` // which handing-out of it; Finish says it again
	Kind     string          `json:"kind"`          // of the driver, e.g. "net"
	Driver   string          `json:"driver"`
	Path     string          `json:"path,omitempty"` // of its program, if another was put in its place
	Verb     string          `json:"verb"`
	Job      string          `json:"job,omitempty"`    // whose progress it is
	Deadline Seconds         `json:"deadline_seconds"` // silence after which it is cancelled
	Body     json.RawMessage `json:"body,omitempty"`
}

// Cancel takes a step back. The end of the step is still told by Finish.
type Cancel struct {
	Epoch  uint64 `json:"epoch"`
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Driver string `json:"driver"`
}

// Finish is the result of a step, or a sign of its life.
type Finish struct {
	Epoch     uint64          `json:"epoch"`
	Kind      string          `json:"kind"`
	Driver    string          `json:"driver"`
	Instance  string          `json:"instance"` // of the driver's process
	Step      string          `json:"step"`
	Try       int             `json:"try,omitempty"` // as in Step
	Result    json.RawMessage `json:"result,omitempty"`
	Error     *Error          `json:"error,omitempty"`
	Heartbeat bool            `json:"heartbeat,omitempty"` // it still runs: neither result nor error
}

// Report is what a driver's host has seen without being asked.
type Report struct {
	Epoch    uint64          `json:"epoch"`
	Kind     string          `json:"kind"`
	Driver   string          `json:"driver"`
	Instance string          `json:"instance"`
	Name     string          `json:"name"` // e.g. "inventory", "exit"
	Body     json.RawMessage `json:"body,omitempty"`
}
