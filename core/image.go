package core

import (
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Image is one image: its content is in the image driver's store, its layers
// are nouns of their own, shared with other images.
type Image struct {
	ID           ImageID      `json:"id"`
	Manifest     string       `json:"manifest"`
	Names        []string     `json:"names,omitempty"` // full references, sorted
	Layers       []ImageLayer `json:"layers,omitempty"`
	Size         int64        `json:"size"` // bytes of the layer archives
	Created      time.Time    `json:"created,omitzero"`
	Architecture string       `json:"architecture,omitempty"`
	OS           string       `json:"os,omitempty"`
	Config       ImageConfig  `json:"config"`

	Want   Want    `json:"want"`
	Ready  bool    `json:"ready,omitempty"` // all layers are held: containers can be made
	Whole  bool    `json:"whole,omitempty"` // it has been ready: no load takes it along when that ends badly
	Jobs   []JobID `json:"jobs,omitempty"`  // open removals
	Store  Slot    `json:"store"`
	Naming Slot    `json:"naming,omitzero"` // held: the store shows the names; absent: it must be told
}

// ImageLayer is one layer archive of an image, lowest first.
type ImageLayer struct {
	ID        LayerID `json:"id"` // chain id
	DiffID    string  `json:"diff_id"`
	Digest    string  `json:"digest"`
	MediaType string  `json:"media_type"`
	Size      int64   `json:"size"`
	Path      string  `json:"path"` // of the archive in the store
}

// ImageConfig is what an image says about running it. It is as public as the
// image, and stays in clear.
type ImageConfig struct {
	User         string            `json:"user,omitempty"`
	Env          []Env             `json:"env,omitempty"`
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Cwd          string            `json:"cwd,omitempty"`
	StopSignal   int               `json:"stop_signal,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"`
	Volumes      []string          `json:"volumes,omitempty"`
	Health       *Health           `json:"health,omitempty"`
}

// LoadedImage is an image that the image driver found in an archive.
type LoadedImage struct {
	ID           ImageID      `json:"id"`
	Manifest     string       `json:"manifest"`
	Names        []string     `json:"names,omitempty"`
	Layers       []ImageLayer `json:"layers,omitempty"`
	Size         int64        `json:"size"`
	Created      time.Time    `json:"created,omitzero"`
	Architecture string       `json:"architecture,omitempty"`
	OS           string       `json:"os,omitempty"`
	Config       ImageConfig  `json:"config"`
}

func (id ImageID) noun() Noun { return Noun{KindImage, string(id)} }

func (i *Image) topLayer() LayerID {
	if len(i.Layers) == 0 {
		return ""
	}
	return i.Layers[len(i.Layers)-1].ID
}

// storeVerb and nameVerb are what the image's slots owe.
func (i *Image) storeVerb() string {
	if i.Want == Removed && i.Store.State != Absent {
		return "remove"
	}
	return ""
}

func (i *Image) nameVerb() string {
	if i.Want == Present && i.Store.State == Held && i.Naming.State == Absent {
		return "name"
	}
	return ""
}

func (i *Image) next(s *State) []Step {
	driver := s.Engine.Drivers.Image
	if verb := i.storeVerb(); verb != "" {
		return []Step{RemoveImage{owed(stepID(i.ID.noun(), "store", verb, i.Store.Turn), "image", driver), i.ID}}
	}
	if verb := i.nameVerb(); verb != "" {
		return []Step{NameImage{owed(stepID(i.ID.noun(), "names", verb, i.Naming.Turn), "image", driver), i.ID, i.Names}}
	}
	return nil
}

// FindImage finds an image by full reference, by id, or by a unique prefix of
// its id with or without "sha256:".
func (s *State) FindImage(ref string) (*Image, error) {
	if id, ok := s.refs[ref]; ok {
		return s.Images[id], nil
	}
	if i := s.Images[ImageID(ref)]; i != nil && i.Want == Present {
		return i, nil
	}
	prefix := ref
	if !strings.HasPrefix(ref, "sha256:") {
		prefix = "sha256:" + ref
	}
	var hit *Image
	if len(prefix) > len("sha256:") {
		for id, i := range s.Images {
			if i.Want == Removed || !strings.HasPrefix(string(id), prefix) {
				continue
			}
			if hit != nil {
				return nil, refuse(errdefs.ErrInvalidArgument, "image id prefix %q is ambiguous: give more digits", ref)
			}
			hit = i
		}
	}
	if hit == nil {
		return nil, notFound("image", FamiliarImage(ref))
	}
	return hit, nil
}

// FamiliarImage is an image's full reference as people write it, with its tag:
// without the registry and the folder that they leave out.
func FamiliarImage(ref string) string {
	if rest, ok := strings.CutPrefix(ref, "docker.io/"); ok {
		return strings.TrimPrefix(rest, "library/")
	}
	return ref
}

// usedBy is the first container by name that stands on the image, or nil.
func (s *State) usedBy(id ImageID) *Container {
	var first *Container
	for _, c := range s.Containers {
		if c.Image == id && (first == nil || c.Name < first.Name) {
			first = c
		}
	}
	return first
}
