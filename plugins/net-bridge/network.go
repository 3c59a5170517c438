package bridge

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"

	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/gantryd/gantry/sdk/netdriver/netfiles"
)

// CreateNetwork makes what the network lacks: all of it, or what a reboot or
// somebody else has taken away. The table is written each time.
func (d *Driver) CreateNetwork(_ context.Context, n netdriver.Network) error {
	if err := netfiles.CheckID("network", n.ID); err != nil {
		return err
	}
	d.rules.Lock()
	defer d.rules.Unlock()
	found, err := d.findWhole(n.ID)
	if err != nil {
		return err
	}
	routes, err := d.routes()
	if err != nil {
		return err
	}
	ops, err := planNetwork(d.cfg.EngineID, d.cfg.EngineName, n, found, routes)
	if err != nil {
		return err
	}
	if err := d.forward(); err != nil {
		return err
	}
	k := &kernel{host: d.host}
	err = k.run(ops)
	if err == nil {
		err = d.writeRules()
	}
	if err == nil {
		return nil
	}
	if found.Index == 0 { // nothing is left of a network that could not be made
		_ = deleteLink(d.host, bridgeName(d.cfg.EngineName, n.ID))
		_ = d.writeRules()
	}
	return fmt.Errorf("create network %s: %w", n.Name, classOf(err))
}

// RemoveNetwork deletes the bridge and its rules. With the last network the
// namespace holder leaves.
func (d *Driver) RemoveNetwork(_ context.Context, id string) error {
	if err := netfiles.CheckID("network", id); err != nil {
		return err
	}
	d.rules.Lock()
	defer d.rules.Unlock()
	all, err := d.holder.list()
	if err != nil {
		return err
	}
	for _, k := range all {
		if key, ok := parseHolderKey(k.Key); ok && key.Network == id {
			return driver.Errorf(errdefs.ErrFailedPrecondition, "network %s: container %s is attached", id, key.Container)
		}
	}
	found, err := d.findWhole(id)
	if err != nil {
		return err
	}
	if found.Index != 0 && checkOwned(found, mark{Engine: d.cfg.EngineID, Network: id}) == nil {
		if err := deleteLink(d.host, found.Name); err != nil {
			return err
		}
	}
	if err := d.writeRules(); err != nil {
		return err
	}
	rest, err := d.ownBridges()
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		d.pool.empty()
		return d.holder.quit()
	}
	return nil
}

// findWhole looks a network's bridge up with addresses and ports.
func (d *Driver) findWhole(network string) (bridgeState, error) {
	all, err := links(d.host)
	if err != nil {
		return bridgeState{}, fmt.Errorf("list links: %w", err)
	}
	for _, l := range all {
		if l.Attrs().Name == bridgeName(d.cfg.EngineName, network) {
			return d.readBridge(l, all)
		}
	}
	return bridgeState{}, nil
}

// writeRules brings the table in line with the bridges. d.rules is held.
func (d *Driver) writeRules() error {
	bridges, err := d.ownBridges()
	if err != nil {
		return err
	}
	return planRules(d.cfg.EngineID, d.cfg.EngineName, bridges).apply()
}
