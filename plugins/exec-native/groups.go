package execnative

import (
	"fmt"
	"path"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// group is the cgroup of a run, or of the container that an exec is in. Where
// its parent cannot be opened it is looked for below the engine's own, in
// which no run of that name is: nothing is found, and nothing is hurt.
func (d *native) group(r *run) *cgroup.Group {
	if p, err := d.parent(r.set.Parent); err == nil {
		return p.Group(groupName(r.key))
	}
	return d.containers.Group(groupName(r.key))
}

// createGroup makes the cgroup of a run.
func (d *native) createGroup(r *run, resources *specs.LinuxResources) (*cgroup.Group, error) {
	p, err := d.parent(r.set.Parent)
	if err != nil {
		return nil, err
	}
	return p.Create(groupName(r.key), resources)
}

// parent is the parent cgroup at a path, empty for the engine's own. The others
// stay open from their first use on: there are few, and each holds a
// descriptor for each hierarchy.
func (d *native) parent(name string) (*cgroup.Parent, error) {
	if name == "" {
		return d.containers, nil
	}
	name = path.Join("/", name)
	if name == "/" {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.CgroupParent %q is the root of the hierarchies", name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.parents[name]; p != nil {
		return p, nil
	}
	p, err := d.tree.OpenParent(name, false)
	if err != nil {
		return nil, fmt.Errorf("open parent cgroup %s: %w", name, err)
	}
	d.parents[name] = p
	return p, nil
}
