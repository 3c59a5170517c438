package bridge

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

type (
	// askLink asks for one link, by its index, or by its name or other name.
	askLink struct {
		Index int
		Name  string
	}
	// makePair makes two links joined to each other, the peer in the namespace
	// behind NS.
	makePair struct {
		Name, Peer string
		NS         int
	}
	// setLink changes what is not zero of a link.
	setLink struct {
		Index  int
		Name   string // instead of Index
		Alias  string
		MAC    net.HardwareAddr
		MTU    int
		Master int
		Up     bool
	}
	// plainLink keeps a link from giving itself an IPv6 address, to tell the
	// neighbours of it and to look for routers: a port needs none. A kernel
	// without IPv6 does not know the request.
	plainLink struct{ Name string }
	// callLink gives a link a further name (Linux 5.5).
	callLink struct {
		Index int
		Name  string
	}
	// shutPort keeps all packets off a port of a bridge, and forgets the
	// addresses learned behind it. It is locked too (Linux 5.18; no frame
	// comes in whose sender is not known on it, and none is learned any more):
	// a process that is still behind it could enable it again by switching its
	// own end off and on.
	shutPort struct{ Name string }
	// giveAddr gives a link an address.
	giveAddr struct {
		Index int
		Addr  netip.Prefix
	}
	// routeVia sends all that goes nowhere else over a gateway.
	routeVia struct {
		Index   int
		Gateway netip.Addr
	}
)

func (q askLink) put(b *message) {
	b.begin(unix.RTM_GETLINK, 0, true)
	b.link(unix.AF_UNSPEC, q.Index, 0, 0)
	if q.Index == 0 {
		b.name(q.Name)
	}
	b.number(unix.IFLA_EXT_MASK, skipStats)
}

const skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS, linux/rtnetlink.h

func (q makePair) put(b *message) {
	b.begin(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, false)
	b.link(unix.AF_UNSPEC, 0, 0, 0)
	b.text(unix.IFLA_IFNAME, q.Name)
	info := b.open(unix.IFLA_LINKINFO | unix.NLA_F_NESTED)
	b.attr(unix.IFLA_INFO_KIND, []byte("veth"))
	data := b.open(unix.IFLA_INFO_DATA | unix.NLA_F_NESTED)
	peer := b.open(vethInfoPeer | unix.NLA_F_NESTED)
	b.link(unix.AF_UNSPEC, 0, 0, 0)
	b.text(unix.IFLA_IFNAME, q.Peer)
	b.number(unix.IFLA_NET_NS_FD, uint32(q.NS))
	b.close(peer)
	b.close(data)
	b.close(info)
}

const vethInfoPeer = 1 // VETH_INFO_PEER, linux/veth.h

func (q setLink) put(b *message) {
	b.begin(unix.RTM_SETLINK, 0, false)
	flags := uint32(0)
	if q.Up {
		flags = unix.IFF_UP
	}
	b.link(unix.AF_UNSPEC, q.Index, flags, flags)
	if q.Index == 0 {
		b.name(q.Name)
	}
	if q.Alias != "" {
		b.attr(unix.IFLA_IFALIAS, []byte(q.Alias))
	}
	if q.MAC != nil {
		b.attr(unix.IFLA_ADDRESS, q.MAC)
	}
	if q.MTU != 0 {
		b.number(unix.IFLA_MTU, uint32(q.MTU))
	}
	if q.Master != 0 {
		b.number(unix.IFLA_MASTER, uint32(q.Master))
	}
}

func (q plainLink) put(b *message) {
	b.begin(unix.RTM_SETLINK, 0, false)
	b.link(unix.AF_UNSPEC, 0, 0, 0)
	b.name(q.Name)
	families := b.open(unix.IFLA_AF_SPEC | unix.NLA_F_NESTED)
	six := b.open(unix.AF_INET6 | unix.NLA_F_NESTED)
	b.byte(unix.IFLA_INET6_ADDR_GEN_MODE, genNone)
	b.close(six)
	b.close(families)
}

const genNone = 1 // IN6_ADDR_GEN_MODE_NONE, linux/if_link.h

func (q callLink) put(b *message) {
	b.begin(unix.RTM_NEWLINKPROP, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_APPEND, false)
	b.link(unix.AF_UNSPEC, q.Index, 0, 0)
	list := b.open(unix.IFLA_PROP_LIST | unix.NLA_F_NESTED)
	b.text(unix.IFLA_ALT_IFNAME, q.Name)
	b.close(list)
}

func (q shutPort) put(b *message) {
	b.begin(unix.RTM_NEWLINK, 0, false)
	b.link(unix.AF_UNSPEC, 0, 0, 0)
	b.name(q.Name)
	info := b.open(unix.IFLA_LINKINFO | unix.NLA_F_NESTED)
	b.attr(unix.IFLA_INFO_SLAVE_KIND, []byte("bridge"))
	data := b.open(unix.IFLA_INFO_SLAVE_DATA | unix.NLA_F_NESTED)
	b.byte(unix.IFLA_BRPORT_LEARNING, 0)
	b.byte(unix.IFLA_BRPORT_LOCKED, 1)
	b.byte(unix.IFLA_BRPORT_STATE, portStateDisabled)
	b.attr(unix.IFLA_BRPORT_FLUSH, nil)
	b.close(data)
	b.close(info)
}

const portStateDisabled = 0 // BR_STATE_DISABLED, linux/if_bridge.h

func (q giveAddr) put(b *message) {
	b.begin(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, false)
	b.buf = append(b.buf, unix.AF_INET, byte(q.Addr.Bits()), 0, unix.RT_SCOPE_UNIVERSE)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, uint32(q.Index))
	ip := q.Addr.Addr().As4()
	b.attr(unix.IFA_LOCAL, ip[:])
	b.attr(unix.IFA_ADDRESS, ip[:])
	if q.Addr.Bits() < 31 { // RFC 3021: smaller ones have none
		all := last(q.Addr).As4()
		b.attr(unix.IFA_BROADCAST, all[:])
	}
}

func (q routeVia) put(b *message) {
	b.begin(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, false)
	b.buf = append(b.buf, unix.AF_INET, 0, 0, 0, // family; lengths of destination and source; type of service
		unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0)
	gateway := q.Gateway.As4()
	b.attr(unix.RTA_GATEWAY, gateway[:])
	b.number(unix.RTA_OIF, uint32(q.Index))
}
