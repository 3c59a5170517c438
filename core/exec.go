package core

import "time"

// Exec is a further process in a container's run. It is held from the moment it
// is wanted until its end was recorded and the driver has released it; what is
// remembered of ended ones is bounded (ExecsKept).
type Exec struct {
	Slot
	ID      ExecID    `json:"id"`
	Run     uint64    `json:"run"` // of the container
	Spec    ExecSpec  `json:"spec"`
	Job     JobID     `json:"job,omitempty"` // that asked for it, while it is open
	Kills   []Kill    `json:"kills,omitempty"`
	Attach  bool      `json:"attach,omitempty"`
	PID     int       `json:"pid,omitempty"`
	Exited  bool      `json:"exited,omitempty"`
	Exit    *Exit     `json:"exit,omitempty"`
	Fault   *Fault    `json:"fault,omitempty"` // why it could not be started
	Wanted  time.Time `json:"wanted"`
	Started time.Time `json:"started,omitzero"`
}

// Over reports whether the exec has ended, or never began.
func (x *Exec) Over() bool { return x.Exited || x.Fault != nil }

// ExecSpec is what an exec is to be; what it leaves out is the container's.
type ExecSpec struct {
	Args       []string `json:"args"`
	Env        []Env    `json:"env,omitempty"` // on top of the container's
	Cwd        string   `json:"cwd,omitempty"`
	User       string   `json:"user,omitempty"`
	TTY        bool     `json:"tty,omitempty"`
	Rows       int      `json:"rows,omitempty"`
	Columns    int      `json:"columns,omitempty"`
	OpenStdin  bool     `json:"open_stdin,omitempty"`
	Privileged bool     `json:"privileged,omitempty"`
}

// ExecsKept is how many ended execs of a container are remembered.
const ExecsKept = 32
