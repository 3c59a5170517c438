package query

import (
	"encoding/json"
	"time"

	"github.com/gantryd/gantry/core"
)

// The operations of the engine's stream sockets beside bus.OpUpload. All but
// OpQuery need the control role: output is as secret as the container makes it.
const (
	// OpQuery takes QueryIn and answers with what the query does: a connection to
	// the bus, for those who ask once. Whoever may read may ask.
	OpQuery = "query"
	// OpCommand takes CommandIn and answers with a bus.Receipt; then come lines of
	// JSON, each Said, about what the command has begun. A client that goes changes
	// nothing: the command was taken.
	OpCommand = "command"
	// OpAttach takes AttachIn and answers with Attached and a descriptor: the
	// shim's own attach socket, connected, nothing said yet. The client says
	// hello there (stdio.Attach); an attachment outlives the engine. The
	// answer comes as soon as the shim listens, before the program runs.
	OpAttach = "attach"
	// OpLogs takes LogsIn and answers with Logs; then come frames of package
	// stdio (stdout, stderr, lost), and at the end of the log one of type end. A
	// connection that ends without it was cut off.
	OpLogs = "logs"
)

// QueryIn is a query by its name.
type QueryIn struct {
	Name string          `json:"name"`
	Body json.RawMessage `json:"body,omitempty"`
}

// CommandIn is a command, and what is wanted to be told of it.
type CommandIn struct {
	Job    string          `json:"job"`
	Name   string          `json:"name"`
	Body   json.RawMessage `json:"body,omitempty"`
	Client string          `json:"client,omitempty"`
	Reason string          `json:"reason,omitempty"`

	// Attach connects to what the command starts, as OpAttach does: the first line.
	Attach bool `json:"attach,omitempty"`
	// Wait tells how the job ends; without Events that is the last line.
	Wait bool `json:"wait,omitempty"`
	// Events names the events that are told of the command's container, from the
	// command on, until the client goes.
	Events []string `json:"events,omitempty"`
}

// Said is one line of OpCommand: one of its fields. The client is told no more
// when the connection ends: what it still needs is in the log.
type Said struct {
	Attached *Attached       `json:"attached,omitempty"` // the descriptor comes with this line
	Refused  *Refusal        `json:"refused,omitempty"`  // there is nothing to attach to
	Event    json.RawMessage `json:"event,omitempty"`    // as it is in the log
}

// Refusal is an error with its class.
type Refusal struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// AttachIn asks for a container's input and output.
type AttachIn struct {
	Ref string `json:"ref"`
	// Run is the run that is meant; 0: the one that is wanted or runs now.
	Run uint64 `json:"run,omitempty"`
	// Exec is the exec that is meant; empty: the run's own process.
	Exec core.ExecID `json:"exec,omitempty"`
}

// Attached is what the descriptor is connected to.
type Attached struct {
	Container core.ContainerID `json:"container"`
	Run       uint64           `json:"run"`
}

// LogsIn asks for what a container has written.
type LogsIn struct {
	Ref    string    `json:"ref"`
	Follow bool      `json:"follow,omitempty"` // until the container's run has ended
	Tail   *int      `json:"tail,omitempty"`   // only the last so many lines; nil: all
	Since  time.Time `json:"since,omitzero"`   // only what was written not before
	Until  time.Time `json:"until,omitzero"`   // only what was written not after; ends the stream with Follow too
	// From and To are running offsets of the log (package stdio): only the bytes
	// from From on and before To. To 0: no bound. A follower that was told of lost
	// bytes asks for exactly these.
	From uint64 `json:"from,omitempty"`
	To   uint64 `json:"to,omitempty"`
	// Timestamps puts 8 bytes in front of each stdout and stderr payload: when
	// it was read, nanoseconds since 1970 UTC, big-endian. A payload holds one
	// read's worth, not a line.
	Timestamps bool `json:"timestamps,omitempty"`
}

// Logs is whose output it is.
type Logs struct {
	Container core.ContainerID `json:"container"`
	Run       uint64           `json:"run"`
	Running   bool             `json:"running,omitempty"`
}
