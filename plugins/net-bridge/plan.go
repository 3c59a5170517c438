package bridge

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"

	"github.com/gantryd/gantry/sdk/netdriver"
)

// bridgeState is a bridge as it was found; the zero value is one that is
// not there.
type bridgeState struct {
	Index int // 0: missing
	Name  string
	Alias string
	MTU   int
	Up    bool
	Runs  bool // has carrier: some port is up
	Addrs []netip.Prefix
	Ports int
	IPv6  bool // it speaks IPv6
}

func (b bridgeState) hasAddr(p netip.Prefix) bool {
	for _, a := range b.Addrs {
		if a == p {
			return true
		}
	}
	return false
}

// route is a part of the address space that is taken on this machine.
type route struct {
	Prefix netip.Prefix
	Index  int    // of the link it leads to
	Link   string // its name, for the message
}

// settings are a network's options, read.
type settings struct {
	MTU    int // 0 for the kernel's default
	NoMasq bool
}

// Docker's names of the options known here.
const (
	optionMTU  = "com.docker.network.driver.mtu"
	optionMasq = "com.docker.network.bridge.enable_ip_masquerade"
)

func readOptions(options map[string]string) (settings, error) {
	var s settings
	for name, value := range options {
		switch name {
		case optionMTU:
			mtu, err := strconv.Atoi(value)
			if err != nil || mtu < 68 || mtu > 65535 { // 68: RFC 791
				return s, driver.Errorf(errdefs.ErrInvalidArgument, "option %s=%q: not a number from 68 to 65535", name, value)
			}
			s.MTU = mtu
		case optionMasq:
			on, err := strconv.ParseBool(value)
			if err != nil {
				return s, driver.Errorf(errdefs.ErrInvalidArgument, "option %s=%q: neither true nor false", name, value)
			}
			s.NoMasq = !on
		default:
			return s, driver.Errorf(errdefs.ErrInvalidArgument, "the bridge driver does not know the option %q", name)
		}
	}
	return s, nil
}

// planNetwork lists what is missing of a network, given its bridge as found
// and all routes of the machine.
func planNetwork(engineID, engineName string, n netdriver.Network, found bridgeState, routes []route) ([]op, error) {
	set, err := readOptions(n.Options)
	if err != nil {
		return nil, err
	}
	if err := checkSubnet(n); err != nil {
		return nil, err
	}
	name := bridgeName(engineName, n.ID)
	want := mark{Engine: engineID, Network: n.ID, Internal: n.Internal, NoMasq: set.NoMasq}
	if err := checkOwned(found, want); err != nil {
		return nil, err
	}
	if r, taken := overlap(n.Subnet, routes, found.Index); taken {
		return nil, driver.Errorf(errdefs.ErrAlreadyExists, "subnet %s overlaps %s of %s on this machine; choose another with --subnet", n.Subnet, r.Prefix, r.Link)
	}
	var ops []op
	if found.Index == 0 {
		ops = append(ops, addBridge{Name: name, MAC: bridgeMAC(name).String()}, noIPv6{Link: name})
	} else if found.IPv6 {
		ops = append(ops, noIPv6{Link: name})
	}
	// Told when it is there: one that it was made with would follow its ports', and
	// be lost with the last of them (br_change_mtu of the kernel).
	if set.MTU != 0 && set.MTU != found.MTU {
		ops = append(ops, setMTU{Name: name, MTU: set.MTU})
	}
	if found.Alias != want.String() {
		ops = append(ops, setAlias{Name: name, Alias: want.String()})
	}
	if addr := netip.PrefixFrom(n.Gateway, n.Subnet.Bits()); !found.hasAddr(addr) {
		ops = append(ops, addAddr{Link: name, Addr: addr})
	}
	if !found.Up {
		ops = append(ops, setUp{Link: name})
	}
	return ops, nil
}

