package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// op is one operation of a plan: data that says what to do, and the one call
// that does it.
type op interface {
	do(k *kernel) error
}

type (
	// addBridge makes a bridge.
	addBridge struct{ Name, MAC string }
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
		Link string
		Addr netip.Prefix
	}
	// setUp switches a link on.
	setUp struct{ Link string }
)

// kernel is where the plan of a network runs: the machine's namespace.
type kernel struct {
	host  *netlink.Handle
	links map[string]netlink.Link
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

// link looks a name up once for each run.
func (k *kernel) link(name string) (netlink.Link, error) {
	if l, ok := k.links[name]; ok {
		return l, nil
	}
	l, err := k.host.LinkByName(name)
	if err == nil {
		k.links[name] = l
	}
	return l, err
}

func (o addBridge) do(k *kernel) error {
	mac, err := net.ParseMAC(o.MAC)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = o.Name, mac
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
	l, err := k.link(o.Name)
	if err != nil {
		return err
	}
	return k.host.LinkSetAlias(l, o.Alias)
}

func (o setMTU) do(k *kernel) error {
	l, err := k.link(o.Name)
	if err != nil {
		return err
	}
	return k.host.LinkSetMTU(l, o.MTU)
}

func (o addAddr) do(k *kernel) error {
	l, err := k.link(o.Link)
	if err != nil {
		return err
	}
	err = k.host.AddrAdd(l, &netlink.Addr{IPNet: ipNet(o.Addr)})
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

func (o setUp) do(k *kernel) error {
	l, err := k.link(o.Link)
	if err != nil {
		return err
	}
	return k.host.LinkSetUp(l)
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

func isMissing(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ENODEV)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
