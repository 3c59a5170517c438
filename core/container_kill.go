package core

import "github.com/containerd/errdefs"

// KillContainer delivers a signal. It turns no want: what the process makes of
// the signal is its own affair.
type KillContainer struct {
	ID     ContainerID `json:"id"`
	Exec   ExecID      `json:"exec,omitempty"` // an exec's process in the place of the container's own
	Signal int         `json:"signal"`
}

func (*KillContainer) name() string { return "container.kill" }

func (c *KillContainer) subject(*State) Noun { return c.ID.noun() }

// maxKills bounds the signals that wait for their delivery.
const maxKills = 64

func (c *KillContainer) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.ID]
	switch {
	case k == nil:
		return nil, notFound("container", string(c.ID))
	case c.Signal < 1 || c.Signal > 64:
		return nil, refuse(errdefs.ErrInvalidArgument, "signal %d is not between 1 and 64", c.Signal)
	case c.Exec != "":
		return c.decideExec(k)
	case !k.Running():
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is not running", k.Name)
	case len(k.Process.Kills) >= maxKills:
		return nil, refuse(errdefs.ErrResourceExhausted, "container %s has %d signals waiting to be delivered", k.Name, maxKills)
	}
	events := []Event{&ContainerKillWanted{Header: about(k.ID.noun()), Signal: c.Signal}}
	if k.ends(c.Signal) { // it is thawed
		events = append(events, endJobs(k.Paused.Jobs, JobSuperseded, r.Job, nil)...)
	}
	return events, nil
}

func (c *KillContainer) decideExec(k *Container) ([]Event, error) {
	x := k.exec(c.Exec)
	switch {
	case x == nil:
		return nil, notFound("exec", string(c.Exec))
	case x.State != Held || x.Exited:
		return nil, refuse(errdefs.ErrFailedPrecondition, "exec %.12s of container %s is not running", c.Exec, k.Name)
	case len(x.Kills) >= maxKills:
		return nil, refuse(errdefs.ErrResourceExhausted, "exec %.12s has %d signals waiting to be delivered", c.Exec, maxKills)
	}
	return []Event{&ContainerKillWanted{Header: about(k.ID.noun()), Exec: c.Exec, Signal: c.Signal}}, nil
}

// ends reports whether somebody who sends the signal wants the container to end,
// as people know it from Docker.
func (c *Container) ends(signal int) bool {
	return signal == sigkill || signal == c.stopSignal()
}

// stopSignal is what asks the process to end.
func (c *Container) stopSignal() int {
	if c.Spec.Process.StopSignal != 0 {
		return c.Spec.Process.StopSignal
	}
	return sigterm
}

// ContainerKillWanted says that a signal is to be delivered.
type ContainerKillWanted struct {
	Header
	Exec   ExecID `json:"exec,omitempty"`
	Signal int    `json:"signal"`
}

func (*ContainerKillWanted) name() string { return "container.kill-wanted" }

func (e *ContainerKillWanted) apply(s *State) []Noun {
	if e.Exec != "" {
		return s.foldExec(&e.Header, e.Exec, func(x *Exec) {
			x.Kills = append(x.Kills[:len(x.Kills):len(x.Kills)], Kill{e.Signal, e.Job, e.Seq})
		})
	}
	return s.fold(&e.Header, func(c *Container) {
		if c.ends(e.Signal) {
			c.ByHand = true
			c.Paused.turn(false, "")
		}
		kills := append([]Kill(nil), c.Process.Kills...)
		c.Process.Kills = append(kills, Kill{e.Signal, e.Job, e.Seq})
	})
}
