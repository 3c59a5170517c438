package core

// Layer is one unpacked layer. It is wanted as long as an image that is wanted
// lists it; images share it.
type Layer struct {
	ID     LayerID    `json:"id"`
	Parent LayerID    `json:"parent,omitempty"`
	Users  int        `json:"users,omitempty"` // images wanted present that list it
	Source ImageLayer `json:"source"`          // where its archive is
	Size   int64      `json:"size,omitempty"`  // bytes unpacked
	Slot   Slot       `json:"slot"`
	Fault  *Fault     `json:"fault,omitempty"` // why it could not be unpacked; not tried again until it is loaded again
}

func (id LayerID) noun() Noun { return Noun{KindLayer, string(id)} }

// verb is what the layer owes, whatever its neighbours are.
func (l *Layer) verb() string {
	switch {
	case l.Slot.State == Unsure, l.Slot.State == Held && l.Users == 0:
		return "remove"
	case l.Slot.State == Absent && l.Users > 0 && l.Fault == nil:
		return "apply"
	}
	return ""
}

// next: a layer is applied when its parent is held, and removed when nothing
// stands on it.
func (l *Layer) next(s *State) []Step {
	verb := l.verb()
	if verb == "" {
		return nil
	}
	if verb == "remove" && s.isParent(l.ID) {
		if l.Users == 0 || l.Fault != nil || l.Slot.State != Unsure {
			return nil
		}
		verb = "apply" // it was lost from under others, who are wanted: it can only be unpacked again
	}
	id := owed(stepID(l.ID.noun(), "layer", verb, l.Slot.Turn), "graphdriver", s.Engine.Drivers.Graph)
	switch verb {
	case "apply":
		if p := s.Layers[l.Parent]; l.Parent != "" && (p == nil || p.Slot.State != Held) {
			return nil
		}
		return []Step{ApplyLayer{id, l.ID, l.Parent, l.Source.Path, l.Source.Digest, l.Source.DiffID, l.Source.MediaType}}
	case "remove":
		return []Step{RemoveLayer{id, l.ID}}
	}
	return nil
}

// isParent reports whether a layer stands, or may stand, on this one.
func (s *State) isParent(id LayerID) bool {
	for _, child := range s.Layers {
		if child.Parent == id && child.Slot.State != Absent {
			return true
		}
	}
	return false
}

// turn changes the layer by f; when that turns what is owed, an acquisition or
// release that may be running leaves the slot unsure.
func (l *Layer) turn(seq uint64, f func()) {
	was := l.verb()
	f()
	if was != "" && l.verb() != was {
		l.Slot.State = Unsure
	}
	if l.verb() != was {
		l.Slot.Turn = seq
	}
}

// useLayers counts an image's layers as used by one more (or, with -1, one
// less) and returns the layers and their neighbours.
func (s *State) useLayers(seq uint64, layers []ImageLayer, by int) []Noun {
	var touched []Noun
	parent := LayerID("")
	for _, il := range layers {
		l := s.Layers[il.ID]
		if l == nil {
			l = &Layer{ID: il.ID, Parent: parent, Source: il}
			s.Layers[il.ID] = l
		}
		if by > 0 {
			l.Source = il
			l.Parent = parent
		}
		l.turn(seq, func() {
			if by > 0 {
				l.Fault = nil
			}
			l.Users += by
		})
		s.dropLayer(l)
		touched = append(touched, il.ID.noun())
		parent = il.ID
	}
	return touched
}

// tryLayers has layers that could not be unpacked tried again: their archives have
// been read anew.
func (s *State) tryLayers(seq uint64, layers []ImageLayer) []Noun {
	var touched []Noun
	for _, il := range layers {
		if l := s.Layers[il.ID]; l != nil && l.Fault != nil {
			l.Fault, l.Slot.Turn = nil, seq
			touched = append(touched, l.ID.noun())
		}
	}
	return touched
}

// dropLayer forgets a layer that nobody wants and nobody holds.
func (s *State) dropLayer(l *Layer) {
	if l.Users == 0 && l.Slot.State == Absent {
		delete(s.Layers, l.ID)
	}
}

// neighbours are the layers whose steps wait for l: its parent and its children.
func (s *State) neighbours(l *Layer) []Noun {
	touched := []Noun{l.ID.noun()}
	if l.Parent != "" {
		touched = append(touched, l.Parent.noun())
	}
	for _, k := range s.Layers {
		if k.Parent == l.ID {
			touched = append(touched, k.ID.noun())
		}
	}
	return touched
}

// LayerApplied says that a layer is unpacked.
type LayerApplied struct {
	Header
	Size int64 `json:"size"`
}

func (*LayerApplied) name() string { return "layer.applied" }

func (e *LayerApplied) apply(s *State) []Noun {
	l := s.Layers[LayerID(e.ID)]
	l.Slot, l.Size, l.Fault = Slot{Held, e.Seq}, e.Size, nil
	return s.neighbours(l)
}

func (st ApplyLayer) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return s.layerFailed(st, r.Fault)
	}
	events := []Event{&LayerApplied{Header: about(st.Layer.noun()), Size: r.Result.Size}}
	return append(events, s.imagesReady(st.Layer)...)
}

// LayerFailed says that a layer could not be unpacked.
type LayerFailed struct {
	Header
	Fault Fault `json:"fault"`
}

func (*LayerFailed) name() string { return "layer.failed" }

func (e *LayerFailed) apply(s *State) []Noun {
	l := s.Layers[LayerID(e.ID)]
	l.Slot, l.Fault = Slot{Unsure, e.Seq}, &e.Fault
	return s.neighbours(l)
}

// layerFailed: the images that waited for the layer cannot be; they are given
// back, and the loads that brought them have failed. One that was whole once stays:
// containers may stand on it, and a person decides what becomes of it.
func (s *State) layerFailed(st ApplyLayer, f *Fault) []Event {
	fault := *f
	fault.Step = st.StepID
	events := []Event{&LayerFailed{Header: about(st.Layer.noun()), Fault: fault}}
	for _, i := range s.imagesOn(st.Layer) {
		loads := s.loadsAwaiting(i.ID)
		for _, j := range loads {
			events = append(events, ended(j, JobFailed, "", &fault))
		}
		if len(loads) > 0 && !i.Whole {
			events = append(events, &ImageRemoveWanted{Header: about(i.ID.noun()), Fault: &fault})
		}
	}
	return dropRepeatedEnds(events)
}

// LayerRemoved says that a layer is given back.
type LayerRemoved struct{ Header }

func (*LayerRemoved) name() string { return "layer.removed" }

func (e *LayerRemoved) apply(s *State) []Noun {
	l := s.Layers[LayerID(e.ID)]
	l.Slot = Slot{Absent, e.Seq}
	touched := s.neighbours(l)
	s.dropLayer(l)
	return touched
}

func (st RemoveLayer) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	return []Event{&LayerRemoved{Header: about(st.Layer.noun())}}
}
