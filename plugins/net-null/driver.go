// Package null is the network driver of containers without a network: each
// gets a network namespace of its own with nothing but loopback in it.
//
// The namespace is made by the exec driver (it has nothing to be prepared), so
// this driver needs no capability. What it holds are small files in its Run
// directory: a reboot forgets them as it forgets namespaces.
package null

import (
	"context"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/gantryd/gantry/sdk/netdriver/netfiles"
)

// version is the driver's own.
const version = "0.1.0"

// Driver implements netdriver.Driver.
type Driver struct {
	store *netfiles.Store
}

// New returns the driver of one engine.
func New(cfg driver.Config) (netdriver.Driver, error) {
	s, err := netfiles.Open(cfg.Run)
	if err != nil {
		return nil, err
	}
	return &Driver{store: s}, nil
}

// Info introduces the driver.
func (d *Driver) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "null", Version: version}, nil
}

// CreateNetwork remembers the network. A subnet has no meaning here.
func (d *Driver) CreateNetwork(_ context.Context, n netdriver.Network) error {
	if n.Subnet.IsValid() {
		return driver.Errorf(errdefs.ErrInvalidArgument, "network %s: the null driver has no addresses, subnet %s", n.Name, n.Subnet)
	}
	for name := range n.Options {
		return driver.Errorf(errdefs.ErrInvalidArgument, "network %s: the null driver does not know the option %q", n.Name, name)
	}
	return d.store.HoldNetwork(n.ID)
}

// RemoveNetwork forgets the network.
func (d *Driver) RemoveNetwork(_ context.Context, id string) error {
	return d.store.DropNetwork(id)
}

// Attach answers with a namespace to be made by the exec driver.
func (d *Driver) Attach(_ context.Context, r netdriver.Attach) (netdriver.Endpoint, error) {
	if err := netfiles.CheckKey(r.EndpointKey); err != nil {
		return netdriver.Endpoint{}, err
	}
	if !d.store.HasNetwork(r.Network) {
		return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrNotFound, "network %s is not there", r.Network)
	}
	if r.Join.Mode != "" {
		return netdriver.Endpoint{}, driver.Errorf(errdefs.ErrInvalidArgument, "a container without a network joins no other one")
	}
	e := netdriver.Endpoint{
		Namespace: netdriver.Namespace{Mode: netdriver.NamespaceNew},
		Files:     d.store.Mounts(r.EndpointKey),
	}
	if d.store.HasEndpoint(r.EndpointKey) {
		return e, nil // written before; the container may have changed them
	}
	if _, err := d.store.HoldEndpoint(netfiles.Endpoint{Key: r.EndpointKey}); err != nil {
		return netdriver.Endpoint{}, err
	}
	return e, nil
}

// Detach forgets the endpoint.
func (d *Driver) Detach(_ context.Context, k netdriver.EndpointKey) error {
	return d.store.DropEndpoint(k)
}

// List tells the networks and endpoints held.
func (d *Driver) List(context.Context) ([]driver.Item, error) {
	return d.store.Items()
}
