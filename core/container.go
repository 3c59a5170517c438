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

// Container is one container. While it is wanted running it climbs: root
// filesystem and networks side by side, then the process; otherwise it gives
// back in reverse. The root filesystem is given back on removal only.
type Container struct {
	ID         ContainerID `json:"id"`
	Name       string      `json:"name"` // free from the frame that accepts the removal
	Image      ImageID     `json:"image"`
	ImageRef   string      `json:"image_ref"` // as given
	Manifest   string      `json:"manifest"`  // digest, pinned
	Layer      LayerID     `json:"layer,omitempty"`
	Spec       Spec        `json:"spec"`
	AutoRemove bool        `json:"auto_remove,omitempty"`
	Created    time.Time   `json:"created"`

	Want  Want    `json:"want"`
	Jobs  []JobID `json:"jobs,omitempty"`  // open jobs that wait for this want
	Fault *Fault  `json:"fault,omitempty"` // why the last start failed

	Rootfs  RootfsSlot  `json:"rootfs,omitzero"`
	Nets    []NetSlot   `json:"nets,omitempty"`
	Process ProcessSlot `json:"process,omitzero"`
	Log     Slot        `json:"log,omitzero"` // log files, from the first start to the removal

	Attach  bool      `json:"attach,omitempty"`   // of this run: hold the program until a client has attached
	Run     uint64    `json:"run,omitempty"`      // number of the newest run
	Exit    *Exit     `json:"exit,omitempty"`     // how the newest ended run ended
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
}

const sigkill, sigterm = 9, 15

func (id ContainerID) noun() Noun { return Noun{KindContainer, string(id)} }

// Running reports whether the container's process runs, as far as is known.
func (c *Container) Running() bool { return c.Process.State == Held && !c.Process.Exited }

// Status is the container's state in Docker's words: created, running, exited,
// removing, dead.
func (c *Container) Status() string {
	switch {
	case c.Want == Removed:
		return "removing"
	case c.Running():
		return "running"
	case c.Exit != nil:
		return "exited"
	}
	return "created"
}

// The verbs that a slot may owe; "" is none. They look at this container alone:
// what depends on other nouns is checked in next.
func (c *Container) rootfsVerb() string {
	switch c.Rootfs.State {
	case Absent:
		if c.Want == Running {
			return "prepare"
		}
	case Unsure:
		if c.Process.State == Absent {
			return "release"
		}
	case Held:
		if c.Want == Removed && c.Process.State == Absent {
			return "release"
		}
	}
	return ""
}

func (c *Container) netVerb(i int) string {
	n := &c.Nets[i]
	switch {
	case n.State == Absent && c.Want == Running && c.Process.State == Absent:
		return "attach"
	case n.State == Unsure && c.Process.State == Absent,
		n.State == Held && c.Want != Running && c.Process.State == Absent:
		return "detach"
	}
	return ""
}

func (c *Container) processVerb() string {
	p := &c.Process
	switch {
	case p.State == Unsure, p.State == Held && p.Exited:
		if c.Want == Removed {
			return "purge" // and the log with it
		}
		return "release"
	case p.State == Absent:
		if c.Want == Running && c.ready() {
			return "start"
		}
	case len(p.Kills) > 0:
		return "kill"
	case c.Want == Running:
	case !p.Stop.Sent:
		return "signal"
	default:
		return "wait"
	}
	return ""
}

func (c *Container) logVerb() string {
	if c.Log.State != Absent && c.Want == Removed && c.Process.State == Absent {
		return "remove"
	}
	return ""
}

// ready reports whether everything that the process needs is held.
func (c *Container) ready() bool {
	for i := range c.Nets {
		if c.Nets[i].State != Held {
			return false
		}
	}
	return c.Rootfs.State == Held
}

// settled reports whether the container is what it is wanted to be, with
// nothing to acquire or to give back.
func (c *Container) settled() bool {
	for i := range c.Nets {
		if c.netVerb(i) != "" {
			return false
		}
	}
	if c.rootfsVerb() != "" || c.logVerb() != "" || c.processVerb() != "" {
		return false
	}
	return (c.Want == Running) == c.Running()
}

// empty reports whether nothing at all is held: the container can be forgotten.
func (c *Container) empty() bool {
	for i := range c.Nets {
		if c.Nets[i].State != Absent {
			return false
		}
	}
	return c.Rootfs.State == Absent && c.Process.State == Absent && c.Log.State == Absent
}

// verbs is what all slots owe, for telling what an event has turned.
type verbs struct {
	rootfs, process, log string
	nets                 []string
}

func (c *Container) verbs() verbs {
	v := verbs{rootfs: c.rootfsVerb(), process: c.processVerb(), log: c.logVerb()}
	for i := range c.Nets {
		v.nets = append(v.nets, c.netVerb(i))
	}
	return v
}

// fold changes a container by f and gives every slot whose verb has changed
// its new turn: the sequence of the event that made the step owed.
func (s *State) fold(h *Header, f func(c *Container)) []Noun {
	c := s.Containers[ContainerID(h.ID)]
	if c == nil {
		panicf("event %d %s is about container %s, which is not there", h.Seq, h.Name, h.ID)
	}
	before := c.Nets
	c.Nets = append([]NetSlot(nil), c.Nets...)
	c.fold(h.Seq, f)
	touched := []Noun{c.ID.noun()}
	for i := range c.Nets {
		if c.Nets[i].State != before[i].State {
			touched = append(touched, c.Nets[i].Network.noun()) // its removal waits for its endpoints
		}
	}
	return touched
}

func (c *Container) fold(seq uint64, f func(c *Container)) {
	before := c.verbs()
	f(c)
	c.doubt(before)
	after := c.verbs()
	if c.Process.State != Absent {
		c.Log.State = Held // a start that was tried may have made its log
	}
	if after.process == "start" {
		c.Process.Run = c.Run
	}
	turn := func(was, is string, slot *Slot) {
		if was != is {
			slot.Turn = seq
		}
	}
	turn(before.rootfs, after.rootfs, &c.Rootfs.Slot)
	turn(before.process, after.process, &c.Process.Slot)
	turn(before.log, after.log, &c.Log)
	for i := range c.Nets {
		was := ""
		if i < len(before.nets) {
			was = before.nets[i]
		}
		if after.nets[i] == "attach" {
			c.Nets[i].Run = c.Run
		}
		turn(was, after.nets[i], &c.Nets[i].Slot)
	}
}

// clone is a copy for asking what a change would bring: it shares only what no
// fold changes in place.
func (c *Container) clone() *Container {
	k := *c
	k.Nets = append([]NetSlot(nil), c.Nets...)
	k.Process.Kills = append([]Kill(nil), c.Process.Kills...)
	return &k
}

// doubt: an acquisition that was owed and no longer is, although it was not
// reported, may be running or half done at this moment. Its slot is unsure from
// now on, and undo begins there; the same for a release that is called off.
func (c *Container) doubt(before verbs) {
	if before.rootfs == "prepare" && c.Rootfs.State == Absent && c.rootfsVerb() == "" {
		c.Rootfs.State = Unsure
	}
	for i, was := range before.nets {
		n := &c.Nets[i]
		if was == "attach" && n.State == Absent && c.netVerb(i) == "" && !plantedForgetNetwork || was == "detach" && n.State == Held {
			n.State = Unsure
		}
	}
	if before.process == "start" && c.Process.State == Absent && c.processVerb() == "" {
		c.Process.State = Unsure
	}
}
