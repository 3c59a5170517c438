package core

import (
	"net/netip"
	"sort"
	"strings"

	"github.com/containerd/errdefs"
)

// Network is one network. The built-in ones are made on the machine when the
// first container needs them, and given back when the engine stops and none
// does; all others are made at once and stay.
type Network struct {
	ID       NetworkID         `json:"id"`
	Name     string            `json:"name"`
	Driver   string            `json:"driver"`
	Builtin  bool              `json:"builtin,omitempty"` // cannot be removed
	Subnet   netip.Prefix      `json:"subnet,omitzero"`
	Gateway  netip.Addr        `json:"gateway,omitzero"`
	Internal bool              `json:"internal,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`

	Want Want `json:"want"`
	Used bool `json:"used,omitempty"` // somebody has needed it
	// Fault is why it could not be made; it is not tried again until somebody needs it.
	Fault *Fault     `json:"fault,omitempty"`
	Jobs  []JobID    `json:"jobs,omitempty"`
	Slot  Slot       `json:"slot,omitzero"`
	Last  netip.Addr `json:"last,omitzero"` // the address allotted last: the next one is sought behind it

	used map[netip.Addr]ContainerID // addresses in use; index over the containers
}

// Address is what a container has in a network.
type Address struct {
	IP      netip.Prefix `json:"ip,omitzero"` // with the subnet's length
	Gateway netip.Addr   `json:"gateway,omitzero"`
	MAC     string       `json:"mac,omitempty"`
}

func (id NetworkID) noun() Noun { return Noun{KindNetwork, string(id)} }

func (n *Network) verb() string {
	switch {
	case n.Slot.State == Unsure, n.Slot.State == Held && (n.Want == Removed || n.Builtin && !n.Used):
		return "remove"
	case n.Slot.State == Absent && n.Want == Present && (n.Used || !n.Builtin && n.Fault == nil):
		return "create"
	}
	return ""
}

func (n *Network) next(s *State) []Step {
	verb := n.verb()
	if verb == "remove" && n.Want == Removed && s.holdsEndpoint(n.ID) {
		return nil // the endpoints go first; their folds name us as dependents
	}
	if verb == "" {
		return nil
	}
	id := owed(stepID(n.ID.noun(), "network", verb, n.Slot.Turn), "net", n.Driver)
	switch verb {
	case "create":
		c := CreateNetwork{owedStep: id, Network: n.ID, Name: n.Name, Internal: n.Internal, Options: n.Options}
		if n.Subnet.IsValid() {
			c.Subnet, c.Gateway = n.Subnet.String(), n.Gateway.String()
		}
		return []Step{c}
	default:
		return []Step{RemoveNetwork{id, n.ID}}
	}
}

func (s *State) holdsEndpoint(id NetworkID) bool {
	for _, c := range s.Containers {
		if slot := c.net(id); slot != nil && slot.State != Absent {
			return true
		}
	}
	return false
}

// turn changes the network by f; a creation or removal that may be running when
// that turns what is owed leaves the slot unsure.
func (n *Network) turn(seq uint64, f func()) {
	was := n.verb()
	f()
	if was != "" && n.verb() != was {
		n.Slot.State = Unsure
	}
	if n.verb() != was {
		n.Slot.Turn = seq
	}
}

// use says that somebody needs the network.
func (n *Network) use(seq uint64) {
	n.turn(seq, func() { n.Used, n.Fault = true, nil })
}

// allot finds a free address: the next one behind the last allotted, so that an
// address is not given again at once. It changes nothing.
func (n *Network) allot() (Address, error) {
	if !n.Subnet.IsValid() {
		return Address{}, nil
	}
	first := n.Subnet.Masked().Addr().Next()
	last := lastAddress(n.Subnet)
	at := n.Last
	if !at.IsValid() {
		at = n.Subnet.Masked().Addr()
	}
	for range addressesTried(n.Subnet) {
		at = at.Next()
		if !at.Less(last) || !n.Subnet.Contains(at) { // the last one is for broadcasts
			at = first
		}
		if _, taken := n.used[at]; !taken && at != n.Gateway && at.Less(last) {
			return Address{netip.PrefixFrom(at, n.Subnet.Bits()), n.Gateway, macOf(at)}, nil
		}
	}
	return Address{}, refuse(errdefs.ErrResourceExhausted, "no free address is left in network %s (%v): remove containers, or use a larger subnet", n.Name, n.Subnet)
}

// addressesTried bounds the search: everything in small subnets.
func addressesTried(p netip.Prefix) int {
	return 1 << min(p.Addr().BitLen()-p.Bits(), 16)
}

// lastAddress is the highest address of p.
func lastAddress(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// macOf derives a locally administered hardware address from an IPv4 address,
// as Docker does: 02:42 and its four bytes.
func macOf(a netip.Addr) string {
	if !a.Is4() {
		return ""
	}
	const digits = "0123456789abcdef"
	b := a.As4()
	mac := append(make([]byte, 0, len("02:42:ac:11:00:02")), "02:42"...)
	for _, n := range b {
		mac = append(mac, ':', digits[n>>4], digits[n&15])
	}
	return string(mac)
}

func (s *State) holdAddress(slot NetSlot, id ContainerID) {
	n := s.Networks[slot.Network]
	if n == nil || !slot.Address.IP.IsValid() {
		return
	}
	n.used[slot.Address.IP.Addr()] = id
}

// freeAddress gives back what the slot has, if it has an address.
func (s *State) freeAddress(slot *NetSlot) {
	if n := s.Networks[slot.Network]; n != nil && slot.Address.IP.IsValid() {
		delete(n.used, slot.Address.IP.Addr())
	}
	slot.Address = Address{}
}

// FindNetwork finds a network by name, id, or a unique prefix of its id.
func (s *State) FindNetwork(ref string) (*Network, error) {
	if id, ok := s.nets[ref]; ok {
		return s.Networks[id], nil
	}
	var hit *Network
	for id, n := range s.Networks {
		if n.Want == Removed || ref == "" || !strings.HasPrefix(string(id), ref) {
			continue
		}
		if hit != nil {
			return nil, refuse(errdefs.ErrInvalidArgument, "network id prefix %q is ambiguous: give more digits", ref)
		}
		hit = n
	}
	if hit == nil {
		return nil, notFound("network", ref)
	}
	return hit, nil
}

// FindContainer finds a container by name, id, or a unique prefix of its id.
func (s *State) FindContainer(ref string) (*Container, error) {
	if id, ok := s.names[ref]; ok {
		return s.Containers[id], nil
	}
	if c := s.Containers[ContainerID(ref)]; c != nil {
		return c, nil
	}
	var hit *Container
	for id, c := range s.Containers {
		if ref == "" || !strings.HasPrefix(string(id), ref) {
			continue
		}
		if hit != nil {
			return nil, refuse(errdefs.ErrInvalidArgument, "container id prefix %q is ambiguous: give more digits", ref)
		}
		hit = c
	}
	if hit == nil {
		return nil, notFound("container", ref)
	}
	return hit, nil
}

// attached lists the containers that hold, or are about to hold, an endpoint of
// the network, in a stable order.
func (s *State) attached(id NetworkID) []*Container {
	var all []*Container
	for _, c := range s.Containers {
		if n := c.net(id); n != nil && (n.State != Absent || c.Want == Running) {
			all = append(all, c)
		}
	}
	sort.Slice(all, func(i, k int) bool { return all[i].ID < all[k].ID })
	return all
}
