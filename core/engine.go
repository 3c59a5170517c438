package core

import (
	"net/netip"

	"github.com/containerd/errdefs"
)

// Engine is what the log says of the engine itself.
type Engine struct {
	ID       string       `json:"id"` // UUID; the mark on everything that drivers hold for it
	Name     string       `json:"name"`
	Drivers  Choice       `json:"drivers"`
	Pool     netip.Prefix `json:"pool,omitzero"`       // subnets of new networks come from here
	PoolBits int          `json:"pool_bits,omitempty"` // length of such a subnet
	IDs      IDPool       `json:"ids,omitzero"`        // ids of private user namespaces come from here; zero: the default pool

	Version string `json:"version,omitempty"` // of the program that runs
	BootID  string `json:"boot_id,omitempty"`
	Epoch   uint64 `json:"epoch,omitempty"` // sequence of its engine.started: results of older ones are refused
}

// StartEngine is the first command of every engine process. The first of all
// begins the log.
type StartEngine struct {
	ID       string       `json:"id"` // the next five only begin a log; afterwards the log's word holds
	Name     string       `json:"name"`
	Drivers  Choice       `json:"drivers"`
	Pool     netip.Prefix `json:"pool"`
	PoolBits int          `json:"pool_bits"`
	IDs      IDPool       `json:"ids,omitzero"` // zero: the default pool

	Networks [3]NetworkID `json:"networks"` // ids for the built-in networks: bridge, host, none
	Version  string       `json:"version"`
	BootID   string       `json:"boot_id"`
}

func (*StartEngine) name() string { return "engine.start" }

func (c *StartEngine) decide(s *State, r Request) ([]Event, error) {
	var events []Event
	if s.Engine.ID == "" {
		first, err := c.begin()
		if err != nil {
			return nil, err
		}
		events = first
	} else if c.Name != s.Engine.Name {
		return nil, refuse(errdefs.ErrFailedPrecondition, "this directory belongs to the engine named %q, not %q: start it with --name %s, or use another --root",
			s.Engine.Name, c.Name, s.Engine.Name)
	}
	id := c.ID
	if s.Engine.ID != "" {
		id = s.Engine.ID
	}
	started := &EngineStarted{Header: about(Noun{KindEngine, id}), Version: c.Version, BootID: c.BootID}
	events = append(events, started)
	if s.Engine.BootID != "" && s.Engine.BootID != c.BootID {
		events = append(events, s.rebooted(r)...)
	}
	return events, nil
}

// begin is how a log begins.
func (c *StartEngine) begin() ([]Event, error) {
	if c.ID == "" || !c.Pool.IsValid() || !c.Pool.Addr().Is4() || c.PoolBits < c.Pool.Bits() || c.PoolBits > 30 {
		return nil, refuse(errdefs.ErrInvalidArgument, "an engine begins with an id and an IPv4 pool, not with %q and %v/%d", c.ID, c.Pool, c.PoolBits)
	}
	if err := c.IDs.check(); err != nil {
		return nil, err
	}
	events := []Event{&EngineInitialized{
		Header: about(Noun{KindEngine, c.ID}), EngineName: c.Name, Drivers: c.Drivers, Pool: c.Pool.Masked(), PoolBits: c.PoolBits,
		IDs: c.IDs.orDefault(),
	}}
	subnet := netip.PrefixFrom(c.Pool.Masked().Addr(), c.PoolBits)
	for i, n := range []NetworkCreated{
		{NetworkName: "bridge", Driver: "bridge", Subnet: subnet, Gateway: subnet.Addr().Next()},
		{NetworkName: "host", Driver: "host"},
		{NetworkName: "none", Driver: "null"},
	} {
		n.Header, n.Builtin = about(c.Networks[i].noun()), true
		events = append(events, &n)
	}
	return events, nil
}

// EngineInitialized is the first event of every log.
type EngineInitialized struct {
	Header
	EngineName string       `json:"name"`
	Drivers    Choice       `json:"drivers"`
	Pool       netip.Prefix `json:"pool"`
	PoolBits   int          `json:"pool_bits"`
	IDs        IDPool       `json:"ids,omitzero"`
}

func (*EngineInitialized) name() string { return "engine.initialized" }

func (e *EngineInitialized) apply(s *State) []Noun {
	s.Engine = Engine{ID: e.ID, Name: e.EngineName, Drivers: e.Drivers, Pool: e.Pool, PoolBits: e.PoolBits, IDs: e.IDs}
	return nil
}

// EngineStarted says that an engine process took over; its sequence is the
// epoch that steps and results carry.
type EngineStarted struct {
	Header
	Version string `json:"version"`
	BootID  string `json:"boot_id"`
}

func (*EngineStarted) name() string { return "engine.started" }

func (e *EngineStarted) apply(s *State) []Noun {
	s.Engine.Version, s.Engine.BootID, s.Engine.Epoch = e.Version, e.BootID, e.Seq
	for _, d := range s.Drivers {
		d.Instance, d.PID = "", 0
	}
	return s.watchersGone(&e.Header)
}

// rebooted: the machine was restarted. Processes, namespaces, endpoints and
// networks are gone with it; layers and what containers have written are on disk.
// Containers whose policy says so start again: those that share namespaces wait
// for the ones they share with (Container.shares).
func (s *State) rebooted(r Request) []Event {
	var events []Event
	for _, n := range s.Nouns() {
		switch n.Kind {
		case KindContainer:
			c := s.Containers[ContainerID(n.ID)]
			lost := Exit{Code: 255, Lost: true, Reason: "machine restarted", Time: r.Time}
			events = append(events, c.execsLost(lost, nil)...)
			plan := c.restartAtBoot()
			switch {
			case c.Running():
				lost.Run = c.Process.Run
				events = append(events, c.endRun(lost, plan)...)
			case plan != nil:
				events = append(events, plan)
			}
			if c.UserNS.State == Held {
				events = append(events, &UserNSLost{Header: about(n)})
			}
			for i := range c.Nets {
				if c.Nets[i].State == Held {
					events = append(events, &NetworkLost{Header: about(n), Network: c.Nets[i].Network})
				}
			}
		case KindNetwork:
			if w := s.Networks[NetworkID(n.ID)]; w.Want == Present && w.Slot.State == Held {
				events = append(events, &NetworkGone{Header: about(n)})
			}
		}
	}
	return events
}
