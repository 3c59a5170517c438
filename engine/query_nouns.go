package engine

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

func listContainers(s *core.State, in query.ListIn) (any, error) {
	out := query.Containers{Seq: s.Seq, Containers: []query.Container{}}
	for _, c := range s.Containers {
		if in.All || c.Running() || c.Status() == "restarting" {
			out.Containers = append(out.Containers, summary(s, c))
		}
	}
	slices.SortFunc(out.Containers, func(a, b query.Container) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(string(a.ID), string(b.ID)))
	})
	return out, nil
}

func summary(s *core.State, c *core.Container) query.Container {
	q := query.Container{
		ID: c.ID, Name: c.Name, Image: c.ImageRef, ImageID: c.Image, Command: c.Spec.Process.Args(), Created: c.Created,
		Status: c.Status(), Want: c.Want, Running: c.Running(), Run: c.Run, PID: c.Process.PID, Started: c.Started,
		Exit: c.Exit, Fault: c.Fault, Labels: c.Spec.Labels, AutoRemove: c.AutoRemove,
		Paused: c.Paused.State == core.Held, Restarts: c.Restarts, OOMKills: c.OOMKills,
	}
	if c.Health != nil {
		q.Health = c.Health.Status
	}
	for i := range c.Spec.Mounts {
		if host := c.Spec.Mounts[i].Source; host != "" {
			q.Mounts = append(q.Mounts, host)
		}
	}
	for i := range c.Execs {
		if x := &c.Execs[i]; !x.Exited && x.Fault == nil {
			q.Execs++
		}
	}
	if c.Rootfs.State != core.Absent {
		q.Holds = append(q.Holds, "rootfs")
	}
	for i := range c.Nets {
		a := attachment(s, c, &c.Nets[i])
		q.Networks = append(q.Networks, a)
		if c.Nets[i].State != core.Absent {
			q.Holds = append(q.Holds, "net-"+a.NetworkName)
		}
	}
	if c.Process.State != core.Absent {
		q.Holds = append(q.Holds, "process")
	}
	if c.Log.State != core.Absent {
		q.Holds = append(q.Holds, "log")
	}
	if c.UserNS.State != core.Absent {
		q.Holds = append(q.Holds, "userns")
	}
	return q
}

func attachment(s *core.State, c *core.Container, n *core.NetSlot) query.Attachment {
	a := query.Attachment{
		Container: c.ID, ContainerName: c.Name, Network: n.Network, NetworkName: string(n.Network), Address: n.Address,
		Held: n.State == core.Held,
	}
	if w := s.Networks[n.Network]; w != nil {
		a.NetworkName = w.Name
	}
	return a
}

func (e *Engine) inspectContainer(s *core.State, in query.RefIn) (any, error) {
	c, err := findContainer(s, in.Ref)
	if err != nil {
		return nil, err
	}
	return query.ContainerDetail{
		Seq: s.Seq, Container: summary(s, c), LogPath: c.Process.Log, State: unsealed(c), Jobs: openJobs(s, c.Jobs),
		Steps: e.stepsOf(core.Noun{Kind: core.KindContainer, ID: string(c.ID)}),
	}, nil
}

// unsealed is the container without sealed values: a reader sees names only.
func unsealed(c *core.Container) core.Container {
	k := *c
	spec := *c.Spec
	spec.Process.Env = withoutSealed(spec.Process.Env)
	k.Spec = &spec
	k.Execs = slices.Clone(c.Execs)
	for i := range k.Execs {
		k.Execs[i].Spec.Env = withoutSealed(k.Execs[i].Spec.Env)
	}
	return k
}

func withoutSealed(env []core.Env) []core.Env {
	env = slices.Clone(env)
	for i := range env {
		if env[i].Sealed {
			env[i].Value = ""
		}
	}
	return env
}

// inspectExec finds an exec by its id or a prefix of it.
func inspectExec(s *core.State, in query.RefIn) (any, error) {
	var hits []query.ExecDetail
	for _, c := range s.Containers {
		for i := range c.Execs {
			if in.Ref != "" && strings.HasPrefix(string(c.Execs[i].ID), in.Ref) {
				hits = append(hits, query.ExecDetail{Seq: s.Seq, Container: c.ID, ContainerName: c.Name, Exec: c.Execs[i]})
			}
		}
	}
	switch len(hits) {
	case 0:
		return nil, errclass.Errorf(errdefs.ErrNotFound, "no such exec: %s", in.Ref)
	case 1:
		hits[0].Exec.Spec.Env = withoutSealed(hits[0].Exec.Spec.Env)
		return hits[0], nil
	}
	return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "exec id prefix %q is ambiguous: give more digits", in.Ref)
}

func listImages(s *core.State) query.Images {
	out := query.Images{Seq: s.Seq, Images: []query.Image{}}
	for _, i := range s.Images {
		out.Images = append(out.Images, imageOf(s, i))
	}
	slices.SortFunc(out.Images, func(a, b query.Image) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(string(a.ID), string(b.ID)))
	})
	return out
}

