package core

import (
	"maps"
	"slices"
)

// Clone is a copy that shares nothing that Apply changes. What is replaced and
// never changed (specifications, faults, what drivers brought back) is shared, so
// that a second fold of the log costs little memory.
func (s *State) Clone() *State {
	c := *s
	c.Containers = clones(s.Containers, (*Container).clone)
	c.Images = clones(s.Images, (*Image).clone)
	c.Layers = clones(s.Layers, (*Layer).clone)
	c.Networks = clones(s.Networks, (*Network).clone)
	c.Drivers = clones(s.Drivers, (*Driver).clone)
	c.Jobs = clones(s.Jobs, (*Job).clone)
	c.Ended = slices.Clone(s.Ended)
	c.Strays = maps.Clone(s.Strays)
	c.names, c.refs, c.nets = maps.Clone(s.names), maps.Clone(s.refs), maps.Clone(s.nets)
	c.sharers = maps.Clone(s.sharers) // its lists are replaced
	c.touched = nil
	return &c
}

func clones[K comparable, V any](m map[K]*V, clone func(*V) *V) map[K]*V {
	c := make(map[K]*V, len(m))
	for k, v := range m {
		c[k] = clone(v)
	}
	return c
}

// clone is also for asking what a change would bring.
func (c *Container) clone() *Container {
	k := *c
	k.Nets = slices.Clone(c.Nets)
	k.Execs = slices.Clone(c.Execs)
	k.Process.Kills = slices.Clip(c.Process.Kills)
	k.Jobs = slices.Clip(c.Jobs)
	k.Preparing = slices.Clip(c.Preparing)
	k.Paused.Jobs = slices.Clip(c.Paused.Jobs)
	return &k
}

func (i *Image) clone() *Image {
	k := *i
	k.Jobs = slices.Clip(i.Jobs)
	return &k
}

func (l *Layer) clone() *Layer {
	k := *l
	return &k
}

func (n *Network) clone() *Network {
	k := *n
	k.Jobs = slices.Clip(n.Jobs)
	k.used = maps.Clone(n.used)
	return &k
}

func (d *Driver) clone() *Driver {
	k := *d
	k.Jobs = slices.Clip(d.Jobs)
	k.Strays = slices.Clone(d.Strays)
	return &k
}

func (j *Job) clone() *Job {
	k := *j
	if j.Load != nil {
		load := *j.Load
		k.Load = &load
	}
	return &k
}
