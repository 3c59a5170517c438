package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/gantryd/gantry/sdk/netdriver/netfiles"
)

// Attach makes an endpoint, or answers with the one that is there.
func (d *Driver) Attach(_ context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
	if err := netfiles.CheckKey(r.EndpointKey); err != nil {
		return netdriver.Endpoint{}, err
	}
	defer d.runs.lock(fmt.Sprintf("%s/%d", r.Container, r.Run))()
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
// have deleted bridge or port, or a detach may have been killed half way.
func (d *Driver) portWhole(key netdriver.EndpointKey, bridge int) bool {
	l, err := d.host.LinkByName(portName(d.cfg.EngineID, key))
	return err == nil && l.Attrs().MasterIndex == bridge && l.Attrs().Alias != detachedAlias(d.cfg.EngineID)
}

// attach makes namespace, link and files, and keeps the namespace under the
// key. An endpoint that was there keeps namespace and files and gets a new link.
func (d *Driver) attach(r netdriver.Attach, b bridgeState, old kept, there bool) (kept, error) {
	mac, err := endpointMAC(r.MAC, r.Address.Addr())
	if err != nil {
		return kept{}, err
	}
	usual, _ := endpointMAC("", r.Address.Addr()) // cannot fail
	p := endpointPlan{
		Port: portName(d.cfg.EngineID, r.EndpointKey), Interface: "eth0", Bridge: b,
		Address: r.Address, Gateway: r.Gateway, MAC: mac.String(), Announce: !bytes.Equal(mac, usual),
	}
	if there {
		if err := deleteLink(d.host, p.Port); err != nil {
			return kept{}, err
		}
		fd, err := d.link(r, p, there)
		if err == nil {
			err = unix.Close(fd)
		}
		return old, err
	}
	written := make(chan error, 1) // beside: it takes a third of the time
	go func() { written <- d.writeFiles(r) }()
	fd, err := d.link(r, p, there)
	if filesErr := <-written; err == nil && filesErr != nil {
		d.unlink(r, p, fd)
		return kept{}, filesErr
	}
	if err != nil {
		return kept{}, err
	}
	key := holderKey(r.EndpointKey)
	k, err := d.holder.put(key, fd)
	if errors.Is(err, unix.EEXIST) { // somebody has removed our files
		if _, err = d.holder.drop(key); err == nil {
			k, err = d.holder.put(key, fd)
		}
	}
	if err != nil {
		d.unlink(r, p, fd)
		return kept{}, err
	}
	return k, unix.Close(fd)
}

// link makes the link of an endpoint and returns a descriptor of the namespace
// that it is in.
func (d *Driver) link(r netdriver.Attach, p endpointPlan, there bool) (int, error) {
	fd, err := d.namespace(r, there)
	if err != nil {
		return -1, err
	}
	k, err := openInside(d.host, fd)
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	defer k.close()
	if r.Join.Mode != "" {
		p.Interface, err = freeInterface(k)
	}
	if err == nil {
		ops := planEndpoint(p)
		err = k.run(ops)
		if errors.Is(err, unix.EEXIST) {
			// The same run was attached before, and its link is on its way out
			// or its namespace was never kept.
			if err = deleteLink(d.host, p.Port); err == nil {
				err = k.run(ops)
			}
		}
	}
	if err != nil {
		d.unlink(r, p, fd)
		return -1, err
	}
	return fd, nil
}

// unlink gives back what link has made, and closes its descriptor.
func (d *Driver) unlink(r netdriver.Attach, p endpointPlan, fd int) {
	if r.Join.Mode != "" { // otherwise the link goes with the namespace
		_ = deleteLink(d.host, p.Port)
	}
	_ = unix.Close(fd)
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
			return d.holder.open(r.Join.Inode)
		}
		return openNamespace(r.Join, unix.CLONE_NEWNET)
	default:
		return -1, driver.Errorf(errdefs.ErrInvalidArgument, "a namespace of mode %q cannot be joined", r.Join.Mode)
	}
	switch r.UserNS.Mode {
	case "", netdriver.NamespaceHost:
		return d.holder.makeNamespace(-1)
	case netdriver.NamespacePath:
		user, err := openNamespace(r.UserNS, unix.CLONE_NEWUSER)
		if err != nil {
			return -1, err
		}
		defer func() { _ = unix.Close(user) }()
		return d.holder.makeNamespace(user)
	}
	return -1, driver.Errorf(errdefs.ErrNotImplemented, "a network namespace in a user namespace of mode %q is not supported", r.UserNS.Mode)
}

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
func freeInterface(k *kernel) (string, error) {
	all, err := links(k.inside)
	if err != nil {
		return "", fmt.Errorf("list links in the container: %w", err)
	}
	taken := map[string]bool{}
	for _, l := range all {
		taken[l.Attrs().Name] = true
	}
	for i := 0; ; i++ {
		if name := fmt.Sprintf("eth%d", i); !taken[name] {
			return name, nil
		}
	}
}

// interfaceOf is the container's name of an endpoint's link.
func (d *Driver) interfaceOf(r netdriver.Attach, k kept) (string, error) {
	if r.Join.Mode == "" {
		return "eth0", nil
	}
	fd, err := d.holder.open(k.Inode)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	inside, err := openInside(d.host, fd)
	if err != nil {
		return "", err
	}
	defer inside.close()
	port, err := d.host.LinkByName(portName(d.cfg.EngineID, r.EndpointKey))
	if err != nil {
		return "", fmt.Errorf("look up the endpoint's port: %w", err)
	}
	l, err := inside.inside.LinkByIndex(port.Attrs().ParentIndex)
	if err != nil {
		return "", fmt.Errorf("look up the endpoint's link: %w", err)
	}
	return l.Attrs().Name, nil
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
	defer d.runs.lock(fmt.Sprintf("%s/%d", key.Container, key.Run))()
	port := portName(d.cfg.EngineID, key)
	if err := cutPort(d.host, port, detachedAlias(d.cfg.EngineID)); err != nil {
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
		d.sweep.soon()
	}
	if err := d.store.DropEndpoint(key); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the container's network files: %w", err)
	}
	return nil
}
