package core

import "slices"

// The verbs that a slot may owe; "" is none. They look at this container alone:
// what depends on other nouns is checked in next.

// climbing reports whether the container acquires what it needs: it is wanted
// running, and no wait comes first.
func (c *Container) climbing() bool { return c.Want == Running && !c.Backoff.Pending }

// private reports whether the container has a user namespace of its own.
func (c *Container) private() bool { return c.Spec.Security.UserNS == "private" }

// placed reports whether the user namespace is there that networks and process
// are made in.
func (c *Container) placed() bool { return !c.private() || c.UserNS.State == Held }

func (c *Container) usernsVerb() string {
	switch {
	case !c.private():
	case c.UserNS.State == Absent:
		if c.climbing() {
			return "hold"
		}
	case c.UserNS.State == Held && c.Want == Running:
	case c.Process.State == Absent && !c.networked():
		return "release" // held first, released last
	}
	return ""
}

// networked reports whether anything of an endpoint is, or may be, held.
func (c *Container) networked() bool {
	return slices.ContainsFunc(c.Nets, func(n NetSlot) bool { return n.State != Absent })
}

func (c *Container) rootfsVerb() string {
	switch c.Rootfs.State {
	case Absent:
		if c.climbing() || c.Prepared && c.Want != Removed {
			return "prepare"
		}
	case Unsure:
		if c.Process.State == Absent {
			return "release"
		}
	case Held:
		if c.Want == Removed && c.over() {
			return "release"
		}
	}
	return ""
}

// over reports whether no process of a run is left: nothing runs, or its end is
// known. Exec drivers end all of a run before they tell its end, so that what it
// has used can be given back beside what is left of the run itself.
func (c *Container) over() bool {
	return c.Process.State == Absent || c.Process.State == Held && c.Process.Exited && !c.Process.Early
}

func (c *Container) netVerb(i int) string {
	n := &c.Nets[i]
	switch idle := c.Process.State == Absent; n.State {
	case Absent:
		if idle && c.climbing() && c.placed() {
			return "attach"
		}
	case Unsure:
		if idle {
			return "detach"
		}
	case Held:
		if c.over() && (c.Want != Running || !c.placed()) {
			return "detach"
		}
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
		if c.climbing() && c.ready() {
			return "start"
		}
	case len(p.Kills) > 0: // one that stands still takes it when it goes on
		return "kill"
	case c.Want == Running && !p.Ending:
	case p.Stop.Sent:
		return "wait"
	case !c.Frozen() || p.Stop.Signal == sigkill || c.Stuck != nil && c.Stuck.Step.slotName() == freezerSlot:
		return "signal" // its grace begins when it goes on; SIGKILL thaws, and what cannot be thawed comes to that
	}
	return ""
}

func (c *Container) logVerb() string {
	if c.Log.State != Absent && c.Want == Removed && c.Process.State == Absent {
		return "remove"
	}
	return ""
}

func (c *Container) freezerVerb() string {
	switch {
	case !c.Running(): // what is frozen is thawed when the run is released
	case c.Paused.State == Unsure, c.Paused.State == Held && !c.Paused.Wanted:
		return "thaw"
	case c.Paused.State == Absent && c.Paused.Wanted && !c.execStarting():
		return "freeze"
	}
	return ""
}

func (c *Container) updateVerb() string {
	if c.Update.Wanted != nil && c.Running() {
		return "update"
	}
	return ""
}

func (c *Container) watchVerb() string {
	live := c.Running() && c.Spec.Health != nil
	switch {
	case c.Watch.State == Unsure, c.Watch.State == Held && (!live || c.Watch.Run != c.Process.Run):
		return "unwatch"
	case c.Watch.State == Absent && live && (c.Health == nil || c.Health.Fault == nil):
		return "watch"
	}
	return ""
}

