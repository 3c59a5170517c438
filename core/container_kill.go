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
	case !k.Running():
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is not running", k.Name)
	case len(k.Process.Kills) >= maxKills:
		return nil, refuse(errdefs.ErrResourceExhausted, "container %s has %d signals waiting to be delivered", k.Name, maxKills)
	}
	return []Event{&ContainerKillWanted{Header: about(k.ID.noun()), Signal: c.Signal}}, nil
}

// ContainerKillWanted says that a signal is to be delivered.
type ContainerKillWanted struct {
	Header
	Signal int `json:"signal"`
}

func (*ContainerKillWanted) name() string { return "container.kill-wanted" }

func (e *ContainerKillWanted) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		kills := append([]Kill(nil), c.Process.Kills...)
		c.Process.Kills = append(kills, Kill{e.Signal, e.Job, e.Seq})
	})
}
