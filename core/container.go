package core

import (
	"time"
)

// Want is what a noun is meant to be.
type Want string

// A container is wanted stopped (it keeps what it has written), running, or
// removed; images and networks are wanted present or removed.
const (
	Stopped Want = "stopped"
	Running Want = "running"
	Present Want = "present"
	Removed Want = "removed"
)

// Container is one container. While it is wanted running it climbs: user
// namespace, root filesystem and networks as soon as they can, then the process;
// otherwise it gives back in reverse. The root filesystem is given back on
// removal only. What a running process has beside it (execs, a freezer, a watch
// over its health, new limits) are slots of their own.
type Container struct {
	ID         ContainerID `json:"id"`
	Name       string      `json:"name"` // free from the frame that accepts the removal
	Image      ImageID     `json:"image"`
	ImageRef   string      `json:"image_ref"` // as given
	Manifest   string      `json:"manifest"`  // digest, pinned
	Layer      LayerID     `json:"layer,omitempty"`
	Spec       *Spec       `json:"spec"` // shared by events, folds and steps: never changed, only replaced
	AutoRemove bool        `json:"auto_remove,omitempty"`
	Created    time.Time   `json:"created"`

	Want  Want    `json:"want"`
	Jobs  []JobID `json:"jobs,omitempty"`  // open jobs that wait for this want
	Fault *Fault  `json:"fault,omitempty"` // why the last start failed

	UserNS  UserNSSlot  `json:"userns,omitzero"`
	Rootfs  RootfsSlot  `json:"rootfs,omitzero"`
	Nets    []NetSlot   `json:"nets,omitempty"`
	Process ProcessSlot `json:"process,omitzero"`
	Log     Slot        `json:"log,omitzero"` // log files, from the first start to the removal
	Paused  PauseSlot   `json:"paused,omitzero"`
	Update  UpdateSlot  `json:"update,omitzero"`
	Watch   WatchSlot   `json:"watch,omitzero"`
	Execs   []Exec      `json:"execs,omitempty"` // open ones, and the last ExecsKept that have ended
	Backoff Backoff     `json:"backoff,omitzero"`

	IDMap     *IDMap       `json:"id_map,omitempty"`    // allotted; no other container has any of its ids
	Prepared  bool         `json:"prepared,omitempty"`  // its root filesystem is wanted although nothing runs
	Preparing []JobID      `json:"preparing,omitempty"` // open jobs that wait for the root filesystem
	Health    *HealthState `json:"health,omitempty"`    // of the newest run; nil: not probed
	Restarts  int          `json:"restarts,omitempty"`  // by its policy, since somebody started it
	Auto      bool         `json:"auto,omitempty"`      // the start that is under way is its policy's: if it fails it is tried again
	ByHand    bool         `json:"by_hand,omitempty"`   // somebody has stopped or killed it
	OOMKills  uint64       `json:"oom_kills,omitempty"` // in the newest run

	Attach  bool      `json:"attach,omitempty"`   // of this run: hold the program until a client has attached
	Run     uint64    `json:"run,omitempty"`      // number of the newest run
	Exit    *Exit     `json:"exit,omitempty"`     // how the newest ended run ended
	Stuck   *Fault    `json:"stuck,omitempty"`    // why something of it could not be given back, the last time that was tried
	Started time.Time `json:"started,omitzero"`   // when the newest run's start was recorded
	LogPath string    `json:"log_path,omitempty"` // of the newest file, as the exec driver told it last
}

// RootfsSlot holds the root filesystem.
type RootfsSlot struct {
	Slot
	Mounts []Mount `json:"mounts,omitempty"`
}

// NetSlot holds the attachment to one network; the address is taken from the
// moment the container is wanted running until the slot is absent again.
type NetSlot struct {
	Slot
	Network  NetworkID `json:"network"`
	Run      uint64    `json:"run,omitempty"` // the run that it is held for
	Address  Address   `json:"address,omitzero"`
	Endpoint Endpoint  `json:"endpoint,omitzero"`
}

