package execnative

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// groupTries bounds how often a cgroup is tried again whose parent somebody
// else has removed meanwhile, as gantry-oci does with one that it made.
const groupTries = 10

// askedParent is a cgroup that containers asked to be put in. It stays open as
// long as one of them has its own inside: it holds a descriptor for each
// hierarchy.
type askedParent struct {
	*cgroup.Parent
	runs int
}

// group is the cgroup of a run, or of the container that an exec is in. Where
// nobody holds its parent it is looked for below the engine's own, in which no
// run of that name is: nothing is found, and nothing is hurt.
func (d *native) group(r *run) *cgroup.Group {
	if r.set.Parent == "" {
		return d.containers.Group(groupName(r.key))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.parents[path.Join("/", r.set.Parent)]; p != nil {
		return p.Group(groupName(r.key))
	}
	return d.containers.Group(groupName(r.key))
}

// createGroup makes the cgroup of a run.
func (d *native) createGroup(r *run, resources *specs.LinuxResources, making cgroup.Making) (*cgroup.Group, error) {
	if r.set.Parent == "" {
		return d.containers.CreateWith(groupName(r.key), resources, making)
	}
	for try := 1; ; try++ {
		p, err := d.holdParent(r)
		if err != nil {
			return nil, err
		}
		g, err := p.Create(groupName(r.key), resources)
		gone := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
		if err == nil || !gone || errdefs.IsNotImplemented(err) || try == groupTries {
			return g, err // what was held goes with the start
		}
		d.letGoParent(r)
	}
}

// removeGroup removes the cgroup of a run, and with the last one inside what was
// made of its parent.
func (d *native) removeGroup(ctx context.Context, r *run) error {
	if r.set.Parent != "" {
		_, _ = d.holdParent(r) // where it cannot be opened there is nothing in it
	}
	if err := d.group(r).Remove(ctx); err != nil {
		return err
	}
	d.letGoParent(r)
	return nil
}

// holdParent opens the cgroup that a run asked to be in, and makes what is
// missing of it. It is held once by a run, however often this is called.
func (d *native) holdParent(r *run) (*cgroup.Parent, error) {
	name := path.Join("/", r.set.Parent)
	if name == "/" {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.CgroupParent %q is the root of the hierarchies", r.set.Parent)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.parents[name]
	if r.parent == name && p != nil {
		return p.Parent, nil
	}
	if p == nil {
		opened, err := d.tree.OpenShared(name)
		if err != nil {
			return nil, fmt.Errorf("open parent cgroup %s: %w", name, err)
		}
		p = &askedParent{Parent: opened}
		d.parents[name] = p
	}
	p.runs++
	r.parent = name
	return p.Parent, nil
}

// letGoParent gives up what a run holds. The last one closes the parent, and
// removes what was made of it; another start waits for that.
func (d *native) letGoParent(r *run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := r.parent
	r.parent = ""
	p := d.parents[name]
	if p == nil {
		return
	}
	if p.runs--; p.runs == 0 {
		p.RemoveMade()
		p.Close()
		delete(d.parents, name)
	}
}
