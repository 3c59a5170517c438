package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// op is one operation of a plan: data that says what to do, and the one call
// that does it.
type op interface {
	do(k *kernel) error
}

type (
	// addBridge makes a bridge.
	addBridge struct {
		Name, MAC string
		MTU       int // 0 for the kernel's default
	}
	// noIPv6 keeps IPv6 off a link of the machine, before it is up.
	noIPv6 struct{ Link string }
	// setAlias marks a link.
	setAlias struct{ Name, Alias string }
	// setMTU changes a link's largest packet.
	setMTU struct {
		Name string
		MTU  int
	}
	// addAddr gives a link an address; one that is there is fine.
	addAddr struct {
		Inside bool
		Link   string
		Addr   netip.Prefix
	}
	// setUp switches a link on.
	setUp struct {
		Inside bool
		Link   string
	}
	// addVeth makes a pair, one end a port of Master that is up, the other
	// directly inside the namespace, in one message.
	addVeth struct {
		Name    string
		Master  int
		MTU     int
		Peer    string
		PeerMAC string
	}
	// addDefaultRoute is always inside; one that is there stays.
	addDefaultRoute struct {
		Link    string
		Gateway netip.Addr
	}
	// waitUp waits until a link passes packets.
	waitUp struct{ Link string }
	// announce sends a gratuitous ARP request from inside.
	announce struct {
		Link string
		MAC  string
		Addr netip.Addr
	}
)

// kernel is where a plan runs: the machine's namespace and, for endpoints, the
// container's.
type kernel struct {
	host   *netlink.Handle
	inside *netlink.Handle // nil where a plan has nothing inside
	fd     int             // the container's namespace
	links  map[string]netlink.Link
}

// openInside adds the namespace behind fd. The socket is opened by a thread
// that is in that namespace for this one call and returns.
func openInside(host *netlink.Handle, fd int) (*kernel, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket in the container's namespace: %w", err)
	}
	return &kernel{host: host, inside: h, fd: fd}, nil
}

func (k *kernel) close() {
	if k.inside != nil {
		k.inside.Close()
	}
}

// run is the one loop. It stops at the first operation that fails.
func (k *kernel) run(ops []op) error {
	k.links = map[string]netlink.Link{}
	for _, o := range ops {
		if err := o.do(k); err != nil {
			return fmt.Errorf("%T%+v: %w", o, o, err)
		}
	}
	return nil
}

func (k *kernel) handle(inside bool) *netlink.Handle {
	if inside {
		return k.inside
	}
	return k.host
}

// link looks a name up once for each run.
func (k *kernel) link(inside bool, name string) (netlink.Link, error) {
	id := name
	if inside {
		id = "inside/" + name
	}
	if l, ok := k.links[id]; ok {
		return l, nil
	}
	l, err := k.handle(inside).LinkByName(name)
	if err == nil {
		k.links[id] = l
	}
	return l, err
}

func (o addBridge) do(k *kernel) error {
	mac, err := net.ParseMAC(o.MAC)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = o.Name, mac, o.MTU
	return k.host.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
}

// The networks have no IPv6. A bridge that spoke it would take the machine's
// routes from any container that sends router advertisements (CVE-2020-13401).
func (o noIPv6) do(*kernel) error {
	err := os.WriteFile(ipv6Switch(o.Link), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
		return nil
	}
	return err
}

// ipv6Switch is 1 where a link speaks no IPv6. It is that of the calling
// thread's namespace.
func ipv6Switch(link string) string { return "/proc/sys/net/ipv6/conf/" + link + "/disable_ipv6" }

func (o setAlias) do(k *kernel) error {
	l, err := k.link(false, o.Name)
	if err != nil {
		return err
	}
	return k.host.LinkSetAlias(l, o.Alias)
}

func (o setMTU) do(k *kernel) error {
	l, err := k.link(false, o.Name)
	if err != nil {
		return err
	}
	return k.host.LinkSetMTU(l, o.MTU)
}

func (o addAddr) do(k *kernel) error {
	l, err := k.link(o.Inside, o.Link)
	if err != nil {
		return err
	}
	err = k.handle(o.Inside).AddrAdd(l, &netlink.Addr{IPNet: ipNet(o.Addr)})
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

func (o setUp) do(k *kernel) error {
	l, err := k.link(o.Inside, o.Link)
	if err != nil {
		return err
	}
	return k.handle(o.Inside).LinkSetUp(l)
}

func (o addVeth) do(k *kernel) error {
	mac, err := net.ParseMAC(o.PeerMAC)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.MTU, attrs.Flags = o.Name, o.Master, o.MTU, net.FlagUp
	return k.host.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: o.Peer, PeerHardwareAddr: mac,
		PeerTxQLen: -1, PeerNamespace: netlink.NsFd(k.fd),
	})
}

func (o addDefaultRoute) do(k *kernel) error {
	l, err := k.link(true, o.Link)
	if err != nil {
		return err
	}
	err = k.inside.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: o.Gateway.AsSlice()})
	if errors.Is(err, unix.EEXIST) {
		return nil // a further network: the first one's route stays
	}
	return err
}

// The other end is up by now, but the kernel takes notice of a carrier in the
// background, behind whoever holds its lock for links; until then the bridge
// drops what comes, and a program that is quick waits a second for its second
// try. Since Linux 6.8 to ask for the link is enough; before, it takes a while.
func (o waitUp) do(k *kernel) error {
	for range 1000 {
		l, err := k.host.LinkByName(o.Link)
		if err != nil {
			return err
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return driver.Errorf(errdefs.ErrUnavailable, "no carrier after a second")
}

// deleteLink deletes a link if it is there; it takes tens of milliseconds.
func deleteLink(h *netlink.Handle, name string) error {
	l, err := h.LinkByName(name)
	if err != nil {
		if isMissing(err) {
			return nil
		}
		return fmt.Errorf("look up link %s: %w", name, err)
	}
	if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

const portStateDisabled = 0 // BR_STATE_DISABLED, linux/if_bridge.h

// cutPort marks a port of a bridge as given back, disables it, and forgets the
// addresses learned behind it. A port that is not there is cut.
func cutPort(h *netlink.Handle, name, alias string) error {
	l, err := h.LinkByName(name)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up port %s: %w", name, err)
	}
	// The mark first: every change of a link makes the bridge look at its
	// carrier again and enable the port.
	if err := h.LinkSetAlias(l, alias); err != nil && !isMissing(err) {
		return fmt.Errorf("mark port %s: %w", name, err)
	}
	if l.Attrs().MasterIndex == 0 {
		return nil
	}
	if err := disablePort(l.Attrs().Index); err != nil {
		return fmt.Errorf("disable port %s: %w", name, err)
	}
	return nil
}

// disablePort also locks the port (Linux 5.18; no frame comes in whose sender
// is not known on it, and none is learned any more): a process that is still
// behind it could enable it again by switching its own end off and on.
func disablePort(index int) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(index)
	req.AddData(msg)
	port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	port.AddRtAttr(unix.IFLA_BRPORT_LEARNING, nl.Uint8Attr(0))
	port.AddRtAttr(unix.IFLA_BRPORT_LOCKED, nl.Uint8Attr(1))
	port.AddRtAttr(unix.IFLA_BRPORT_STATE, nl.Uint8Attr(portStateDisabled))
	port.AddRtAttr(unix.IFLA_BRPORT_FLUSH, nil)
	req.AddData(port)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) { // gone, or no port any more
		return nil
	}
	return err
}

func isMissing(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ENODEV)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
