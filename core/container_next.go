package core

import "time"

// The names of the drivers that the engine uses for every container. They are
// chosen when the engine's log begins.
type Choice struct {
	Graph string `json:"graph"`
	Exec  string `json:"exec"`
	Image string `json:"image"`
}

// asked reports whether the steps of a slot are asked for: those of one, or of all.
func asked(only, slot string) bool { return only == "" || only == slot }

// next lists what the container owes, or what one slot of it owes.
func (c *Container) next(s *State, only string) []Step {
	var steps []Step
	n := c.ID.noun()
	graph, exec := s.Engine.Drivers.Graph, s.Engine.Drivers.Exec
	switch verb := c.usernsVerb(); verb {
	case "hold":
		steps = append(steps, HoldUserNS{owed(stepID(n, "userns", verb, c.UserNS.Turn), "exec", exec), c.ID, c.idMap()})
	case "release":
		steps = append(steps, ReleaseUserNS{owed(stepID(n, "userns", verb, c.UserNS.Turn), "exec", exec), c.ID})
	}
	switch verb := c.rootfsVerb(); {
	case !asked(only, "rootfs"):
	case verb == "prepare":
		steps = append(steps, PrepareRootfs{
			owedStep:  owed(stepID(n, "rootfs", verb, c.Rootfs.Turn), "graphdriver", graph),
			Container: c.ID, Layer: c.Layer, IDMap: c.idMap(), Targets: c.Spec.targets(),
		})
	case verb == "release":
		steps = append(steps, ReleaseRootfs{owed(stepID(n, "rootfs", verb, c.Rootfs.Turn), "graphdriver", graph), c.ID})
	}
	for i := range c.Nets {
		if st := c.nextNet(s, i, only); st != nil {
			steps = append(steps, st)
		}
	}
	if asked(only, "process") {
		if st := c.nextProcess(s, exec); st != nil {
			steps = append(steps, st)
		}
	}
	if verb := c.logVerb(); verb != "" {
		steps = append(steps, RemoveLog{owed(stepID(n, "log", verb, c.Log.Turn), "exec", exec), c.ID})
	}
	if c.backoffVerb() != "" {
		b := &c.Backoff
		steps = append(steps, Wait{owed(stepID(n, backoffSlot, "wait", b.Turn), "", ""), b.Since.Add(b.Length), b.Length})
	}
	return c.nextBeside(steps, exec)
}

// nextBeside adds what is owed for what a running process has beside it.
func (c *Container) nextBeside(steps []Step, exec string) []Step {
	id := func(slot, verb string, turn uint64) owedStep {
		return owed(stepID(c.ID.noun(), slot, verb, turn), "exec", exec)
	}
	switch verb := c.freezerVerb(); verb {
	case "freeze":
		steps = append(steps, Freeze{id(freezerSlot, verb, c.Paused.Turn), c.ID, c.Process.Run})
	case "thaw":
		steps = append(steps, Thaw{id(freezerSlot, verb, c.Paused.Turn), c.ID, c.Process.Run})
	}
	if verb := c.updateVerb(); verb != "" {
		steps = append(steps, UpdateResources{id("limits", verb, c.Update.Turn), c.ID, c.Process.Run, *c.Update.Wanted})
	}
	switch verb := c.watchVerb(); verb {
	case "watch":
		steps = append(steps, c.watchHealth(id("health", verb, c.Watch.Turn)))
	case "unwatch":
		steps = append(steps, UnwatchHealth{id("health", verb, c.Watch.Turn), c.ID, c.Watch.Run})
	}
	for i := range c.Execs {
		if st := c.nextExec(i, exec); st != nil {
			steps = append(steps, st)
		}
	}
	return steps
}

// backoffSlot is the slot of the wait before the next run.
const backoffSlot = "backoff"

// freezerSlot is the slot of what makes the processes stand still.
const freezerSlot = "freezer"

func (c *Container) nextNet(s *State, i int, only string) Step {
	slot := &c.Nets[i]
	verb := c.netVerb(i)
	network := s.Networks[slot.Network]
	if verb == "" || network == nil || !asked(only, slot.slotName()) {
		return nil
	}
	id := owed(stepID(c.ID.noun(), slot.slotName(), verb, slot.Turn), "net", network.Driver)
	if verb == "detach" {
		return DetachNetwork{id, c.ID, slot.Run, slot.Network}
	}
	if network.Slot.State != Held {
		return nil // the network comes first; its fold names us as dependents
	}
	return AttachNetwork{
		owedStep: id, Container: c.ID, Run: slot.Run, Network: slot.Network,
		Hostname: c.Hostname(), Names: []string{c.Name}, Address: slot.Address, UserNS: c.UserNS.Namespace,
	}
}

func (c *Container) nextProcess(s *State, exec string) Step {
	p := &c.Process
	verb := c.processVerb()
	if verb == "" {
		return nil
	}
	id := owed(stepID(c.ID.noun(), "process", verb, p.Turn), "exec", exec)
	switch verb {
	case "start":
		shares, endpoint, ok := c.shares(s)
		if !ok {
			return nil // another one comes first; its folds name us
		}
		return StartProcess{
			owedStep: id, Container: c.ID, Run: p.Run, Name: c.Name, Rootfs: c.Rootfs.Mounts,
			Endpoint: endpoint, Spec: c.Spec, Attach: c.Attach,
			IDMap: c.idMap(), UserNS: c.UserNS.Namespace, Shares: shares,
		}
	case "kill":
		k := p.Kills[0]
		id.StepID = stepID(c.ID.noun(), "process", verb, k.Seq)
		return SignalProcess{owedStep: id, Container: c.ID, Run: p.Run, Signal: k.Signal}
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

// Hostname is what the container calls itself.
func (c *Container) Hostname() string {
	if c.Spec.Network.Hostname != "" {
		return c.Spec.Network.Hostname
	}
	return string(c.ID)[:12]
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
