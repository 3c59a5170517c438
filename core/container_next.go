package core

import (
	"strings"
	"time"
)

// The names of the drivers that the engine uses for every container. They are
// chosen when the engine's log begins.
type Choice struct {
	Graph string `json:"graph"`
	Exec  string `json:"exec"`
	Image string `json:"image"`
}

// ask is a question for what is owed, in a state. If one step is asked for by its
// id, that id is used and not put together anew.
type ask struct {
	*State
	step StepID
}

// id is the step's identity and runner.
func (q ask) id(n Noun, slot, verb string, turn uint64, kind, driver string) owedStep {
	return owedStep{stepIDLike(q.step, n, slot, verb, turn), kind, driver}
}

// next lists what the container owes.
func (c *Container) next(s *State) []Step {
	q := ask{State: s}
	var all stepList
	all.add(c.nextUserNS(q))
	all.add(c.nextRootfs(q))
	for i := range c.Nets {
		all.add(c.nextNet(q, i))
	}
	all.add(c.nextProcess(q))
	all.add(c.nextLog(q))
	all.add(c.nextBackoff(q))
	all.add(c.nextFreezer(q))
	all.add(c.nextUpdate(q))
	all.add(c.nextWatch(q))
	for i := range c.Execs {
		all.add(c.nextExec(q, i))
	}
	return all
}

// owes is what the slot of that name owes, or nil.
func (c *Container) owes(q ask, slot string) Step {
	switch slot {
	case usernsSlot:
		return c.nextUserNS(q)
	case rootfsSlot:
		return c.nextRootfs(q)
	case processSlot:
		return c.nextProcess(q)
	case logSlot:
		return c.nextLog(q)
	case backoffSlot:
		return c.nextBackoff(q)
	case freezerSlot:
		return c.nextFreezer(q)
	case limitsSlot:
		return c.nextUpdate(q)
	case healthSlot:
		return c.nextWatch(q)
	}
	for i := range c.Nets {
		if c.Nets[i].slotName() == slot {
			return c.nextNet(q, i)
		}
	}
	for i := range c.Execs {
		if c.Execs[i].slotName() == slot {
			return c.nextExec(q, i)
		}
	}
	return nil
}

// stepList is the steps that a noun owes. Most owe none; for the others there is
// room at once for as many as a removal has.
type stepList []Step

func (l *stepList) add(st Step) {
	if st == nil {
		return
	}
	if *l == nil {
		*l = make(stepList, 0, 4)
	}
	*l = append(*l, st)
}

// The names of a container's slots in step ids; those of networks and execs have
// their ids in them.
const (
	usernsSlot  = "userns"
	rootfsSlot  = "rootfs"
	processSlot = "process"
	logSlot     = "log"
	backoffSlot = "backoff" // the wait before the next run
	freezerSlot = "freezer" // what makes the processes stand still
	limitsSlot  = "limits"
	healthSlot  = "health"
)

// execStep is what the exec driver owes for a slot.
func (c *Container) execStep(q ask, slot, verb string, turn uint64) owedStep {
	return q.id(c.ID.noun(), slot, verb, turn, "exec", q.Engine.Drivers.Exec)
}

func (c *Container) nextUserNS(q ask) Step {
	switch verb := c.usernsVerb(); verb {
	case "hold":
		return HoldUserNS{c.execStep(q, usernsSlot, verb, c.UserNS.Turn), c.ID, c.idMap()}
	case "release":
		return ReleaseUserNS{c.execStep(q, usernsSlot, verb, c.UserNS.Turn), c.ID}
	}
	return nil
}

func (c *Container) nextRootfs(q ask) Step {
	verb := c.rootfsVerb()
	if verb == "" {
		return nil
	}
	id := q.id(c.ID.noun(), rootfsSlot, verb, c.Rootfs.Turn, "graphdriver", q.Engine.Drivers.Graph)
	if verb == "release" {
		return ReleaseRootfs{id, c.ID}
	}
	return PrepareRootfs{owedStep: id, Container: c.ID, Layer: c.Layer, IDMap: c.idMap(), Targets: c.Spec.targets()}
}

func (c *Container) nextLog(q ask) Step {
	if verb := c.logVerb(); verb != "" {
		return RemoveLog{c.execStep(q, logSlot, verb, c.Log.Turn), c.ID}
	}
	return nil
}

func (c *Container) nextBackoff(q ask) Step {
	verb, b := c.backoffVerb(), &c.Backoff
	if verb == "" {
		return nil
	}
	return Wait{q.id(c.ID.noun(), backoffSlot, verb, b.Turn, "", ""), b.Since.Add(b.Length), b.Length}
}

