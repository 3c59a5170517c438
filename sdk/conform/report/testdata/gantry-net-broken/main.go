// Command gantry-net-broken is a net driver with typical faults: it forgets
// everything when it ends, refuses repeats, calls giving back what is not held
// an error, and hides error classes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func main() { os.Exit(netdriver.Main(open)) }

type broken struct {
	config   driver.Config
	networks map[string]bool
}

func open(c driver.Config) (netdriver.Driver, error) {
	return &broken{c, map[string]bool{}}, nil
}

func (d *broken) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "perfect", Version: "1"}, nil
}

func (d *broken) CreateNetwork(_ context.Context, n netdriver.Network) error {
	if d.networks[n.ID] {
		return fmt.Errorf("network %s exists", n.Name)
	}
	d.config.Logger().Info("make a network", "name", n.Name)
	d.networks[n.ID] = true
	return nil
}

func (d *broken) RemoveNetwork(_ context.Context, id string) error {
	if !d.networks[id] {
		return errors.New("no such network")
	}
	delete(d.networks, id)
	return nil
}

func (d *broken) Attach(context.Context, netdriver.Attach) (netdriver.Endpoint, error) {
	panic("attach is not written yet")
}

func (d *broken) Detach(context.Context, netdriver.EndpointKey) error { return nil }

func (d *broken) List(context.Context) ([]driver.Item, error) { return nil, nil }
