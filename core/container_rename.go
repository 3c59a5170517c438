package core

import "github.com/containerd/errdefs"

// RenameContainer gives a container another name.
type RenameContainer struct {
	ID   ContainerID `json:"id"`
	Name string      `json:"name"`
}

func (*RenameContainer) name() string { return "container.rename" }

func (c *RenameContainer) subject(*State) Noun { return c.ID.noun() }

func (c *RenameContainer) decide(s *State, r Request) ([]Event, error) {
	k := s.Containers[c.ID]
	if k == nil {
		return nil, notFound("container", string(c.ID))
	}
	if err := checkName("container", c.Name); err != nil {
		return nil, err
	}
	by, taken := s.names[c.Name]
	switch {
	case k.Want == Removed:
		return nil, refuse(errdefs.ErrFailedPrecondition, "container %s is being removed", k.Name)
	case taken && by == c.ID:
		return nil, refuse(errdefs.ErrInvalidArgument, "renaming a container with the same name as its current name")
	case taken:
		return nil, refuse(errdefs.ErrAlreadyExists,
			"the container name %q is already in use by container %.12s: choose another name", c.Name, by)
	}
	return []Event{&ContainerRenamed{Header: about(k.ID.noun()), Old: k.Name, New: c.Name}, jobDone(r.Job)}, nil
}

// ContainerRenamed says that a container has another name.
type ContainerRenamed struct {
	Header
	Old string `json:"old"`
	New string `json:"new"`
}

func (*ContainerRenamed) name() string { return "container.renamed" }

func (e *ContainerRenamed) apply(s *State) []Noun {
	c := s.Containers[ContainerID(e.ID)]
	delete(s.names, c.Name)
	c.Name = e.New
	s.names[c.Name] = c.ID
	return []Noun{c.ID.noun()}
}
