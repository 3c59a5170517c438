// Package host is the network driver of containers that stay in the machine's
// own network namespace.
//
// It makes nothing in the kernel and needs no capability. The container gets
// copies of the machine's hosts and resolv.conf as they are now, loopback name
// servers included, since loopback is the machine's own here; its writes stay
// in the copies.
package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/gantryd/gantry/sdk/netdriver/netfiles"
)

// version is the driver's own.
const version = "0.1.0"

// Driver implements netdriver.Driver.
type Driver struct {
	store  *netfiles.Store
	hosts  string // the machine's hosts file
	resolv string // the machine's resolv.conf
}

// New returns the driver of one engine.
func New(cfg driver.Config) (netdriver.Driver, error) {
	s, err := netfiles.Open(cfg.Run)
	if err != nil {
		return nil, err
	}
	return &Driver{store: s, hosts: "/etc/hosts", resolv: "/etc/resolv.conf"}, nil
}

// Info introduces the driver.
func (d *Driver) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "host", Version: version}, nil
}

// CreateNetwork remembers the network. A subnet has no meaning here.
func (d *Driver) CreateNetwork(_ context.Context, n netdriver.Network) error {
	if n.Subnet.IsValid() {
		return driver.Errorf(errdefs.ErrInvalidArgument, "network %s: the host driver has no addresses to give, subnet %s", n.Name, n.Subnet)
	}
	if n.Internal {
		return driver.Errorf(errdefs.ErrInvalidArgument, "network %s: the machine's own network cannot be internal", n.Name)
	}
	for name := range n.Options {
		return driver.Errorf(errdefs.ErrInvalidArgument, "network %s: the host driver does not know the option %q", n.Name, name)
	}
	return d.store.HoldNetwork(n.ID)
}

// RemoveNetwork forgets the network.
func (d *Driver) RemoveNetwork(_ context.Context, id string) error {
	return d.store.DropNetwork(id)
}

// Attach answers with the machine's own namespace. A user namespace of the
// container's own is no hindrance: the machine's network is not its to change.
func (d *Driver) Attach(_ context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
	if err := netfiles.CheckKey(r.EndpointKey); err != nil {
		return netdriver.Endpoint{}, err
	}
	if !d.store.HasNetwork(r.Network) {
		return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrNotFound, "network %s is not there", r.Network)
	}
	if r.Join.Mode != "" {
		return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrInvalidArgument, "the machine's network is no further network of a container")
	}
	held := netdriver.Endpoint{Namespace: netdriver.Namespace{Mode: netdriver.NamespaceHost}}
	if d.store.HasEndpoint(r.EndpointKey) {
		// The same answer as before: the container may have changed its copy.
		held.Files = d.store.Mounts(r.EndpointKey)
		return held, nil
	}
	hosts, err := readOrEmpty(d.hosts)
	if err != nil {
		return netdriver.Endpoint{}, err
	}
	resolv, err := readOrEmpty(d.resolv)
	if err != nil {
		return netdriver.Endpoint{}, err
	}
	if len(r.DNS) > 0 {
		resolv, _ = netfiles.Resolv(resolv, r.DNS)
	}
	held.Files, err = d.store.HoldEndpoint(netfiles.Endpoint{Key: r.EndpointKey, Base: hosts, Resolv: resolv})
	if err != nil {
		return netdriver.Endpoint{}, err
	}
	return held, nil
}

// Detach forgets the endpoint.
func (d *Driver) Detach(_ context.Context, k netdriver.EndpointKey) error {
	return d.store.DropEndpoint(k)
}

// List tells the networks and endpoints held.
func (d *Driver) List(context.Context) ([]driver.Item, error) {
	return d.store.Items()
}

// readOrEmpty never returns nil for a file that is missing or empty: nil asks
// for the default text.
func readOrEmpty(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("copy %s for the container: %w", path, err)
	}
	if data == nil {
		data = []byte{}
	}
	return data, nil
}