func imageOf(s *core.State, i *core.Image) query.Image {
	q := query.Image{
		ID: i.ID, Names: i.Names, Manifest: i.Manifest, Created: i.Created, Size: i.Size, Architecture: i.Architecture,
		OS: i.OS, Ready: i.Ready, Want: i.Want,
	}
	for _, il := range i.Layers {
		if l := s.Layers[il.ID]; l != nil {
			q.Unpacked += l.Size
		}
	}
	for _, c := range s.Containers {
		if c.Image == i.ID {
			q.Containers++
		}
	}
	return q
}

func (e *Engine) inspectImage(s *core.State, in query.RefIn) (any, error) {
	i, err := findImage(s, in.Ref)
	if err != nil {
		return nil, err
	}
	d := query.ImageDetail{
		Seq: s.Seq, Image: imageOf(s, i), State: *i, Steps: e.stepsOf(core.Noun{Kind: core.KindImage, ID: string(i.ID)}),
	}
	for _, il := range i.Layers {
		if l := s.Layers[il.ID]; l != nil {
			d.Layers = append(d.Layers, *l)
			d.Steps = append(d.Steps, e.stepsOf(core.Noun{Kind: core.KindLayer, ID: string(l.ID)})...)
		}
	}
	return d, nil
}

func listNetworks(s *core.State) query.Networks {
	out := query.Networks{Seq: s.Seq, Networks: []query.Network{}}
	for _, n := range s.Networks {
		out.Networks = append(out.Networks, networkOf(n))
	}
	slices.SortFunc(out.Networks, func(a, b query.Network) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(string(a.ID), string(b.ID)))
	})
	return out
}

func networkOf(n *core.Network) query.Network {
	q := query.Network{
		ID: n.ID, Name: n.Name, Driver: n.Driver, Builtin: n.Builtin, Internal: n.Internal, Want: n.Want,
		Held: n.Slot.State == core.Held,
	}
	if n.Subnet.IsValid() {
		q.Subnet = n.Subnet.String()
	}
	if n.Gateway.IsValid() {
		q.Gateway = n.Gateway.String()
	}
	return q
}

func (e *Engine) inspectNetwork(s *core.State, in query.RefIn) (any, error) {
	n, err := findNetwork(s, in.Ref)
	if err != nil {
		return nil, err
	}
	d := query.NetworkDetail{
		Seq: s.Seq, Network: networkOf(n), State: *n, Steps: e.stepsOf(core.Noun{Kind: core.KindNetwork, ID: string(n.ID)}),
	}
	for _, c := range s.Containers {
		for i := range c.Nets {
			if slot := &c.Nets[i]; slot.Network == n.ID && (slot.State != core.Absent || c.Want == core.Running) {
				d.Attachments = append(d.Attachments, attachment(s, c, slot))
			}
		}
	}
	slices.SortFunc(d.Attachments, func(a, b query.Attachment) int { return strings.Compare(a.ContainerName, b.ContainerName) })
	return d, nil
}

// chosen is the drivers that the engine or a network uses.
func chosen(s *core.State) map[string]bool {
	ids := map[string]bool{
		"graphdriver/" + s.Engine.Drivers.Graph: true, "exec/" + s.Engine.Drivers.Exec: true, "image/" + s.Engine.Drivers.Image: true,
	}
	for _, n := range s.Networks {
		ids["net/"+n.Driver] = true
	}
	return ids
}

func (e *Engine) listDrivers(s *core.State) query.Drivers {
	out := query.Drivers{Seq: s.Seq, Drivers: []query.Driver{}}
	used := chosen(s)
	ids := maps.Clone(used)
	for id := range s.Drivers {
		ids[id] = true
	}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		out.Drivers = append(out.Drivers, e.driverLine(s, id, used[id]))
	}
	return out
}

func (e *Engine) driverLine(s *core.State, id string, used bool) query.Driver {
	q := query.Driver{Driver: core.Driver{ID: id}, Chosen: used}
	if d := s.Drivers[id]; d != nil {
		q.Driver = *d
	}
	for _, st := range e.stepsBy(id) {
		if st.State == stepWaiting {
			q.Waiting++
		} else {
			q.InFlight++
		}
	}
	return q
}

// stepsBy are the steps of one driver.
func (e *Engine) stepsBy(id string) []query.Step {
	all := e.dispatch.list(func(*slot) bool { return true })
	return slices.DeleteFunc(all, func(st query.Step) bool { return st.Driver != id })
}

func (e *Engine) inspectDriver(s *core.State, in query.RefIn) (any, error) {
	id, err := findDriver(s, in.Ref)
	if err != nil {
		return nil, err
	}
	return query.DriverDetail{Seq: s.Seq, Driver: e.driverLine(s, id, chosen(s)[id]), Steps: e.stepsBy(id)}, nil
}

// findDriver takes "kind/name", or "kind-name" as in the program's name.
func findDriver(s *core.State, ref string) (string, error) {
	known := chosen(s)
	for id := range s.Drivers {
		known[id] = true
	}
	if known[ref] {
		return ref, nil
	}
	for id := range known {
		if strings.Replace(id, "/", "-", 1) == strings.TrimPrefix(ref, "gantry-") {
			return id, nil
		}
	}
	err := errclass.Errorf(errdefs.ErrNotFound, "no such driver: %s", ref)
	return "", hinted(err, ref, slices.Collect(maps.Keys(known)))
}
