package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/gantryd/gantry/sdk/netdriver/netfiles"
)

// version is the driver's own.
const version = "0.1.0"

const forwardSwitch = "/proc/sys/net/ipv4/ip_forward"

// Driver implements netdriver.Driver.
type Driver struct {
	cfg    driver.Config
	store  *netfiles.Store
	holder *holder
	host   *netlink.Handle // sockets in the machine's namespace, used by all
	links  *rtnl           // likewise, for what every attach and detach does
	pool   *pool
	sweep  *sweeper
	run    *os.File // the Run directory, kept open for the holder's address

	rules sync.Mutex // orders the changes of networks, which all write one table
	runs  keyed      // one call at a time for each run of a container
}

// New returns the driver of one engine. It makes nothing yet.
func New(cfg driver.Config) (netdriver.Driver, error) {
	if strings.Trim(cfg.EngineName, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || cfg.EngineName == "" || len(cfg.EngineName) > 32 {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "engine name %q is not valid", cfg.EngineName)
	}
	if cfg.EngineID == "" || strings.ContainsAny(cfg.EngineID, " \n") {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "engine id %q is not valid", cfg.EngineID)
	}
	store, err := netfiles.Open(cfg.Run)
	if err != nil {
		return nil, err
	}
	run, err := os.Open(cfg.Run)
	if err != nil {
		return nil, err
	}
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		_ = run.Close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	links, err := openRTNL()
	if err != nil {
		host.Close()
		_ = run.Close()
		return nil, err
	}
	d := &Driver{cfg: cfg, store: store, holder: newHolder(cfg, run), host: host, links: links, run: run}
	d.pool = &pool{size: poolSize, make: d.spare}
	d.sweep = newSweeper(host, links, cfg.EngineID)
	if err := d.sweep.found(); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("list links: %w", err)
	}
	return d, nil
}

// spare makes one for the pool.
func (d *Driver) spare() (*spare, error) {
	ns, err := d.holder.makeNamespace(-1)
	if err != nil {
		return nil, err
	}
	return makeSpare(d.links, d.cfg.EngineID, ns, "eth0")
}

// Close ends this value, not what it holds: networks, endpoints and the holder
// stay. What was made ahead goes.
func (d *Driver) Close() error {
	d.pool.stop()
	d.sweep.stop()
	d.holder.close()
	d.host.Close()
	return errors.Join(d.links.close(), d.run.Close())
}

// Info introduces the driver and tells what the machine lacks.
func (d *Driver) Info(context.Context) (driver.Info, error) {
	info := driver.Info{Name: "bridge", Version: version, Abilities: []string{netdriver.AbilityUserNS}}
	if on, err := os.ReadFile(forwardSwitch); err == nil && strings.TrimSpace(string(on)) != "1" {
		info.Warnings = append(info.Warnings, "net.ipv4.ip_forward is off; it is switched on with the first network, and this machine then forwards packets between all its interfaces")
	} else if _, err := os.Lstat(d.forwardMark()); err == nil {
		info.Warnings = append(info.Warnings, "net.ipv4.ip_forward was off and has been switched on for the networks; it stays on")
	}
	if machine, err := netfiles.ReadResolv("/"); err == nil {
		if _, ok := netfiles.Resolv(machine, nil); !ok {
			info.Warnings = append(info.Warnings, "the machine names no name server that a container could reach; containers get none unless they ask for one")
		}
	}
	if _, err := os.Lstat(filepath.Join(d.cfg.Libexec, holderProgram)); err != nil {
		info.Warnings = append(info.Warnings, fmt.Sprintf("%s is missing in %s; no container can be attached", holderProgram, d.cfg.Libexec))
	}
	return info, nil
}

// List tells the bridges that bear this engine's mark and the holder's keys.
func (d *Driver) List(context.Context) ([]driver.Item, error) {
	bridges, err := d.ownBridges()
	if err != nil {
		return nil, err
	}
	var items []driver.Item
	for _, b := range bridges {
		m, _ := parseMark(b.Alias)
		items = append(items, driver.Item{Kind: "network", Key: m.Network, State: "held"})
	}
	all, err := d.holder.list()
	if err != nil {
		return nil, err
	}
	for _, k := range all {
		key, ok := parseHolderKey(k.Key)
		if !ok {
			continue
		}
		items = append(items, driver.Item{
			Kind: "endpoint", Key: key.Container, Run: key.Run, Network: key.Network,
			State: "held", Namespace: k.path(), Inode: k.Inode,
		})
	}
	return items, nil
}

// ownBridges reads the bridges that bear this engine's mark.
func (d *Driver) ownBridges() ([]bridgeState, error) {
	all, err := links(d.host)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var own []bridgeState
	for _, l := range all {
		if l.Type() != "bridge" {
			continue
		}
		if m, ok := parseMark(l.Attrs().Alias); !ok || m.Engine != d.cfg.EngineID {
			continue
		}
		b, err := d.readBridge(l, all)
		if err != nil {
			return nil, err
		}
		own = append(own, b)
	}
	return own, nil
}

