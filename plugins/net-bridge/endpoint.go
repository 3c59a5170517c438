package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/gantryd/gantry/sdk/netdriver/netfiles"
)

// Attach makes an endpoint, or answers with the one that is there.
func (d *Driver) Attach(_ context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
	if err := netfiles.CheckKey(r.EndpointKey); err != nil {
		return netdriver.Endpoint{}, err
	}
	defer d.runs.lock(runKey(r.EndpointKey))()
	defer d.pool.busy()
	b, err := d.findBridge(r.Network)
	if err != nil {
		return netdriver.Endpoint{}, err
	}
	if m, ok := parseMark(b.Alias); !ok || m.Engine != d.cfg.EngineID || m.Network != r.Network || !b.Up {
		return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrNotFound, "network %s: its bridge is not there", r.Network)
	}
	if !r.Address.IsValid() || !r.Address.Addr().Is4() {
		return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrInvalidArgument, "address %s: the bridge driver needs one of IPv4", r.Address)
	}
	if r.Gateway.IsValid() && !r.Gateway.Is4() {
		return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrInvalidArgument, "gateway %s: the bridge driver needs one of IPv4", r.Gateway)
	}
	var k kept
	there := d.store.HasEndpoint(r.EndpointKey) // written before the key is put, removed after it is dropped
	if there {
		if k, there, err = d.holder.get(holderKey(r.EndpointKey)); err != nil {
			return netdriver.Endpoint{}, err
		}
	}
	if !there || !d.portWhole(r.EndpointKey, b.Index) {
		if k, err = d.attach(r, b, k, there); err != nil {
			if !there {
				_ = d.store.DropEndpoint(r.EndpointKey)
			}
			return netdriver.Endpoint{}, fmt.Errorf("attach container %s to network %s: %w", r.Container, r.Network, classOf(err))
		}
	}
	return d.endpoint(r, k)
}

// portWhole reports whether an endpoint's port is on its bridge: somebody may
// have deleted bridge or port, or an attach or a detach may have been killed half way.
func (d *Driver) portWhole(key netdriver.EndpointKey, bridge int) bool {
	l, err := d.links.run(askLink{Name: portName(d.cfg.EngineID, key)})
	return err == nil && l.Master == bridge && l.Alias == portAlias(d.cfg.EngineID)
}

// attach makes namespace, link and files, and keeps the namespace under the
// key. An endpoint that was there keeps namespace and files and gets a new link.
func (d *Driver) attach(r netdriver.Attach, b bridgeState, old kept, there bool) (kept, error) {
	mac, err := endpointMAC(r.MAC, r.Address.Addr())
	if err != nil {
		return kept{}, err
	}
	usual, _ := endpointMAC("", r.Address.Addr()) // cannot fail
	p := d.planOf(r, b, mac, there)
	if there {
		err = deleteLink(d.host, p.Name)
	} else {
		err = d.writeFiles(r)
	}
	if err != nil {
		return kept{}, err
	}
	s, err := d.link(r, p, there)
	if err != nil {
		return kept{}, err
	}
	defer s.close()
	if !bytes.Equal(mac, usual) { // the neighbours cannot know it
		if err := s.announce(mac, r.Address.Addr()); err != nil {
			d.unlink(r, s, there)
			return kept{}, fmt.Errorf("announce the hardware address: %w", err)
		}
	}
	if whole := portAlias(d.cfg.EngineID); p.Alias != whole {
		if _, err := d.links.run(setLink{Index: s.port, Alias: whole}); err != nil {
			d.unlink(r, s, there)
			return kept{}, fmt.Errorf("mark port %s: %w", p.Name, err)
		}
	}
	if there {
		return old, nil
	}
	key := holderKey(r.EndpointKey)
	k, err := d.holder.put(key, s.ns)
	if errors.Is(err, unix.EEXIST) { // somebody has removed our files
		if _, err = d.holder.drop(key); err == nil {
			k, err = d.holder.put(key, s.ns)
		}
	}
	if err != nil {
		d.unlink(r, s, there)
	}
	return k, err
}

// planOf is what an attach is to make. Its port bears the mark of an endpoint from
// the start where half of it goes with the namespace; in a namespace that lives on
// only once it is whole, and until then that of a spare.
func (d *Driver) planOf(r netdriver.Attach, b bridgeState, mac net.HardwareAddr, there bool) endpointPlan {
	p := endpointPlan{
		Name: portName(d.cfg.EngineID, r.EndpointKey), Alias: portAlias(d.cfg.EngineID),
		Bridge: b, Address: r.Address, Gateway: r.Gateway, MAC: mac,
	}
	if livesOn(r, there) {
		p.Alias = spareAlias(d.cfg.EngineID)
	}
	return p
}

