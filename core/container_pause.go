package core

// PauseContainer holds all processes of a running container.
type PauseContainer struct {
	ID ContainerID `json:"id"`
}

func (*PauseContainer) name() string { return "container.pause" }

func (c *PauseContainer) subject(*State) Noun { return c.ID.noun() }

// UnpauseContainer lets them go on.
type UnpauseContainer struct {
	ID ContainerID `json:"id"`
}

func (*UnpauseContainer) name() string { return "container.unpause" }

func (c *UnpauseContainer) subject(*State) Noun { return c.ID.noun() }
