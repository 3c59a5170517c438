package core

import (
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// DropImage takes a name from an image; with the last one, or by id, the image
// itself goes.
type DropImage struct {
	Image string `json:"image"` // a name, or an id
	Force bool   `json:"force,omitempty"`
}

func (*DropImage) name() string { return "image.remove" }

func (c *DropImage) decide(s *State, r Request) ([]Event, error) {
	i, err := s.FindImage(c.Image)
	if err != nil {
		return nil, err
	}
	byName := s.refs[c.Image] == i.ID
	if byName && len(i.Names) > 1 {
		return []Event{&ImageUntagged{Header: about(i.ID.noun()), Ref: c.Image}, jobDone(r.Job)}, nil
	}
	if !byName && len(i.Names) > 1 && !c.Force {
		return nil, refuse(errdefs.ErrConflict, "image %.19s has several names (%s): remove them one by one, or force it",
			i.ID, strings.Join(i.Names, ", "))
	}
	if k := s.usedBy(i.ID); k != nil {
		return nil, refuse(errdefs.ErrConflict, "image %s is used by container %s: remove that first", c.Image, k.Name)
	}
	events := []Event{&ImageRemoveWanted{Header: about(i.ID.noun()), Waiting: r.Job}}
	fault := &Fault{Class: "aborted", Message: "the image was removed while it was being loaded"}
	for _, j := range s.loadsAwaiting(i.ID) {
		events = append(events, ended(j, JobFailed, "", fault))
	}
	return events, nil
}

// ImageUntagged says that an image has lost a name.
type ImageUntagged struct {
	Header
	Ref string `json:"ref"`
}

func (*ImageUntagged) name() string { return "image.untagged" }

func (e *ImageUntagged) apply(s *State) []Noun {
	i := s.Images[ImageID(e.ID)]
	delete(s.refs, e.Ref)
	i.setNames(e.Seq, slices.DeleteFunc(slices.Clone(i.Names), func(n string) bool { return n == e.Ref }))
	return []Noun{e.Of()}
}

// ImageRemoveWanted turns the want to removed; its names are free from here on.
type ImageRemoveWanted struct {
	Header
	Waiting JobID  `json:"waiting,omitempty"` // the job that is done when the image is gone
	Fault   *Fault `json:"fault,omitempty"`   // set when a layer of it could not be unpacked
}

func (*ImageRemoveWanted) name() string { return "image.remove-wanted" }

func (e *ImageRemoveWanted) apply(s *State) []Noun {
	i := s.Images[ImageID(e.ID)]
	for _, ref := range i.Names {
		delete(s.refs, ref)
	}
	i.Names, i.Want, i.Ready, i.Jobs = nil, Removed, false, jobs(e.Waiting)
	i.Store.Turn = e.Seq
	return append([]Noun{e.Of()}, s.useLayers(e.Seq, i.Layers, -1)...)
}

// ImageRemoved says that an image's content is gone from the store.
type ImageRemoved struct{ Header }

func (*ImageRemoved) name() string { return "image.removed" }

func (e *ImageRemoved) apply(s *State) []Noun {
	delete(s.Images, ImageID(e.ID))
	return []Noun{e.Of()}
}

func (st RemoveImage) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	events := []Event{&ImageRemoved{Header: about(st.Image.noun())}}
	return append(events, endJobs(s.Images[st.Image].Jobs, JobDone, "", nil)...)
}
