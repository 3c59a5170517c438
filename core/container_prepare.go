package core

// PrepareContainer has the root filesystem of a container held although nothing
// runs, so that its files can be read and written.
type PrepareContainer struct {
	ID ContainerID `json:"id"`
}

func (*PrepareContainer) name() string { return "container.prepare" }

func (c *PrepareContainer) subject(*State) Noun { return c.ID.noun() }
