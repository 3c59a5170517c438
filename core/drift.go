package core

import "sort"

// ReportInventory tells what a driver holds. The host sends it when a driver
// instance starts, before that instance's first step, and for Reconcile.
//
// What the log wants and the machine lacks is owed again; what the machine
// holds for nobody is given back, except what may hold somebody's work: a
// running process or a writable root filesystem that the log never knew is
// quarantined and reported.
type ReportInventory struct {
	Kind     string `json:"kind"`
	Driver   string `json:"driver"`
	Instance string `json:"instance"`
	Items    []Item `json:"items"`
	// Since is the sequence of the event by which the driver was asked while other steps
	// ran: what was recorded later may not be among Items yet. 0: none ran.
	Since uint64 `json:"since,omitempty"`
}

func (*ReportInventory) name() string { return "driver.report-inventory" }

func (c *ReportInventory) decide(s *State, r Request) ([]Event, error) {
	held := make(map[string]Item, len(c.Items))
	for _, i := range c.Items {
		held[i.key()] = i
	}
	var events []Event
	switch c.Kind {
	case "graphdriver":
		if c.Driver == s.Engine.Drivers.Graph {
			events = s.graphDrift(held)
		}
	case "net":
		events = s.netDrift(c.Driver, held)
	case "exec":
		if c.Driver == s.Engine.Drivers.Exec {
			events = s.execDrift(r, held)
		}
	case "image":
		if c.Driver == s.Engine.Drivers.Image {
			events = s.imageDrift(held, c.Since)
		}
	}
	return events, nil
}

// sorted is the items in a stable order.
func sorted(held map[string]Item) []Item {
	items := make([]Item, 0, len(held))
	for _, i := range held {
		items = append(items, i)
	}
	sort.Slice(items, func(a, b int) bool { return items[a].key() < items[b].key() })
	return items
}

func (s *State) graphDrift(held map[string]Item) []Event {
	var events []Event
	for _, n := range s.Nouns() {
		if n.Kind == KindLayer {
			l := s.Layers[LayerID(n.ID)]
			if _, ok := held[Item{Kind: "layer", Key: n.ID}.key()]; !ok && l.Slot.State == Held {
				events = append(events, &LayerLost{Header: about(n)})
			}
		}
		if n.Kind == KindContainer {
			c := s.Containers[ContainerID(n.ID)]
			if _, ok := held[Item{Kind: "rootfs", Key: n.ID}.key()]; !ok && c.Rootfs.State == Held && !c.Running() && c.rootfsVerb() == "" {
				events = append(events, &RootfsLost{Header: about(n)})
			}
		}
	}
	for _, i := range sorted(held) {
		switch {
		case i.Kind == "layer" && s.Layers[LayerID(i.Key)] == nil:
			events = append(events, &LayerStray{Header: about(LayerID(i.Key).noun())})
		case i.Kind == "rootfs" && s.Containers[ContainerID(i.Key)] == nil:
			events = append(events, s.quarantine("graphdriver/"+s.Engine.Drivers.Graph, i)...)
		}
	}
	return events
}

func (s *State) netDrift(driver string, held map[string]Item) []Event {
	var events []Event
	mine := func(id NetworkID) bool { n := s.Networks[id]; return n != nil && n.Driver == driver }
	known := make(map[string]bool)
	for _, n := range s.Nouns() {
		switch n.Kind {
		case KindNetwork:
			key := Item{Kind: "network", Key: n.ID}.key()
			w := s.Networks[NetworkID(n.ID)]
			known[key] = w.Slot.State != Absent || w.verb() != ""
			if _, ok := held[key]; !ok && mine(w.ID) && w.Want == Present && w.Slot.State == Held {
				events = append(events, &NetworkGone{Header: about(n)})
			}
		case KindContainer:
			c := s.Containers[ContainerID(n.ID)]
			for i := range c.Nets {
				slot := &c.Nets[i]
				key := Item{Kind: "endpoint", Key: n.ID, Network: string(slot.Network), Run: slot.Run}.key()
				known[key] = slot.State != Absent || c.netVerb(i) != ""
				// The namespace of a running process lives as long as the process.
				if _, ok := held[key]; !ok && mine(slot.Network) && slot.State == Held && !c.Running() {
					events = append(events, &NetworkLost{Header: about(n), Network: slot.Network})
				}
			}
		}
	}
	for _, i := range sorted(held) {
		if !known[i.key()] {
			events = append(events, s.strayFound("net/"+driver, i)...)
		}
	}
	return events
}

func (s *State) execDrift(r Request, held map[string]Item) []Event {
	var events []Event
	for _, n := range s.Nouns() {
		if n.Kind != KindContainer {
			continue
		}
		c := s.Containers[ContainerID(n.ID)]
		runs := c.Running()
		if _, ok := held[Item{Kind: "process", Key: n.ID, Run: c.Process.Run}.key()]; !ok && runs {
			runs = false
			events = append(events, c.exited(Exit{
				Run: c.Process.Run, Code: 137, Lost: true, Reason: "process lost", Time: r.Time,
			}, r.Time.Sub(c.Started))...)
		}
		events = append(events, c.execsLost(Exit{Code: 137, Lost: true, Reason: "process lost", Time: r.Time}, held)...)
		if _, ok := held[Item{Kind: "userns", Key: n.ID}.key()]; !ok && c.UserNS.State == Held && !runs {
			events = append(events, &UserNSLost{Header: about(n)})
		}
	}
	driver := "exec/" + s.Engine.Drivers.Exec
	for _, i := range sorted(held) {
		c := s.Containers[ContainerID(i.Key)]
		switch {
		case c != nil && c.expects(i):
		case c == nil && i.Kind == "process" && i.State == "running":
			events = append(events, s.quarantine(driver, i)...)
		default:
			events = append(events, s.strayFound(driver, i)...)
		}
	}
	return events
}

// expects reports whether the container holds, or may hold, what an exec driver
// has.
func (c *Container) expects(i Item) bool {
	switch {
	case i.Kind == "userns":
		return c.UserNS.State != Absent || c.usernsVerb() == "hold"
	case i.Exec == "":
		return c.Process.Run == i.Run && (c.Process.State != Absent || c.processVerb() == "start")
	}
	for k := range c.Execs {
		if x := &c.Execs[k]; string(x.ID) == i.Exec {
			return x.Run == i.Run && (x.State != Absent || c.execVerb(k) == "start")
		}
	}
	return false
}

func (s *State) imageDrift(held map[string]Item, since uint64) []Event {
	var events []Event
	for _, n := range s.Nouns() {
		if n.Kind != KindImage {
			continue
		}
		store := s.Images[ImageID(n.ID)].Store
		if _, ok := held[Item{Kind: "image", Key: n.ID}.key()]; !ok && store.State == Held && (since == 0 || store.Turn <= since) {
			events = append(events, &ImageLost{Header: about(n)})
		}
	}
	if s.reading() {
		return events // what is not known may be what is being read
	}
	for _, i := range sorted(held) {
		if s.Images[ImageID(i.Key)] == nil {
			events = append(events, &ImageStray{Header: about(ImageID(i.Key).noun())})
		}
	}
	return events
}

// reading reports whether a load is owed or running.
func (s *State) reading() bool {
	for _, j := range s.Jobs {
		if j.owing() && j.Load.Slot.State == Absent {
			return true
		}
	}
	return false
}
