package runtime

import (
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// moveDevices moves linux.netDevices into the container's network namespace. The
// kernel takes a device's addresses from it on the way: those of global scope
// are put back (runtime specification, config-linux.md "Network Devices").
func (c *creation) moveDevices() error {
	devices := c.b.spec.Linux.NetDevices
	if len(devices) == 0 {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.Init.PID))
	if err != nil {
		return fmt.Errorf("linux.netDevices: %w", err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("linux.netDevices: %w", err)
	}
	defer inside.Close()
	for _, from := range slices.Sorted(maps.Keys(devices)) {
		to := devices[from].Name
		if to == "" {
			to = from
		}
		if err := moveDevice(inside, ns, from, to); err != nil {
			return fmt.Errorf("linux.netDevices: move %s: %w", from, err)
		}
	}
	return nil
}

// moveDevice moves one device and sets it up.
func moveDevice(inside *netlink.Handle, ns *os.File, from, to string) error {
	link, err := netlink.LinkByName(from)
	if err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "%w", err)
	}
	addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list its addresses: %w", err)
	}
	if err := netlink.LinkSetDown(link); err != nil {
		return err
	}
	// The new name goes with the move: it may be taken on this side, as eth0 mostly is,
	// and the old one inside.
	move := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	device := nl.NewIfInfomsg(unix.AF_UNSPEC)
	device.Index = int32(link.Attrs().Index)
	move.AddData(device)
	move.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(ns.Fd()))))
	move.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(to)))
	if _, err := move.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("as %s: %w", to, err)
	}
	moved, err := inside.LinkByName(to)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if a.Scope != int(netlink.SCOPE_UNIVERSE) || a.Flags&unix.IFA_F_PERMANENT == 0 {
			continue
		}
		fresh := netlink.Addr{IPNet: a.IPNet, Peer: a.Peer, Broadcast: a.Broadcast, Scope: a.Scope}
		if err := inside.AddrAdd(moved, &fresh); err != nil {
			return fmt.Errorf("give it its address %s again: %w", a.IPNet, err)
		}
	}
	return inside.LinkSetUp(moved)
}