func checkSubnet(n netdriver.Network) error {
	switch {
	case !n.Subnet.IsValid():
		return driver.Errorf(errdefs.ErrInvalidArgument, "network %s has no subnet", n.Name)
	case !n.Subnet.Addr().Is4():
		return driver.Errorf(errdefs.ErrNotImplemented, "network %s: subnet %s: the bridge driver serves IPv4 only", n.Name, n.Subnet)
	case n.Subnet != n.Subnet.Masked() || n.Subnet.Bits() > 30:
		return driver.Errorf(errdefs.ErrInvalidArgument, "network %s: %s is no subnet for a bridge", n.Name, n.Subnet)
	case !n.Subnet.Contains(n.Gateway):
		return driver.Errorf(errdefs.ErrInvalidArgument, "network %s: gateway %s is not in %s", n.Name, n.Gateway, n.Subnet)
	}
	return nil
}

// checkOwned refuses a bridge of our name that is somebody else's. One without
// alias, address and port is what a crash between making and marking left.
func checkOwned(found bridgeState, want mark) error {
	if found.Index == 0 {
		return nil
	}
	if got, ok := parseMark(found.Alias); ok && got.Engine == want.Engine && got.Network == want.Network {
		return nil
	}
	if found.Alias == "" && len(found.Addrs) == 0 && found.Ports == 0 {
		return nil
	}
	return driver.Errorf(errdefs.ErrAlreadyExists, "link %s is there and is not this engine's (alias %q)", found.Name, found.Alias)
}

// overlap finds what holds a part of subnet other than the link own.
func overlap(subnet netip.Prefix, routes []route, own int) (route, bool) {
	for _, r := range routes {
		if own != 0 && r.Index == own {
			continue
		}
		// A default route holds nothing, nor do the two halves of one that tunnels set.
		if r.Prefix.Bits() > 1 && r.Prefix.Overlaps(subnet) {
			return r, true
		}
	}
	return route{}, false
}

// endpointPlan is what an attach needs to know.
type endpointPlan struct {
	Name        string // that the port is found by
	Alias       string // its mark
	Port, Inner int    // the two ends, each by its index in its namespace
	Bridge      bridgeState
	Address     netip.Prefix
	Gateway     netip.Addr // invalid: no route
	MAC         net.HardwareAddr
}

// usualMTU is that of a pair as it is made.
const usualMTU = 1500

// planEndpoint lists what makes an endpoint of a pair: first on the machine,
// then in the container's namespace. In this order the container's end has a
// carrier as soon as it is up; one that gets it later drops all packets until
// the kernel has taken notice.
func planEndpoint(p endpointPlan) (outside, inside []linkOp) {
	mtu := p.Bridge.MTU
	if mtu == usualMTU {
		mtu = 0
	}
	outside = []linkOp{
		// The name first: if it is taken, the port is on no bridge yet.
		callLink{Index: p.Port, Name: p.Name},
		setLink{Index: p.Port, Alias: p.Alias, MTU: mtu, Master: p.Bridge.Index, Up: true},
	}
	inside = []linkOp{
		setLink{Index: p.Inner, MAC: p.MAC, MTU: mtu, Up: true},
		giveAddr{Index: p.Inner, Addr: p.Address},
	}
	if p.Gateway.IsValid() {
		inside = append(inside, routeVia{Index: p.Inner, Gateway: p.Gateway})
	}
	return outside, inside
}

// ruleset is the engine's nftables table as data.
type ruleset struct {
	Table    string
	Bridges  []string       // every bridge of the engine: isolated from each other
	Internal []string       // those without a way out
	Masq     []netip.Prefix // subnets that leave with the machine's address
}

// planRules makes the table from the bridges that bear the engine's mark.
func planRules(engineID, engineName string, bridges []bridgeState) ruleset {
	r := ruleset{Table: tableName(engineName)}
	for _, b := range bridges {
		m, ok := parseMark(b.Alias)
		if !ok || m.Engine != engineID {
			continue
		}
		r.Bridges = append(r.Bridges, b.Name)
		if m.Internal {
			r.Internal = append(r.Internal, b.Name)
			continue
		}
		if m.NoMasq {
			continue
		}
		for _, a := range b.Addrs {
			if a.Addr().Is4() {
				r.Masq = append(r.Masq, a.Masked())
			}
		}
	}
	r.Masq = outermost(r.Masq)
	return r
}

// outermost leaves out what lies in another one: somebody may have given a bridge a
// further address, and the kernel takes no set whose intervals overlap.
func outermost(all []netip.Prefix) []netip.Prefix {
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range all {
		if n := len(out); n == 0 || !out[n-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}
