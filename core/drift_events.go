package core

import "slices"

// LayerLost says that a layer is gone from the machine; it is owed again.
type LayerLost struct{ Header }

func (*LayerLost) name() string { return "layer.lost" }

func (e *LayerLost) apply(s *State) []Noun {
	l := s.Layers[LayerID(e.ID)]
	l.Slot = Slot{Absent, e.Seq}
	for _, i := range s.imagesOn(l.ID) {
		i.Ready = false
	}
	touched := s.neighbours(l)
	s.dropLayer(l)
	return touched
}

// LayerStray says that the machine holds a layer that no image has; it is given
// back.
type LayerStray struct{ Header }

func (*LayerStray) name() string { return "layer.stray" }

func (e *LayerStray) apply(s *State) []Noun {
	id := LayerID(e.ID)
	s.Layers[id] = &Layer{ID: id, Slot: Slot{Unsure, e.Seq}}
	return []Noun{id.noun()}
}

// RootfsLost says that a root filesystem is gone, and with it what the
// container had written.
type RootfsLost struct{ Header }

func (*RootfsLost) name() string { return "container.rootfs-lost" }

func (e *RootfsLost) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		c.Rootfs.State, c.Rootfs.Mounts = Absent, nil
		c.Prepared = false // whoever had asked for it has had it
	})
}

// NetworkLost says that a container's endpoint is gone; it is owed again if the
// container is wanted running.
type NetworkLost struct {
	Header
	Network NetworkID `json:"network"`
}

func (*NetworkLost) name() string { return "container.network-lost" }

func (e *NetworkLost) apply(s *State) []Noun {
	return s.fold(&e.Header, func(c *Container) {
		if n := c.net(e.Network); n != nil {
			n.State, n.Endpoint = Unsure, Endpoint{} // something of it may be left
		}
	})
}

// NetworkGone says that a network is gone from the machine; it is owed again.
type NetworkGone struct{ Header }

func (*NetworkGone) name() string { return "network.gone" }

func (e *NetworkGone) apply(s *State) []Noun {
	n := s.Networks[NetworkID(e.ID)]
	n.Slot = Slot{Absent, e.Seq}
	return s.dependents(n)
}

// ImageLost says that an image's content is gone from the store. Containers on
// it go on: their layers are unpacked.
type ImageLost struct{ Header }

func (*ImageLost) name() string { return "image.lost" }

func (e *ImageLost) apply(s *State) []Noun {
	i := s.Images[ImageID(e.ID)]
	i.Store = Slot{Unsure, e.Seq}
	return []Noun{e.Of()}
}

// ImageStray says that the store holds an image that the log does not know; it
// is given back.
type ImageStray struct{ Header }

func (*ImageStray) name() string { return "image.stray" }

func (e *ImageStray) apply(s *State) []Noun {
	id := ImageID(e.ID)
	s.Images[id] = &Image{ID: id, Want: Removed, Store: Slot{Unsure, e.Seq}}
	return []Noun{id.noun()}
}

// StrayFound says that a driver holds something for nobody; it is given back.
type StrayFound struct {
	Header
	Item Item `json:"item"`
}

func (*StrayFound) name() string { return "driver.stray-found" }

func (e *StrayFound) apply(s *State) []Noun {
	d := s.driver(e.ID)
	d.Strays = append(slices.Clone(d.Strays), Stray{e.Item, Slot{Unsure, e.Seq}})
	return []Noun{e.Of()}
}

// strayFound: each stray is told once, for as long as it is owed.
func (s *State) strayFound(driver string, i Item) []Event {
	if d := s.Drivers[driver]; d != nil && slices.ContainsFunc(d.Strays, func(st Stray) bool { return st.Item.key() == i.key() }) {
		return nil
	}
	return []Event{&StrayFound{Header: about(Noun{KindDriver, driver}), Item: i}}
}

// StrayGivenBack says that it is gone.
type StrayGivenBack struct {
	Header
	Item Item `json:"item"`
}

func (*StrayGivenBack) name() string { return "driver.stray-given-back" }

func (e *StrayGivenBack) apply(s *State) []Noun {
	d := s.driver(e.ID)
	d.Strays = slices.DeleteFunc(slices.Clone(d.Strays), func(st Stray) bool { return st.Item.key() == e.Item.key() })
	return []Noun{e.Of()}
}

func (st GiveBack) finish(_ *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	return []Event{&StrayGivenBack{Header: about(st.StepID.Noun()), Item: st.Item}}
}

// StrayQuarantined says that a driver holds something that the log never knew
// and that may be somebody's work: it is left alone, for a person to decide on.
type StrayQuarantined struct {
	Header
	Item Item `json:"item"`
}

func (*StrayQuarantined) name() string { return "driver.stray-quarantined" }

func (e *StrayQuarantined) apply(s *State) []Noun {
	s.Strays[e.Item.key()] = e.Item
	return nil
}

func (s *State) quarantine(driver string, i Item) []Event {
	if _, told := s.Strays[i.key()]; told {
		return nil
	}
	return []Event{&StrayQuarantined{Header: about(Noun{KindDriver, driver}), Item: i}}
}
