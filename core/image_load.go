package core

import (
	"path"
	"slices"
	"sort"

	"github.com/containerd/errdefs"
)

// LoadImage reads an image archive. The job itself owes the reading, since
// nobody knows before which images are in it; it ends when all of them are
// ready.
type LoadImage struct {
	Archive  string `json:"archive"` // path of the file, readable by the image driver
	Platform string `json:"platform,omitempty"`
}

func (*LoadImage) name() string { return "image.load" }

// Load is what a load job is to read.
type Load struct {
	Archive  string `json:"archive"`
	Platform string `json:"platform,omitempty"`
	Slot     Slot   `json:"slot,omitzero"` // absent: to be read; held: read
}

func (c *LoadImage) decide(s *State, r Request) ([]Event, error) {
	if !path.IsAbs(c.Archive) {
		return nil, refuse(errdefs.ErrInvalidArgument, "archive %q is not an absolute path", c.Archive)
	}
	if err := anyOf(s.needDriver("image", s.Engine.Drivers.Image), s.needDriver("graphdriver", s.Engine.Drivers.Graph)); err != nil {
		return nil, err
	}
	return []Event{&ImageLoadWanted{Header: about(Noun{KindJob, string(r.Job)}), Archive: c.Archive, Platform: c.Platform}}, nil
}

func (c *LoadImage) subject(*State) Noun { return Noun{Kind: KindJob} }

// ImageLoadWanted says that an archive is to be read.
type ImageLoadWanted struct {
	Header
	Archive  string `json:"archive"`
	Platform string `json:"platform,omitempty"`
}

func (*ImageLoadWanted) name() string { return "image.load-wanted" }

func (e *ImageLoadWanted) apply(s *State) []Noun {
	s.Jobs[JobID(e.ID)].Load = &Load{Archive: e.Archive, Platform: e.Platform, Slot: Slot{Turn: e.Seq}}
	return append(s.unsettled(), e.Of())
}

// unsettled are the loads after which is to be looked: not while another one reads.
func (s *State) unsettled() []Noun {
	var nouns []Noun
	for id, j := range s.Jobs {
		if j.Load != nil && j.Load.Slot.State == Unsure {
			nouns = append(nouns, Noun{KindJob, string(id)})
		}
	}
	return nouns
}

// owing reports whether the job has work for a driver: an archive to read, or
// to look after what a failed or cancelled reading may have left.
func (j *Job) owing() bool {
	return j.Load != nil && (j.Open() && j.Load.Slot.State == Absent || j.Load.Slot.State == Unsure)
}

func (j *Job) next(s *State) []Step {
	if !j.owing() {
		return nil
	}
	verb := "read"
	if j.Load.Slot.State == Unsure {
		if verb = "reconcile"; s.reading() {
			return nil // what the driver holds for nobody may be what is being read
		}
	}
	id := owed(stepID(Noun{KindJob, string(j.ID)}, "load", verb, j.Load.Slot.Turn), "image", s.Engine.Drivers.Image)
	if verb == "reconcile" {
		return []Step{Reconcile{id}}
	}
	return []Step{LoadArchive{id, j.Load.Archive, j.Load.Platform}}
}

func (st LoadArchive) finish(s *State, r *FinishStep) []Event {
	id := JobID(st.StepID.Noun().ID)
	if r.Fault != nil {
		fault := *r.Fault
		fault.Step = st.StepID
		return []Event{ended(id, JobFailed, "", &fault)}
	}
	done := &ArchiveLoaded{Header: about(st.StepID.Noun())}
	events := []Event{done}
	var busy *Fault
	for _, img := range r.Result.Images {
		if old := s.Images[img.ID]; old != nil && old.Want == Removed {
			busy = &Fault{st.StepID, "unavailable", sprintf("image %.19s is being removed: load it again", img.ID)}
			continue
		}
		done.Images = append(done.Images, img.ID)
		e := &ImageLoaded{Header: about(img.ID.noun()), LoadedImage: img, Ready: s.allHeld(img.Layers)}
		e.Job = id
		if !e.Ready && !slices.Contains(done.Awaits, img.ID) {
			done.Awaits = append(done.Awaits, img.ID)
		}
		events = append(events, e)
	}
	switch {
	case busy != nil:
		events = append(events, ended(id, JobFailed, "", busy))
	case len(done.Awaits) == 0:
		events = append(events, jobDone(id))
	}
	return events
}

// allHeld reports whether the layers are held and stay so.
func (s *State) allHeld(layers []ImageLayer) bool {
	for _, il := range layers {
		if l := s.Layers[il.ID]; l == nil || l.Slot.State != Held || l.Users == 0 {
			return false
		}
	}
	return true
}

// ArchiveLoaded says which images an archive held.
type ArchiveLoaded struct {
	Header
	Images []ImageID `json:"images"`
	Awaits []ImageID `json:"awaits,omitempty"` // those whose layers are not all unpacked yet
}

func (*ArchiveLoaded) name() string { return "image.archive-loaded" }

func (e *ArchiveLoaded) apply(s *State) []Noun {
	j := s.Jobs[JobID(e.ID)]
	j.Load.Slot = Slot{Held, e.Seq}
	j.Loaded, j.Awaits = e.Images, e.Awaits
	return append(s.unsettled(), e.Of())
}

// ImageLoaded says that an image's content is in the store. Its names are taken
// from images that had them.
type ImageLoaded struct {
	Header
	LoadedImage `json:"image"`
	Ready       bool `json:"ready,omitempty"` // all its layers are held already
}

func (*ImageLoaded) name() string { return "image.loaded" }

