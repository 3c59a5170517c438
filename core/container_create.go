package core

import (
	"github.com/containerd/errdefs"
)

// CreateContainer makes a container and, with Want running, starts it.
type CreateContainer struct {
	ID         ContainerID `json:"id"`
	Name       string      `json:"name"`
	Image      string      `json:"image"` // reference in full, id, or a prefix of the id
	Spec       Spec        `json:"spec"`
	Want       Want        `json:"want"` // running or stopped
	AutoRemove bool        `json:"auto_remove,omitempty"`
	Attach     bool        `json:"attach,omitempty"` // with Want running: hold the program until a client has attached
}

func (*CreateContainer) name() string { return "container.create" }

func (c *CreateContainer) subject(*State) Noun { return c.ID.noun() }

// Secrets lists what must be sealed before the command is decided on.
func (c *CreateContainer) Secrets() (ContainerID, []*Env) {
	env := make([]*Env, len(c.Spec.Process.Env))
	for i := range c.Spec.Process.Env {
		env[i] = &c.Spec.Process.Env[i]
	}
	return c.ID, env
}

func (c *CreateContainer) decide(s *State, r Request) ([]Event, error) {
	if err := c.check(s); err != nil {
		return nil, err
	}
	image, err := s.FindImage(c.Image)
	if err != nil {
		return nil, err
	}
	if !image.Ready || image.Want == Removed {
		return nil, refuse(errdefs.ErrFailedPrecondition, "image %s is not ready: it is being loaded or removed", FamiliarImage(c.Image))
	}
	spec := c.Spec.mergeImage(&image.Config) // on the heap once, for the event, all folds and all steps
	if err := spec.check(); err != nil {
		return nil, err
	}
	name := spec.Network.Network
	if name == "" || name == "default" {
		name = "bridge"
	}
	var networks []NetworkID
	var nets []NetSlot
	if _, shared := sharedWith(name); !shared {
		network, err := s.FindNetwork(name)
		if err != nil {
			return nil, err
		}
		networks, nets = []NetworkID{network.ID}, []NetSlot{{Network: network.ID}}
	}
	if err := s.checkShares(c.ID, spec); err != nil {
		return nil, err
	}
	created := &ContainerCreated{
		Header: about(c.ID.noun()), ContainerName: c.Name, Image: image.ID, ImageRef: c.Image,
		Manifest: image.Manifest, Layer: image.topLayer(), Spec: spec, AutoRemove: c.AutoRemove,
		Networks: networks,
	}
	if c.Want != Running {
		return []Event{created, jobDone(r.Job)}, nil
	}
	k := &Container{ID: c.ID, Nets: nets, Spec: spec}
	start, err := s.startWanted(k, c.Attach)
	if err != nil {
		return nil, err
	}
	return []Event{created, start}, nil
}

// check refuses ids and names that cannot be or are taken.
func (c *CreateContainer) check(s *State) error {
	if err := checkHexID("container", string(c.ID)); err != nil {
		return err
	}
	if err := checkName("container", c.Name); err != nil {
		return err
	}
	if s.Containers[c.ID] != nil {
		return refuse(errdefs.ErrAlreadyExists, "container id %s is in use: make another", c.ID)
	}
	if by, ok := s.names[c.Name]; ok {
		return refuse(errdefs.ErrAlreadyExists,
			"the container name %q is already in use by container %.12s: remove or rename that container, or choose another name", c.Name, by)
	}
	if c.Want != Running && c.Want != Stopped {
		return refuse(errdefs.ErrInvalidArgument, "a container can be created running or stopped, not %q", c.Want)
	}
	return c.Spec.Restart.check(c.AutoRemove)
}

// ContainerCreated pins the image and carries everything that the container is.
type ContainerCreated struct {
	Header
	ContainerName string      `json:"name"`
	Image         ImageID     `json:"image"`
	ImageRef      string      `json:"image_ref"`
	Manifest      string      `json:"manifest"`
	Layer         LayerID     `json:"layer,omitempty"`
	Spec          *Spec       `json:"spec"` // never changed
	AutoRemove    bool        `json:"auto_remove,omitempty"`
	Networks      []NetworkID `json:"networks,omitempty"`
}

func (*ContainerCreated) name() string { return "container.created" }

func (e *ContainerCreated) apply(s *State) []Noun {
	c := &Container{
		ID: ContainerID(e.ID), Name: e.ContainerName, Image: e.Image, ImageRef: e.ImageRef,
		Manifest: e.Manifest, Layer: e.Layer, Spec: e.Spec, AutoRemove: e.AutoRemove,
		Created: e.Time, Want: Stopped,
	}
	if c.Spec == nil {
		c.Spec = &Spec{} // nobody has written such an event, but a fold cannot fail
	}
	for _, n := range e.Networks {
		c.Nets = append(c.Nets, NetSlot{Network: n})
	}
	s.Containers[c.ID] = c
	s.names[c.Name] = c.ID
	s.noteSharer(c)
	return s.touch(c.ID.noun())
}
