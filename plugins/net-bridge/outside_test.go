package bridge

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/netdriver"
)

// outside plays the rest of the world: a namespace behind a link of its own,
// which knows no route to any container. It returns a function that gives it
// one, and a namespace to dial from.
func outside(t *testing.T, e *engine) (learn func(subnet netip.Prefix), there netdriver.Namespace) {
	t.Helper()
	fd, err := e.holder.makeNamespace(-1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	inside, err := openRTNLIn(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inside.close() })
	host := netip.MustParsePrefix("198.51.100.1/24")
	far := netip.MustParsePrefix("198.51.100.2/24")
	near, err := e.links.run(makePair{Name: "outside", Peer: "wan", NS: fd}, askLink{Name: "outside"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.links.run(giveAddr{Index: near.Index, Addr: host}, setLink{Index: near.Index, Up: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = inside.run(giveAddr{Index: near.Peer, Addr: far}, setLink{Index: near.Peer, Up: true})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the way out to pass packets", func() bool {
		a, errA := e.links.run(askLink{Index: near.Index})
		b, errB := inside.run(askLink{Index: near.Peer})
		return errA == nil && errB == nil && a.Runs && b.Runs
	})
	var l net.Listener
	if err := inNamespace(fd, func() (err error) {
		l, err = net.Listen("tcp4", ":80")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	go serve(l)
	t.Cleanup(func() {
		_ = l.Close()
		if err := deleteLink(e.host, "outside"); err != nil {
			t.Error(err)
		}
	})
	return func(subnet netip.Prefix) {
		route := &netlink.Route{Dst: ipNet(subnet), Gw: host.Addr().AsSlice()}
		if err := inNamespace(fd, func() error { return netlink.RouteAdd(route) }); err != nil {
			t.Fatal(err)
		}
	}, netdriver.Namespace{Path: fmt.Sprintf("/proc/self/fd/%d", fd)}
}

// A neighbour that knows a route to the containers gets answers, and nothing
// that it was not asked for.
func TestNeighboursDoNotComeIn(t *testing.T) {
	e := newEngine(t, "neighbour")
	learn, there := outside(t, e)
	n := e.network("aa11", "10.84.1.0/24", nil)
	routed := e.network("bb22", "10.84.2.0/24", func(n *netdriver.Network) {
		n.Options = map[string]string{optionMasq: "false"}
	})
	learn(n.Subnet)
	learn(routed.Subnet)
	c, r := e.attach(n, "c1", 2, nil), e.attach(routed, "c2", 2, nil)
	listen(t, c.Namespace)
	listen(t, r.Namespace)
	mustReach(t, c.Namespace, "198.51.100.2", "198.51.100.1")
	mustReach(t, r.Namespace, "198.51.100.2", "10.84.2.2") // with its own address
	mustNotReach(t, there, "10.84.1.2")
	mustNotReach(t, there, "10.84.2.2")
	if got, err := dialMachine("10.84.1.2:80", patience); err != nil || got != "10.84.1.1" { // the machine itself may
		t.Errorf("from the machine: %q, %v", got, err)
	}
}

// hears sends one packet from a namespace to the outside and reports whether
// it arrives in time.
func hears(t *testing.T, there, from netdriver.Namespace, wait time.Duration) bool {
	t.Helper()
	var ear net.PacketConn
	hear := func() (err error) {
		ear, err = net.ListenPacket("udp4", "198.51.100.2:9")
		return err
	}
	fd, err := unix.Open(there.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := inNamespace(fd, hear); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ear.Close() }()
	in(t, from, func() error {
		c, err := net.Dial("udp4", "198.51.100.2:9")
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_, err = c.Write([]byte("x"))
		return err
	})
	if err := ear.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	_, _, err = ear.ReadFrom(make([]byte, 8))
	return err == nil
}

// publish sends what comes for an address of the machine to a container, as a
// published port will.
func publish(t *testing.T, from, to string) {
	t.Helper()
	c := &nftables.Conn{}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "test-publish"})
	chain := c.AddChain(&nftables.Chain{Table: table, Name: "prerouting", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: netip.MustParseAddr(from).AsSlice()},
		&expr.Immediate{Register: 1, Data: netip.MustParseAddr(to).AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(80)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.DelTable(table)
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
	})
}

// What was sent to a container by a rule comes in from outside, but not from
// another network of the engine.
func TestPublishedComesInFromOutsideOnly(t *testing.T) {
	e := newEngine(t, "published")
	_, there := outside(t, e)
	one := e.network("aa11", "10.85.1.0/24", nil)
	two := e.network("bb22", "10.85.2.0/24", nil)
	c, other := e.attach(one, "c1", 2, nil), e.attach(two, "c2", 2, nil)
	listen(t, c.Namespace)
	mustNotReach(t, other.Namespace, "10.85.1.2")
	publish(t, "198.51.100.1", "10.85.1.2")
	mustReach(t, there, "198.51.100.1", "198.51.100.2")
	mustNotReach(t, other.Namespace, "198.51.100.1")
}
