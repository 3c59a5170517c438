package core

// ExecContainer runs a further process in a running container. Its job is done
// when the program has been executed.
type ExecContainer struct {
	ID     ContainerID `json:"id"`
	Exec   ExecID      `json:"exec"`
	Spec   ExecSpec    `json:"spec"`
	Attach bool        `json:"attach,omitempty"` // hold the program until a client has attached
}

func (*ExecContainer) name() string { return "container.exec" }

func (c *ExecContainer) subject(*State) Noun { return c.ID.noun() }

// Secrets lists what must be sealed before the command is decided on, with the
// key that the container has already.
func (c *ExecContainer) Secrets() (ContainerID, []*Env) {
	env := make([]*Env, len(c.Spec.Env))
	for i := range c.Spec.Env {
		env[i] = &c.Spec.Env[i]
	}
	return c.ID, env
}
