package runtime

import (
	"context"
	"os"

	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup/systemd"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// unitGroup has systemd make the cgroup, as a transient scope.
func (c *creation) unitGroup(ctx context.Context, tree cgroup.Tree, r *specs.LinuxResources) (cgroup.Place, *cgroup.Group, error) {
	unit, err := systemd.Parse(c.b.spec.Linux.CgroupsPath, c.ID)
	if err != nil {
		return nil, nil, err
	}
	// The scope goes when it is empty; systemd makes no groups in hierarchies that
	// it does not use. A user's own has its units elsewhere.
	if place, err := tree.At(unit.Path()); err == nil && os.Geteuid() == 0 {
		if err := c.announce(tree, place); err != nil {
			return nil, nil, err
		}
	}
	group, err := unit.Start(ctx, tree, r)
	if err != nil {
		return nil, nil, err
	}
	c.Unit, c.unheld = &unit, group.Release
	return group.Place, group.Group, nil
}

// stopUnit ends the scope, if there is one.
func (c *container) stopUnit(ctx context.Context) error {
	if c.Unit == nil {
		return nil
	}
	return c.Unit.Stop(ctx)
}

// limit changes the limits of a running container: by systemd where that has
// made its group, since it sets them anew whenever it reloads.
func (c *container) limit(ctx context.Context, group *cgroup.Group, r *specs.LinuxResources) error {
	if c.Unit == nil {
		return group.Update(r)
	}
	return c.Unit.Update(ctx, group, r)
}