// livesOn reports whether the namespace of an endpoint outlives an attach that fails:
// it is joined, or was there.
func livesOn(r netdriver.Attach, there bool) bool { return there || r.Join.Mode != "" }

// link makes the link of an endpoint. One that was made ahead may have been
// deleted by somebody: then another one is made.
func (d *Driver) link(r netdriver.Attach, p endpointPlan, there bool) (*spare, error) {
	if !there && r.Join.Mode == "" && isHost(r.UserNS) {
		if s := d.pool.take(); s != nil {
			if err := d.join(s, p); err == nil {
				return s, nil
			}
			s.close()
		}
	}
	ns, err := d.namespace(r, there)
	if err != nil {
		return nil, err
	}
	name := "eth0"
	if r.Join.Mode != "" {
		if name, err = freeInterface(ns); err != nil {
			_ = unix.Close(ns)
			return nil, err
		}
	}
	s, err := makeSpare(d.links, d.cfg.EngineID, ns, name)
	if err != nil {
		return nil, err
	}
	if err := d.join(s, p); err != nil {
		d.unlink(r, s, there)
		s.close()
		return nil, err
	}
	return s, nil
}

// unlink takes away what else would stay in a namespace that lives on; elsewhere
// the link goes with the namespace.
func (d *Driver) unlink(r netdriver.Attach, s *spare, there bool) {
	if livesOn(r, there) {
		_ = d.host.LinkDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: s.port}})
	}
}

// join makes an endpoint of a pair.
func (d *Driver) join(s *spare, p endpointPlan) error {
	p.Port, p.Inner = s.port, s.inner
	outside, inside := planEndpoint(p)
	_, err := d.links.run(outside...)
	if errors.Is(err, unix.EEXIST) {
		// The same run was attached before, and its link is on its way out
		// or its namespace was never kept.
		if err = deleteLink(d.host, p.Name); err == nil {
			_, err = d.links.run(outside...)
		}
	}
	if err == nil {
		_, err = s.inside.run(inside...)
	}
	if err == nil {
		err = d.waitUp(s.port)
	}
	if err == nil && !p.Bridge.Runs {
		err = d.waitUp(p.Bridge.Index)
	}
	return err
}

