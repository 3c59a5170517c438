package core

import "time"

// RestartContainer stops a container that runs and starts it again. Its job is
// done when the program has been executed.
type RestartContainer struct {
	ID      ContainerID    `json:"id"`
	Signal  int            `json:"signal,omitempty"`     // 0: the container's own stop signal
	Timeout *time.Duration `json:"timeout_ns,omitempty"` // as of StopContainer
}

func (*RestartContainer) name() string { return "container.restart" }

func (c *RestartContainer) subject(*State) Noun { return c.ID.noun() }