func (e *ImageLoaded) apply(s *State) []Noun {
	id := e.LoadedImage.ID
	i := s.Images[id]
	touched := []Noun{id.noun()}
	if i == nil {
		l := &e.LoadedImage
		i = &Image{
			ID: id, Manifest: l.Manifest, Layers: l.Layers, Size: l.Size, Created: l.Created,
			Architecture: l.Architecture, OS: l.OS, Config: l.Config, Want: Present, Ready: e.Ready,
			Store: Slot{Held, e.Seq},
		}
		s.Images[id] = i
		touched = append(touched, s.useLayers(e.Seq, l.Layers, 1)...)
	} else {
		touched = append(touched, s.tryLayers(e.Seq, i.Layers)...)
	}
	i.Ready = i.Ready || e.Ready
	i.Whole = i.Whole || i.Ready
	if i.Store.State != Held { // its content was lost, and is back
		i.Store = Slot{Held, e.Seq}
	}
	for _, ref := range e.Names {
		touched = append(touched, s.nameImage(e.Seq, i, ref)...)
	}
	return touched
}

// nameImage gives ref to i, taking it from whoever has it.
func (s *State) nameImage(seq uint64, i *Image, ref string) []Noun {
	touched := []Noun{i.ID.noun()}
	if old := s.Images[s.refs[ref]]; old != nil {
		if old == i {
			return touched
		}
		old.setNames(seq, slices.DeleteFunc(slices.Clone(old.Names), func(n string) bool { return n == ref }))
		touched = append(touched, old.ID.noun())
	}
	s.refs[ref] = i.ID
	names := append(slices.Clone(i.Names), ref)
	sort.Strings(names)
	i.setNames(seq, names)
	return touched
}

// setNames changes the names; the store is to be told.
func (i *Image) setNames(seq uint64, names []string) {
	i.Names = names
	i.Naming = Slot{Absent, seq}
}

// ImageReady says that all layers of an image are held.
type ImageReady struct{ Header }

func (*ImageReady) name() string { return "image.ready" }

func (e *ImageReady) apply(s *State) []Noun {
	i := s.Images[ImageID(e.ID)]
	i.Ready, i.Whole = true, true
	for _, j := range s.Jobs {
		if slices.Contains(j.Awaits, i.ID) {
			j.Awaits = slices.DeleteFunc(slices.Clone(j.Awaits), func(k ImageID) bool { return k == i.ID })
		}
	}
	return []Noun{e.Of()}
}

// imagesOn lists the wanted images that list the layer, in a stable order.
func (s *State) imagesOn(id LayerID) []*Image {
	var on []*Image
	for _, i := range s.Images {
		if i.Want == Present && slices.ContainsFunc(i.Layers, func(l ImageLayer) bool { return l.ID == id }) {
			on = append(on, i)
		}
	}
	sort.Slice(on, func(a, b int) bool { return on[a].ID < on[b].ID })
	return on
}

// imagesReady says which images become ready when the layer is held, and which
// loads are done with that.
func (s *State) imagesReady(layer LayerID) []Event {
	var events []Event
	left := make(map[JobID][]ImageID)
	for _, i := range s.imagesOn(layer) {
		missing := slices.ContainsFunc(i.Layers, func(il ImageLayer) bool {
			l := s.Layers[il.ID]
			return il.ID != layer && (l == nil || l.Slot.State != Held)
		})
		if missing || i.Ready {
			continue
		}
		events = append(events, &ImageReady{Header: about(i.ID.noun())})
		for _, id := range s.loadsAwaiting(i.ID) {
			rest, ok := left[id]
			if !ok {
				rest = slices.Clone(s.Jobs[id].Awaits)
			}
			rest = slices.DeleteFunc(rest, func(k ImageID) bool { return k == i.ID })
			left[id] = rest
			if len(rest) == 0 {
				events = append(events, jobDone(id))
			}
		}
	}
	return events
}

// loadsAwaiting lists the open loads that wait for the image, oldest first.
func (s *State) loadsAwaiting(id ImageID) []JobID {
	var open []JobID
	for _, j := range s.Jobs {
		if j.Open() && slices.Contains(j.Awaits, id) {
			open = append(open, j.ID)
		}
	}
	slices.Sort(open)
	return open
}

// cancelLoad takes a load back: what it brought and is not ready goes. What was there
// before and is only made whole again stays.
func (s *State) cancelLoad(j *Job, by JobID) []Event {
	events := []Event{ended(j.ID, JobCancelled, by, nil)}
	for _, id := range j.Awaits {
		i, others := s.Images[id], without(s.loadsAwaiting(id), j.ID)
		if len(others) == 0 && i != nil && i.Want == Present && !i.Whole {
			events = append(events, &ImageRemoveWanted{Header: about(id.noun())})
		}
	}
	return events
}

// LoadSettled says that nothing is left of a reading that failed or was
// cancelled: the driver's inventory was looked through.
type LoadSettled struct{ Header }

func (*LoadSettled) name() string { return "image.load-settled" }

func (e *LoadSettled) apply(s *State) []Noun {
	s.Jobs[JobID(e.ID)].Load.Slot = Slot{Held, e.Seq}
	return []Noun{e.Of()}
}

func (st Reconcile) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	return []Event{&LoadSettled{Header: about(st.StepID.Noun())}}
}

// dropRepeatedEnds keeps the first end of each job.
func dropRepeatedEnds(events []Event) []Event {
	seen := make(map[string]bool)
	kept := events[:0]
	for _, e := range events {
		if j, ok := e.(*JobEnded); ok {
			if seen[j.ID] {
				continue
			}
			seen[j.ID] = true
		}
		kept = append(kept, e)
	}
	return kept
}
