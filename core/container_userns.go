package core

import "github.com/containerd/errdefs"

// IDPool is where the ids of private user namespaces come from.
type IDPool struct {
	First  uint32 `json:"first"`  // id on the host; a multiple of IDRange
	Ranges int    `json:"ranges"` // how many, one behind the other
}

// IDRange is how many user and group ids a private user namespace has.
const IDRange = 65536

// The default pool begins at 2^30, above what useradd(8) gives to people's own
// namespaces (SUB_UID_MAX is 600,100,000), and ends with what systemd sets aside
// for containers (1,879,048,191).
const (
	defaultIDFirst  = 1 << 30
	defaultIDRanges = (1879048192 - defaultIDFirst) / IDRange
)

func (p IDPool) orDefault() IDPool {
	if p.Ranges == 0 {
		return IDPool{defaultIDFirst, defaultIDRanges}
	}
	return p
}

func (p IDPool) check() error {
	p = p.orDefault()
	// The last id, 2^32-1, means "none" to the kernel.
	if p.First%IDRange != 0 || p.First == 0 || p.Ranges < 1 || int64(p.First)+int64(p.Ranges)*IDRange > 1<<32-IDRange {
		return refuse(errdefs.ErrInvalidArgument, "id pool %d with %d ranges: it begins at a multiple of %d above 0 and ends below 2^32-%d",
			p.First, p.Ranges, IDRange, IDRange)
	}
	return nil
}

// allotIDs finds ids for a container that is to have a user namespace of its own
// and has none: the lowest range that nobody has. It changes nothing.
func (s *State) allotIDs(c *Container) (*IDMap, error) {
	if !c.private() || c.IDMap != nil {
		return nil, nil
	}
	taken := make(map[uint32]bool)
	for _, k := range s.Containers {
		if k.IDMap != nil {
			taken[k.IDMap.UIDs[0].Host] = true
		}
	}
	pool := s.Engine.IDs.orDefault()
	for i := range pool.Ranges {
		if host := pool.First + uint32(i)*IDRange; !taken[host] {
			ids := []IDMapping{{Container: 0, Host: host, Size: IDRange}}
			return &IDMap{UIDs: ids, GIDs: ids}, nil
		}
	}
	return nil, refuse(errdefs.ErrResourceExhausted,
		"no ids are left for another private user namespace: all %d ranges from %d on are in use: remove containers, or give the engine a larger pool", pool.Ranges, pool.First)
}

// idMap is the map of the container's user namespace; zero is the host's.
func (c *Container) idMap() IDMap {
	if c.IDMap == nil {
		return IDMap{}
	}
	return *c.IDMap
}

// freeIDs gives the ids back when nothing is left that they own.
func (c *Container) freeIDs() {
	if c.IDMap == nil || c.Want == Running || c.Prepared && c.Want != Removed {
		return
	}
	if c.UserNS.State == Absent && c.Rootfs.State == Absent && c.Process.State == Absent && !c.networked() {
		c.IDMap = nil
	}
}

// UserNSHeld says that the container's user namespace is held.
type UserNSHeld struct {
	Header
	Namespace Namespace `json:"namespace"`
}

func (*UserNSHeld) name() string { return "container.userns-held" }

func (e *UserNSHeld) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) { c.UserNS.State, c.UserNS.Namespace = Held, e.Namespace })
}

func (st HoldUserNS) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return s.startFailed(st.Container, st.StepID, r.Fault)
	}
	e := &UserNSHeld{Header: about(st.Container.noun())}
	if r.Result.UserNS != nil {
		e.Namespace = *r.Result.UserNS
	}
	return []Event{e}
}

// UserNSReleased says that the container's user namespace is given back.
type UserNSReleased struct{ Header }

func (*UserNSReleased) name() string { return "container.userns-released" }

func (e *UserNSReleased) on(c *Container) { c.UserNS.State, c.UserNS.Namespace = Absent, Namespace{} }

func (e *UserNSReleased) apply(s *State) []Noun { return s.fold(&e.Header, e.on) }

func (st ReleaseUserNS) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	return s.released(st.Container, 1, &UserNSReleased{Header: about(st.Container.noun())})
}

// UserNSLost says that a container's user namespace is gone, and with it the
// networks that were made in it.
type UserNSLost struct{ Header }

func (*UserNSLost) name() string { return "container.userns-lost" }

func (e *UserNSLost) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.UserNS.State, c.UserNS.Namespace = Unsure, Namespace{} // something of it may be left
	})
}
