package core

import (
	"net/netip"

	"github.com/containerd/errdefs"
)

// NewNetwork makes a network.
type NewNetwork struct {
	ID       NetworkID         `json:"id"`
	Name     string            `json:"name"`
	Driver   string            `json:"driver,omitempty"` // "": bridge
	Subnet   netip.Prefix      `json:"subnet,omitzero"`  // zero: one out of the engine's pool
	Gateway  netip.Addr        `json:"gateway,omitzero"` // zero: the first address
	Internal bool              `json:"internal,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

func (*NewNetwork) name() string { return "network.create" }

func (c *NewNetwork) subject(*State) Noun { return c.ID.noun() }

func (c *NewNetwork) decide(s *State, _ Request) ([]Event, error) {
	if err := checkHexID("network", string(c.ID)); err != nil {
		return nil, err
	}
	if err := checkName("network", c.Name); err != nil {
		return nil, err
	}
	if s.Networks[c.ID] != nil {
		return nil, refuse(errdefs.ErrAlreadyExists, "network id %s is in use: make another", c.ID)
	}
	if _, ok := s.nets[c.Name]; ok {
		return nil, refuse(errdefs.ErrAlreadyExists, "network with name %s already exists", c.Name)
	}
	e := &NetworkCreated{
		Header: about(c.ID.noun()), NetworkName: c.Name, Driver: c.Driver, Subnet: c.Subnet.Masked(),
		Gateway: c.Gateway, Internal: c.Internal, Options: c.Options, Labels: c.Labels,
	}
	if e.Driver == "" {
		e.Driver = "bridge"
	}
	if !c.Subnet.IsValid() {
		e.Subnet = netip.Prefix{}
	}
	if e.Driver == "host" || e.Driver == "null" {
		return nil, refuse(errdefs.ErrInvalidArgument, "only one network of driver %q can be: the built-in one", e.Driver)
	}
	if err := s.needDriver("net", e.Driver); err != nil {
		return nil, err
	}
	if err := s.place(e); err != nil {
		return nil, err
	}
	return []Event{e}, nil
}

// place finds a subnet and a gateway for a new network, or checks those given.
func (s *State) place(e *NetworkCreated) error {
	if !e.Subnet.IsValid() {
		p, err := s.freeSubnet()
		if err != nil {
			return err
		}
		e.Subnet = p
	}
	if !e.Subnet.Addr().Is4() || e.Subnet.Bits() > 30 {
		return refuse(errdefs.ErrInvalidArgument, "subnet %v: use an IPv4 subnet of /30 or larger", e.Subnet)
	}
	if n := s.overlapping(e.Subnet); n != nil {
		return refuse(errdefs.ErrConflict, "subnet %v overlaps with that of network %s (%v)", e.Subnet, n.Name, n.Subnet)
	}
	if !e.Gateway.IsValid() {
		e.Gateway = e.Subnet.Addr().Next()
	}
	if !e.Subnet.Contains(e.Gateway) || e.Gateway == e.Subnet.Addr() || e.Gateway == lastAddress(e.Subnet) {
		return refuse(errdefs.ErrInvalidArgument, "gateway %v is not an address of a machine in subnet %v", e.Gateway, e.Subnet)
	}
	return nil
}

func (s *State) overlapping(p netip.Prefix) *Network {
	for _, n := range s.Networks {
		if n.Subnet.IsValid() && n.Subnet.Overlaps(p) {
			return n
		}
	}
	return nil
}

// freeSubnet is the first subnet of the engine's pool that no network has.
func (s *State) freeSubnet() (netip.Prefix, error) {
	pool, bits := s.Engine.Pool, s.Engine.PoolBits
	at := pool.Masked().Addr()
	for at.IsValid() && pool.Contains(at) {
		p := netip.PrefixFrom(at, bits)
		if s.overlapping(p) == nil {
			return p, nil
		}
		at = lastAddress(p).Next()
	}
	return netip.Prefix{}, refuse(errdefs.ErrResourceExhausted,
		"no subnet is left in the pool %v: remove networks, or name a subnet of your own", pool)
}

// NetworkCreated says that a network is to be.
type NetworkCreated struct {
	Header
	NetworkName string            `json:"name"`
	Driver      string            `json:"driver"`
	Builtin     bool              `json:"builtin,omitempty"`
	Subnet      netip.Prefix      `json:"subnet,omitzero"`
	Gateway     netip.Addr        `json:"gateway,omitzero"`
	Internal    bool              `json:"internal,omitempty"`
	Options     map[string]string `json:"options,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
}