// waitUp waits until a link passes packets. The other end is up by now, but the
// kernel takes notice of a carrier in the background, behind whoever holds its
// lock for links; until then the bridge drops what comes, and a program that is
// quick waits a second for its second try. Since Linux 6.8 to ask for the link
// is enough; before, it takes a while.
func (d *Driver) waitUp(index int) error {
	for range 1000 {
		if l, err := d.links.run(askLink{Index: index}); err != nil || l.Runs {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return driver.Errorf(errdefs.ErrUnavailable, "no carrier after a second")
}

// namespace returns a descriptor of the namespace to attach to: the endpoint's
// own if it is there, that of an earlier endpoint of the run, or a new one.
func (d *Driver) namespace(r netdriver.Attach, there bool) (int, error) {
	if there {
		return d.holder.openKey(holderKey(r.EndpointKey))
	}
	switch r.Join.Mode {
	case "":
	case netdriver.NamespacePath:
		if r.Join.Inode != 0 {
			return d.holder.open(r.EndpointKey, r.Join.Inode)
		}
		return openNamespace(r.Join, unix.CLONE_NEWNET)
	default:
		return -1, driver.Errorf(errdefs.ErrInvalidArgument, "a namespace of mode %q cannot be joined", r.Join.Mode)
	}
	if isHost(r.UserNS) {
		return d.holder.makeNamespace(-1)
	}
	if r.UserNS.Mode != netdriver.NamespacePath {
		return -1, driver.Errorf(errdefs.ErrNotImplemented, "a network namespace in a user namespace of mode %q is not supported", r.UserNS.Mode)
	}
	user, err := openNamespace(r.UserNS, unix.CLONE_NEWUSER)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(user) }()
	return d.holder.makeNamespace(user)
}

func isHost(n netdriver.Namespace) bool { return n.Mode == "" || n.Mode == netdriver.NamespaceHost }

// openNamespace opens a namespace and checks that it is the one meant: a path
// below /proc may lead to another process by now.
func openNamespace(n netdriver.Namespace, kind int) (int, error) {
	fd, err := unix.Open(n.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, driver.Errorf(errdefs.ErrFailedPrecondition, "open namespace %s: %w", n.Path, err)
	}
	var st syscall.Stat_t
	if got, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || got != kind {
		_ = unix.Close(fd)
		return -1, driver.Errorf(errdefs.ErrInvalidArgument, "%s is no namespace of the right kind", n.Path)
	}
	if err := syscall.Fstat(fd, &st); err != nil || n.Inode != 0 && st.Ino != n.Inode {
		_ = unix.Close(fd)
		return -1, driver.Errorf(errdefs.ErrFailedPrecondition, "namespace %s has inode %d, not %d", n.Path, st.Ino, n.Inode)
	}
	return fd, nil
}

// freeInterface is the first of eth0, eth1 … that is not in the namespace.
func freeInterface(ns int) (string, error) {
	inside, err := openRTNLIn(ns)
	if err != nil {
		return "", err
	}
	defer func() { _ = inside.close() }()
	for i := 0; ; i++ {
		name := "eth" + strconv.Itoa(i)
		if _, err := inside.run(askLink{Name: name}); errors.Is(err, unix.ENODEV) {
			return name, nil
		} else if err != nil {
			return "", err
		}
	}
}

// interfaceOf is the container's name of an endpoint's link.
func (d *Driver) interfaceOf(r netdriver.Attach, k kept) (string, error) {
	if r.Join.Mode == "" {
		return "eth0", nil
	}
	fd, err := d.holder.open(r.EndpointKey, k.Inode)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	inside, err := openRTNLIn(fd)
	if err != nil {
		return "", err
	}
	defer func() { _ = inside.close() }()
	port, err := d.links.run(askLink{Name: portName(d.cfg.EngineID, r.EndpointKey)})
	if err != nil {
		return "", fmt.Errorf("look up the endpoint's port: %w", err)
	}
	l, err := inside.run(askLink{Index: port.Peer})
	if err != nil {
		return "", fmt.Errorf("look up the endpoint's link: %w", err)
	}
	return l.Name, nil
}

// endpoint is the answer to an attach. The files are those of the run, so only
// its first endpoint brings them.
func (d *Driver) endpoint(r netdriver.Attach, k kept) (netdriver.Endpoint, error) {
	name, err := d.interfaceOf(r, k)
	if err != nil {
		return netdriver.Endpoint{}, err
	}
	e := netdriver.Endpoint{
		Namespace: netdriver.Namespace{Mode: netdriver.NamespacePath, Path: k.path(), Inode: k.Inode},
		Interface: name,
	}
	if r.Join.Mode == "" {
		e.Files = d.store.Mounts(r.EndpointKey)
	}
	return e, nil
}

func (d *Driver) writeFiles(r netdriver.Attach) error {
	for _, s := range r.DNS {
		if _, err := netip.ParseAddr(s); err != nil {
			return driver.Errorf(errdefs.ErrInvalidArgument, "name server %q is no address", s)
		}
	}
	for _, n := range append([]string{r.Hostname}, r.Names...) {
		if strings.ContainsAny(n, " \t\r\n#") {
			return driver.Errorf(errdefs.ErrInvalidArgument, "name %q does not fit into a hosts file", n)
		}
	}
	machine, err := netfiles.ReadResolv("/")
	if err != nil {
		return err
	}
	resolv, _ := netfiles.Resolv(machine, r.DNS)
	_, err = d.store.HoldEndpoint(netfiles.Endpoint{
		Key: r.EndpointKey, Hosts: netfiles.HostsLine(r.Address.Addr(), r.Hostname, r.Names), Resolv: resolv,
	})
	if err != nil {
		return fmt.Errorf("write the container's network files: %w", err)
	}
	return nil
}

// Detach cuts the port, drops the namespace, and forgets the files.
func (d *Driver) Detach(_ context.Context, key netdriver.EndpointKey) error {
	if err := netfiles.CheckKey(key); err != nil {
		return err
	}
	defer d.runs.lock(runKey(key))()
	defer d.pool.busy()
	port := portName(d.cfg.EngineID, key)
	if err := d.cutPort(port); err != nil {
		return err
	}
	others, err := d.holder.drop(holderKey(key))
	if err != nil {
		return err
	}
	if others > 0 { // the namespace lives on: its link must not
		if err := deleteLink(d.host, port); err != nil {
			return err
		}
	} else {
		d.sweep.detached(port)
	}
	if err := d.store.DropEndpoint(key); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the container's network files: %w", err)
	}
	return nil
}

// cutPort marks a port of a bridge as given back, disables it, and forgets the
// addresses learned behind it. A port that is not there is cut.
func (d *Driver) cutPort(name string) error {
	// The mark first: every change of a link makes the bridge look at its
	// carrier again and enable the port.
	_, err := d.links.run(setLink{Name: name, Alias: detachedAlias(d.cfg.EngineID)}, shutPort{Name: name})
	for _, fine := range []unix.Errno{unix.ENODEV, unix.EINVAL, unix.EOPNOTSUPP} { // gone, or no port any more
		if errors.Is(err, fine) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("cut port %s: %w", name, err)
	}
	return nil
}