// ProcessSlot holds one run. Held means running; Unsure means that something of
// the run may be left, and Exited that its end is known.
type ProcessSlot struct {
	Slot
	Run    uint64    `json:"run,omitempty"`
	Exited bool      `json:"exited,omitempty"`
	PID    int       `json:"pid,omitempty"`
	Log    string    `json:"log,omitempty"` // path of the log file
	Kills  []Kill    `json:"kills,omitempty"`
	Stop   Stopping  `json:"stop,omitzero"`
	Since  time.Time `json:"since,omitzero"` // when the present wait began
	// Ending: it is stopped although the container is wanted running: another
	// run follows. Sick: because it was found unhealthy.
	Ending bool `json:"ending,omitempty"`
	Sick   bool `json:"sick,omitempty"`
	Early  bool `json:"early,omitempty"` // its start may be running still, in this slot
}

// UserNSSlot holds the container's own user namespace.
type UserNSSlot struct {
	Slot
	Namespace Namespace `json:"namespace,omitzero"`
}

// PauseSlot is the freezer of a running process: held means that it stands still.
type PauseSlot struct {
	Slot
	Wanted bool    `json:"wanted,omitempty"`
	Jobs   []JobID `json:"jobs,omitempty"` // open jobs that wait for what is wanted
}

// UpdateSlot is a change of a running container's limits on its way; it holds
// nothing.
type UpdateSlot struct {
	Slot
	Wanted  *Resources `json:"wanted,omitempty"` // whole; nil: nothing is to be changed
	Restart *Restart   `json:"restart,omitempty"`
	Job     JobID      `json:"job,omitempty"`
}

// WatchSlot is held while the driver's host watches a run's health.
type WatchSlot struct {
	Slot
	Run uint64 `json:"run,omitempty"`
}

// Backoff is the wait before the next run; it holds nothing but its turn.
type Backoff struct {
	Slot
	Pending bool          `json:"pending,omitempty"`
	Length  time.Duration `json:"length_ns,omitempty"` // of this wait, or of the last one
	Since   time.Time     `json:"since,omitzero"`
}

// Kill is a signal that somebody asked for and that is not delivered yet.
type Kill struct {
	Signal int    `json:"signal"`
	Job    JobID  `json:"job"`
	Seq    uint64 `json:"seq"`
}

// Stopping says how far the end of a running process has come.
type Stopping struct {
	Signal int           `json:"signal,omitempty"` // sent next, or waited for after it was sent
	Sent   bool          `json:"sent,omitempty"`
	Grace  time.Duration `json:"grace_ns,omitempty"` // wait so long after Signal before SIGKILL
	Round  int           `json:"round,omitempty"`    // how many SIGKILLs were delivered
}

// Exit is how a run ended.
type Exit struct {
	Run       uint64    `json:"run"`
	Code      int       `json:"code"`
	Signal    int       `json:"signal,omitempty"`
	OOMKilled bool      `json:"oom_killed,omitempty"`
	Lost      bool      `json:"lost,omitempty"` // nobody saw the end; the code may be a guess
	Reason    string    `json:"reason,omitempty"`
	Time      time.Time `json:"time"`
	LogEnd    uint64    `json:"log_end,omitempty"` // where the output ends in the log, if that neither reaches it nor tells so
}

const sigkill, sigterm = 9, 15

func (id ContainerID) noun() Noun { return Noun{KindContainer, string(id)} }

// Running reports whether the container's process runs, as far as is known.
func (c *Container) Running() bool { return c.Process.State == Held && !c.Process.Exited }

// Frozen reports whether the process stands still, or may.
func (c *Container) Frozen() bool { return c.Paused.State != Absent }

// Status is the container's state in Docker's words.
func (c *Container) Status() string {
	switch {
	case c.Want == Removed && c.Stuck != nil:
		return "dead"
	case c.Want == Removed:
		return "removing"
	case c.Running() && c.Paused.State == Held:
		return "paused"
	case c.Running():
		return "running"
	case c.Want == Running && (c.Backoff.Pending || c.Auto):
		return "restarting"
	case c.Exit != nil:
		return "exited"
	}
	return "created"
}
