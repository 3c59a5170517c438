package runtime

import (
	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/plugins/exec-native/resctrl"
)

// makeClass makes the class of resource control that the specification asks for;
// the init enters it with the cgroups, in the same way.
func (c *creation) makeClass() error {
	want := c.b.spec.Linux.IntelRdt
	if want == nil {
		return nil
	}
	root, err := resctrl.Find()
	if err != nil {
		return err
	}
	planned := root.Planned(c.ID, want) // written down first: a processor has few classes
	c.Class = &planned
	if err := c.save(); err != nil {
		return err
	}
	class, err := root.Make(c.ID, want)
	if err != nil {
		c.Class = nil
		return err
	}
	c.Class = &class
	ways, err := c.waysIn(&c.files)
	c.h.Cgroups = append(c.h.Cgroups, ways...)
	return err
}

// openClass opens the way into the container's class for one more program.
func (e *execution) openClass() error {
	ways, err := e.waysIn(&e.files)
	e.h.Cgroups = append(e.h.Cgroups, ways...)
	return err
}

// waysIn opens the ways into the container's class; there are none without one.
func (c *container) waysIn(files *oci.Files) ([]plan.FD, error) {
	if c.Class == nil {
		return nil, nil
	}
	root, err := resctrl.Find()
	if err != nil {
		return nil, err
	}
	tasks, err := root.Tasks(*c.Class)
	return files.AddAll(tasks), err
}

// checkClass refuses shares for a container that has no class.
func (c *container) checkClass(l3Cache, memoryBandwidth string) error {
	if c.Class == nil && l3Cache+memoryBandwidth != "" {
		return errclass.Errorf(errdefs.ErrFailedPrecondition,
			"l3-cache-schema, mem-bw-schema: container %s was made without linux.intelRdt: it has no class of resource control", c.ID)
	}
	return nil
}

// updateClass changes the shares of the container's class.
func (c *container) updateClass(l3Cache, memoryBandwidth string) error {
	if l3Cache+memoryBandwidth == "" {
		return nil
	}
	root, err := resctrl.Find()
	if err != nil {
		return err
	}
	return root.Update(*c.Class, l3Cache, memoryBandwidth)
}

// removeClass removes what was made for the container.
func (c *container) removeClass() error {
	if c.Class == nil {
		return nil
	}
	root, err := resctrl.Find()
	if err != nil {
		return nil //nolint:nilerr // unmounted: the classes went with it
	}
	return root.Remove(*c.Class)
}

// classUsage is what a container's class counts, in runc's words: an entry for
// each domain, in their order.
type classUsage struct {
	Memory []memoryTraffic  `json:"mbm_stats,omitempty"`
	Cache  []cacheOccupancy `json:"cmt_stats,omitempty"`
}

type memoryTraffic struct {
	Total uint64 `json:"mbm_total_bytes"`
	Local uint64 `json:"mbm_local_bytes"`
}

type cacheOccupancy struct {
	Bytes uint64 `json:"llc_occupancy"`
}

func (c *container) classUsage() (*classUsage, error) {
	if c.Class == nil {
		return nil, nil
	}
	root, err := resctrl.Find()
	if err != nil {
		return nil, err
	}
	domains, err := root.Read(*c.Class)
	if err != nil {
		return nil, err
	}
	u := &classUsage{}
	for _, d := range domains {
		if d.Traffic != nil {
			u.Memory = append(u.Memory, memoryTraffic{*d.Traffic, d.Local})
		}
		if d.Occupancy != nil {
			u.Cache = append(u.Cache, cacheOccupancy{*d.Occupancy})
		}
	}
	return u, nil
}
