package query

import (
	"time"

	"github.com/gantryd/gantry/core"
)

// The operations of the engine's stream sockets beside bus.OpUpload. Both need
// the control role: output is as secret as the container makes it.
const (
	// OpAttach takes AttachIn and answers with Attached and a descriptor: the
	// shim's own attach socket, connected, nothing said yet. The client says
	// hello there (stdio.Attach); an attachment outlives the engine. The
	// answer comes as soon as the shim listens, before the program runs.
	OpAttach = "attach"
	// OpLogs takes LogsIn and answers with Logs; then come frames of package
	// stdio (stdout, stderr, lost) until the connection ends.
	OpLogs = "logs"
)

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
