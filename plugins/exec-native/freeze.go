package execnative

import (
	"context"
	"fmt"
	"slices"

	"github.com/gantryd/gantry/sdk/execdriver"
)

// Freeze implements execdriver.Freezer.
func (d *native) Freeze(ctx context.Context, k execdriver.Key) error {
	r, err := d.running(k)
	if err != nil {
		return err
	}
	if err := d.group(r).Freeze(ctx); err != nil {
		return fmt.Errorf("freeze %s: %w", what(k), err)
	}
	return nil
}

// Thaw implements execdriver.Freezer.
func (d *native) Thaw(_ context.Context, k execdriver.Key) error {
	r, err := d.running(k)
	if err != nil {
		return err
	}
	if err := d.group(r).Thaw(); err != nil {
		return fmt.Errorf("thaw %s: %w", what(k), err)
	}
	return nil
}

// Update implements execdriver.Updater.
func (d *native) Update(_ context.Context, k execdriver.Key, limits execdriver.Resources) error {
	r, err := d.running(k)
	if err != nil {
		return err
	}
	resources, err := changedLimits(limits, d.facts, d.hasController)
	if err != nil {
		return err
	}
	if err := d.group(r).Update(resources); err != nil {
		return fmt.Errorf("update %s: %w", what(k), err)
	}
	return nil
}

// running finds a container's run that is running. An exec of it has no limits
// and no freezer of its own: its container is meant.
func (d *native) running(k execdriver.Key) (*run, error) {
	if err := checkKey(k); err != nil {
		return nil, err
	}
	k.Exec = ""
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.runs[k]; r != nil && r.state == running {
		return r, nil
	}
	return nil, notRunning(k)
}

// hasController reports whether the machine has a controller.
func (d *native) hasController(name string) bool { return slices.Contains(d.tree.Controllers(), name) }

// abilities are those beyond execdriver.Driver.
func abilities() []string {
	return []string{
		execdriver.AbilityExec, execdriver.AbilityFreeze, execdriver.AbilityUpdate, execdriver.AbilityMeter, execdriver.AbilityOOM,
		execdriver.AbilityCopy, execdriver.AbilityUserNS,
	}
}