// findBridge looks a network's bridge up by name, without its addresses; the
// zero value is none.
func (d *Driver) findBridge(network string) (bridgeState, error) {
	l, err := d.links.run(askLink{Name: bridgeName(d.cfg.EngineName, network)})
	if errors.Is(err, unix.ENODEV) {
		return bridgeState{}, nil
	}
	if err != nil {
		return bridgeState{}, fmt.Errorf("look up the bridge: %w", err)
	}
	return bridgeState{Index: l.Index, Name: l.Name, Alias: l.Alias, MTU: l.MTU, Up: l.Up, Runs: l.Runs}, nil
}

func bridgeOf(l netlink.Link) bridgeState {
	a := l.Attrs()
	return bridgeState{Index: a.Index, Name: a.Name, Alias: a.Alias, MTU: a.MTU,
		Up: a.Flags&net.FlagUp != 0, Runs: a.OperState == netlink.OperUp}
}

// readBridge adds what takes further questions: addresses, the number of ports,
// and whether it speaks IPv6.
func (d *Driver) readBridge(l netlink.Link, all []netlink.Link) (bridgeState, error) {
	a, b := l.Attrs(), bridgeOf(l)
	if off, err := os.ReadFile(ipv6Switch(a.Name)); err == nil {
		b.IPv6 = strings.TrimSpace(string(off)) == "0"
	}
	for _, p := range all {
		if p.Attrs().MasterIndex == a.Index {
			b.Ports++
		}
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return d.host.AddrList(l, netlink.FAMILY_V4) })
	if err != nil {
		return b, fmt.Errorf("list addresses of %s: %w", a.Name, err)
	}
	for _, x := range addrs {
		if p, ok := prefix(x.IPNet.IP, x.Mask); ok {
			b.Addrs = append(b.Addrs, p)
		}
	}
	return b, nil
}

// routes reads what of the address space is taken on this machine.
func (d *Driver) routes() ([]route, error) {
	all, err := links(d.host)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	name := map[int]string{}
	for _, l := range all {
		name[l.Attrs().Index] = l.Attrs().Name
	}
	found, err := whole(func() ([]netlink.Route, error) { return d.host.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var taken []route
	for _, r := range found {
		if r.Dst == nil {
			continue
		}
		if p, ok := prefix(r.Dst.IP, r.Dst.Mask); ok {
			taken = append(taken, route{Prefix: p, Index: r.LinkIndex, Link: "the route of " + name[r.LinkIndex]})
		}
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return d.host.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, x := range addrs {
		if p, ok := prefix(x.IPNet.IP, x.Mask); ok {
			taken = append(taken, route{Prefix: p.Masked(), Index: x.LinkIndex, Link: "link " + name[x.LinkIndex]})
		}
	}
	return taken, nil
}

func (d *Driver) forwardMark() string { return filepath.Join(d.cfg.Run, "ip-forward-switched-on") }

// forward switches forwarding on, and remembers that it had been off.
func (d *Driver) forward() error {
	on, err := os.ReadFile(forwardSwitch)
	if err != nil {
		return fmt.Errorf("read net.ipv4.ip_forward: %w", err)
	}
	if strings.TrimSpace(string(on)) == "1" {
		return nil
	}
	if err := os.WriteFile(d.forwardMark(), nil, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(forwardSwitch, []byte("1"), 0); err != nil {
		return fmt.Errorf("switch net.ipv4.ip_forward on: %w", classOf(err))
	}
	return nil
}

func prefix(ip []byte, mask []byte) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}, false
	}
	bits := 0
	for _, b := range mask {
		for ; b != 0; b <<= 1 {
			bits++
		}
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, bits), a.Is4()
}

// classOf gives a kernel's error the class that callers test for.
func classOf(err error) error {
	for _, c := range []struct {
		errno unix.Errno
		class error
	}{
		{unix.EPERM, errdefs.ErrPermissionDenied}, {unix.EACCES, errdefs.ErrPermissionDenied},
		{unix.EROFS, errdefs.ErrPermissionDenied}, {unix.EEXIST, errdefs.ErrAlreadyExists},
		{unix.EOPNOTSUPP, errdefs.ErrNotImplemented}, {unix.EINVAL, errdefs.ErrInvalidArgument},
		{unix.EMFILE, errdefs.ErrResourceExhausted}, {unix.ENFILE, errdefs.ErrResourceExhausted},
		{unix.ENOSPC, errdefs.ErrResourceExhausted}, {unix.ENOMEM, errdefs.ErrResourceExhausted},
	} {
		if errors.Is(err, c.errno) {
			return fmt.Errorf("%w: %w", err, c.class)
		}
	}
	return err
}
