package runtime

func (c *creation) moveDevices() error { return nil }