func (c *Container) nextFreezer(q ask) Step {
	switch verb := c.freezerVerb(); verb {
	case "freeze":
		return Freeze{c.execStep(q, freezerSlot, verb, c.Paused.Turn), c.ID, c.Process.Run}
	case "thaw":
		return Thaw{c.execStep(q, freezerSlot, verb, c.Paused.Turn), c.ID, c.Process.Run}
	}
	return nil
}

func (c *Container) nextUpdate(q ask) Step {
	if verb := c.updateVerb(); verb != "" {
		return UpdateResources{c.execStep(q, limitsSlot, verb, c.Update.Turn), c.ID, c.Process.Run, *c.Update.Wanted}
	}
	return nil
}

func (c *Container) nextWatch(q ask) Step {
	switch verb := c.watchVerb(); verb {
	case "watch":
		return c.watchHealth(c.execStep(q, healthSlot, verb, c.Watch.Turn))
	case "unwatch":
		return UnwatchHealth{c.execStep(q, healthSlot, verb, c.Watch.Turn), c.ID, c.Watch.Run}
	}
	return nil
}

func (c *Container) nextNet(q ask, i int) Step {
	slot := &c.Nets[i]
	verb := c.netVerb(i)
	if verb == "" {
		return nil
	}
	network := q.Networks[slot.Network]
	if network == nil {
		return nil
	}
	id := q.id(c.ID.noun(), slot.slotName(), verb, slot.Turn, "net", network.Driver)
	if verb == "detach" {
		return DetachNetwork{id, c.ID, slot.Run, slot.Network}
	}
	if network.Slot.State != Held {
		return nil // the network comes first; its fold names us as dependents
	}
	host, names := c.hostNames()
	return AttachNetwork{
		owedStep: id, Container: c.ID, Run: slot.Run, Network: slot.Network,
		Hostname: host, Names: names, Address: slot.Address, UserNS: c.UserNS.Namespace,
	}
}

func (c *Container) nextProcess(q ask) Step {
	p := &c.Process
	verb := c.processVerb()
	if verb == "" {
		return nil
	}
	turn := p.Turn
	if verb == "kill" {
		turn = p.Kills[0].Seq
	}
	id := c.execStep(q, processSlot, verb, turn)
	switch verb {
	case "start":
		shares, endpoint, ok := c.shares(q.State)
		if !ok {
			return nil // another one comes first; its folds name us
		}
		return StartProcess{
			owedStep: id, Container: c.ID, Run: p.Run, Name: c.Name, Hostname: c.lentHostname(q.State), Rootfs: c.Rootfs.Mounts,
			Endpoint: endpoint, Spec: c.Spec, Attach: c.Attach,
			IDMap: c.idMap(), UserNS: c.UserNS.Namespace, Shares: shares, LogEnd: c.logEnd(),
		}
	case "kill":
		return SignalProcess{owedStep: id, Container: c.ID, Run: p.Run, Signal: p.Kills[0].Signal}
	case "signal":
		return SignalProcess{owedStep: id, Container: c.ID, Run: p.Run, Signal: p.Stop.Signal}
	case "wait":
		length := p.Stop.wait()
		id.DriverKind, id.DriverName = "", ""
		return Wait{id, p.Since.Add(length), length}
	case "release", "purge":
		return ReleaseProcess{owedStep: id, Container: c.ID, Run: p.Run, RemoveLog: verb == "purge"}
	}
	return nil
}

// slotName is the slot's part of a step id.
func (n *NetSlot) slotName() string { return "net-" + string(n.Network)[:12] }

// endpoint is what the networks together give the process: the first one's
// namespace, and everybody's files.
func (c *Container) endpoint() Endpoint {
	var e Endpoint
	for i := range c.Nets {
		n := &c.Nets[i]
		if i == 0 {
			e.Namespace, e.Interface = n.Endpoint.Namespace, n.Endpoint.Interface
		}
		e.Files = append(e.Files, n.Endpoint.Files...)
	}
	return e
}

// hostname is what the container calls itself.
func (c *Container) hostname() string {
	if c.Spec.Network.Hostname != "" {
		return c.Spec.Network.Hostname
	}
	return string(c.ID)[:12]
}

// hostNames are what the hosts file calls the container. As Docker writes it the name
// with its domain comes first: that one is found by hostname -f.
func (c *Container) hostNames() (host string, others []string) {
	host = c.hostname()
	if domain := c.Spec.Network.Domain; domain != "" {
		host += "." + domain
	}
	if bare, _, qualified := strings.Cut(host, "."); qualified {
		others = append(others, bare)
	}
	return host, append(others, c.Name)
}

// wait is how long to wait for the end after the signal that was sent last: the
// grace that was asked for, then after each SIGKILL twice as long, to 5 min.
// Only a process in an uninterruptible sleep outlives the first.
func (st Stopping) wait() time.Duration {
	if st.Round == 0 {
		return st.Grace
	}
	return min(10*time.Second<<min(st.Round-1, 5), 5*time.Minute)
}