func (c *Container) backoffVerb() string {
	if c.Backoff.Pending {
		return "wait"
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
	return c.Rootfs.State == Held && c.placed()
}

// settled reports whether the container is what it is wanted to be, with
// nothing to acquire or to give back. Execs and the watch over its health are
// nobody's affair who waits for it.
func (c *Container) settled() bool {
	for i := range c.Nets {
		if c.netVerb(i) != "" {
			return false
		}
	}
	if c.usernsVerb() != "" || c.rootfsVerb() != "" || c.logVerb() != "" || c.processVerb() != "" {
		return false
	}
	return (c.Want == Running) == c.Running()
}

// empty reports whether nothing at all is held: the container can be forgotten.
func (c *Container) empty() bool { return c.holds() == 0 }

// holds counts the slots that hold something, or may. Freezer, limits and the wait
// before the next run hold nothing of their own.
func (c *Container) holds() int {
	n := 0
	for _, s := range [...]SlotState{c.UserNS.State, c.Rootfs.State, c.Process.State, c.Log.State, c.Watch.State} {
		if s != Absent {
			n++
		}
	}
	for i := range c.Nets {
		if c.Nets[i].State != Absent {
			n++
		}
	}
	for i := range c.Execs {
		if c.Execs[i].State != Absent {
			n++
		}
	}
	return n
}

// verbs is what all slots owe, for telling what an event has turned.
type verbs struct {
	userns, rootfs, process, log, freezer, update, watch, backoff string
	nets, execs                                                   []string
}

// verbsRoom is where the lists of verbs are, as long as they fit: half for
// networks, half for execs. It is the caller's, so that it can be on the stack.
type verbsRoom [8]string

func (c *Container) verbs(room *verbsRoom) verbs {
	v := verbs{
		nets: room[:0:4], execs: room[4:4],
		userns: c.usernsVerb(), rootfs: c.rootfsVerb(), process: c.processVerb(), log: c.logVerb(),
		freezer: c.freezerVerb(), update: c.updateVerb(), watch: c.watchVerb(), backoff: c.backoffVerb(),
	}
	for i := range c.Nets {
		v.nets = append(v.nets, c.netVerb(i))
	}
	for i := range c.Execs {
		v.execs = append(v.execs, c.execVerb(i))
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
	var room [4]SlotState
	before := room[:0]
	for i := range c.Nets {
		before = append(before, c.Nets[i].State)
	}
	c.fold(h.Seq, f)
	touched := s.touch(c.ID.noun())
	for i := range c.Nets {
		if c.Nets[i].State != before[i] {
			touched = append(touched, c.Nets[i].Network.noun()) // its removal waits for its endpoints
		}
		if c.Nets[i].State == Absent && c.Want != Running {
			s.freeAddress(&c.Nets[i])
		}
	}
	return append(touched, s.sharersOf(c.ID)...)
}

func (c *Container) fold(seq uint64, f func(c *Container)) {
	var was, is verbsRoom
	before, signal := c.verbs(&was), c.Process.Stop.Signal
	f(c)
	c.doubt(&before)
	after := c.verbs(&is)
	if c.Process.State != Absent {
		c.Log.State = Held // a start that was tried may have made its log
	}
	if after.process == "start" {
		c.Process.Run = c.Run
	}
	if after.watch == "watch" {
		c.Watch.Run = c.Process.Run
	}
	turn := func(was, is string, slot *Slot) {
		if was != is {
			slot.Turn = seq
		}
	}
	turn(before.userns, after.userns, &c.UserNS.Slot)
	turn(before.rootfs, after.rootfs, &c.Rootfs.Slot)
	turn(before.process, after.process, &c.Process.Slot)
	if after.process == "signal" && c.Process.Stop.Signal != signal {
		c.Process.Turn = seq // another signal is another step
	}
	turn(before.log, after.log, &c.Log)
	turn(before.freezer, after.freezer, &c.Paused.Slot)
	turn(before.update, after.update, &c.Update.Slot)
	turn(before.watch, after.watch, &c.Watch.Slot)
	turn(before.backoff, after.backoff, &c.Backoff.Slot)
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
	for i := range c.Execs { // a new one comes last; ended ones are dropped by forgetExecs alone
		was := ""
		if i < len(before.execs) {
			was = before.execs[i]
		}
		turn(was, after.execs[i], &c.Execs[i].Slot)
	}
	c.forgetExecs()
	c.freeIDs()
}

// doubt: an acquisition that was owed and no longer is, although it was not
// reported, may be running or half done at this moment. Its slot is unsure from
// now on, and undo begins there; the same for a release that is called off.
func (c *Container) doubt(before *verbs) {
	if before.userns == "hold" && c.UserNS.State == Absent && c.usernsVerb() == "" ||
		before.userns == "release" && c.UserNS.State == Held && c.usernsVerb() == "" {
		c.UserNS.State = Unsure
	}
	if before.rootfs == "prepare" && c.Rootfs.State == Absent && c.rootfsVerb() == "" {
		c.Rootfs.State = Unsure
	}
	for i, was := range before.nets {
		n := &c.Nets[i]
		if was == "attach" && n.State == Absent && c.netVerb(i) == "" && !plantedForgetNetwork ||
			was == "detach" && n.State == Held && c.netVerb(i) == "" {
			n.State = Unsure
		}
	}
	if before.process == "start" && c.Process.State == Absent && c.processVerb() == "" {
		c.Process.State = Unsure
	}
	if c.Running() && (before.freezer == "freeze" && c.Paused.State == Absent && c.freezerVerb() == "" ||
		before.freezer == "thaw" && c.Paused.State == Held && c.freezerVerb() == "") {
		c.Paused.State = Unsure
	}
	if before.watch == "watch" && c.Watch.State == Absent && c.watchVerb() == "" ||
		before.watch == "unwatch" && c.Watch.State == Held && c.watchVerb() == "" {
		c.Watch.State = Unsure
	}
	for i, was := range before.execs {
		if x := &c.Execs[i]; was == "start" && x.State == Absent && c.execVerb(i) == "" {
			x.State = Unsure
		}
	}
}