func (*NetworkCreated) name() string { return "network.created" }

func (e *NetworkCreated) apply(s *State) []Noun {
	n := &Network{
		ID: NetworkID(e.ID), Name: e.NetworkName, Driver: e.Driver, Builtin: e.Builtin, Subnet: e.Subnet,
		Gateway: e.Gateway, Internal: e.Internal, Options: e.Options, Labels: e.Labels,
		Want: Present, Slot: Slot{Turn: e.Seq}, used: make(map[netip.Addr]ContainerID),
	}
	if !e.Builtin {
		n.Jobs = jobs(e.Job)
	}
	s.Networks[n.ID] = n
	s.nets[n.Name] = n.ID
	return []Noun{n.ID.noun()}
}

// NetworkUp says that a network is made on the machine.
type NetworkUp struct{ Header }

func (*NetworkUp) name() string { return "network.up" }

func (e *NetworkUp) apply(s *State) []Noun {
	n := s.Networks[NetworkID(e.ID)]
	n.Slot = Slot{Held, e.Seq}
	return s.dependents(n)
}

// dependents are the network and the containers whose steps wait for it.
func (s *State) dependents(n *Network) []Noun {
	touched := []Noun{n.ID.noun()}
	for _, c := range s.attached(n.ID) {
		touched = append(touched, c.ID.noun())
	}
	return touched
}

func (st CreateNetwork) finish(s *State, r *FinishStep) []Event {
	n := s.Networks[st.Network]
	if r.Fault == nil {
		return append([]Event{&NetworkUp{Header: about(n.ID.noun())}}, endJobs(n.Jobs, JobDone, "", nil)...)
	}
	fault := *r.Fault
	fault.Step = st.StepID
	failed := &NetworkFailed{Header: about(n.ID.noun()), Fault: fault, Stays: len(n.Jobs) == 0 || s.hasContainers(n.ID)}
	events := append([]Event{failed}, endJobs(n.Jobs, JobFailed, "", &fault)...)
	if r.Untaken && !failed.Stays && !n.Builtin {
		return append(events, &NetworkRemoved{Header: about(n.ID.noun())})
	}
	for _, c := range s.attached(n.ID) {
		if c.climbing() && !c.Running() && c.net(n.ID).State != Held {
			events = append(events, s.startFailed(c.ID, st.StepID, &fault)...)
		}
	}
	return events
}

// hasContainers reports whether a container was made on the network.
func (s *State) hasContainers(id NetworkID) bool {
	for _, c := range s.Containers {
		if c.net(id) != nil {
			return true
		}
	}
	return false
}

// NetworkFailed says that a network could not be made. One that stays is tried again
// when the next container needs it: a built-in one, one that was made before and was
// lost, or one that containers were made on. Another one goes.
type NetworkFailed struct {
	Header
	Fault Fault `json:"fault"`
	Stays bool  `json:"stays,omitempty"` // although it is not built in
}

func (*NetworkFailed) name() string { return "network.failed" }

func (e *NetworkFailed) apply(s *State) []Noun {
	n := s.Networks[NetworkID(e.ID)]
	n.Slot, n.Used = Slot{Unsure, e.Seq}, false
	switch {
	case n.Builtin:
	case e.Stays:
		n.Fault = &e.Fault
	default:
		n.Want = Removed
		s.freeNetworkName(n)
	}
	return s.dependents(n)
}

func (s *State) freeNetworkName(n *Network) {
	if s.nets[n.Name] == n.ID {
		delete(s.nets, n.Name)
	}
}
