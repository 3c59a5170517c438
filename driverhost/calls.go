package driverhost

import "sync"

// calls counts what runs against an instance. It stands in the place of a
// sync.WaitGroup, which takes no new calls before everybody who waited for the end of
// the earlier ones has seen it: a driver serves on after a replacement that was given up.
type calls struct {
	mu   sync.Mutex
	n    int           // guarded by mu
	idle chan struct{} // closed when none is left; nil if nobody waits. Guarded by mu
}

// begin counts one more.
func (c *calls) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
}

// end counts one less.
func (c *calls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// ended is closed as soon as none is left, whatever begins afterwards.
func (c *calls) ended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	return c.idle
}
