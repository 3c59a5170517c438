package core

import "github.com/containerd/errdefs"

// TagImage gives an image a further name, taking it from whoever has it.
type TagImage struct {
	Image string `json:"image"` // as FindImage takes it
	Name  string `json:"name"`  // full reference, normalised by the sender
}

func (*TagImage) name() string { return "image.tag" }

func (c *TagImage) decide(s *State, r Request) ([]Event, error) {
	i, err := s.FindImage(c.Image)
	if err != nil {
		return nil, err
	}
	if err := checkReference(c.Name); err != nil {
		return nil, err
	}
	return []Event{&ImageTagged{Header: about(i.ID.noun()), Ref: c.Name}, jobDone(r.Job)}, nil
}

// maxReference is the length that registries allow for a name with its tag.
const maxReference = 255 + 1 + 128

// checkReference refuses what cannot be a full reference; the finer rules are
// those of the sender, who normalised it.
func checkReference(ref string) error {
	if ref == "" || len(ref) > maxReference {
		return refuse(errdefs.ErrInvalidArgument, "invalid image reference %q", ref)
	}
	return nil
}

// ImageTagged says that an image has a further name.
type ImageTagged struct {
	Header
	Ref string `json:"ref"`
}

func (*ImageTagged) name() string { return "image.tagged" }

func (e *ImageTagged) apply(s *State) []Noun {
	return s.nameImage(e.Seq, s.Images[ImageID(e.ID)], e.Ref)
}

// ImageNamed says that the store shows the names that the image has.
type ImageNamed struct{ Header }

func (*ImageNamed) name() string { return "image.named" }

func (e *ImageNamed) apply(s *State) []Noun {
	s.Images[ImageID(e.ID)].Naming = Slot{Held, e.Seq}
	return []Noun{e.Of()}
}

func (st NameImage) finish(s *State, r *FinishStep) []Event {
	if r.Fault != nil {
		return []Event{releaseFailed(st.StepID, r.Fault)}
	}
	return []Event{&ImageNamed{Header: about(st.Image.noun())}}
}
