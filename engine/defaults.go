package engine

import "github.com/gantryd/gantry/core"

// fill puts the engine's own defaults where a command leaves something out, before
// the core sees it: what follows is recorded, and later defaults do not change it.
func (e *Engine) fill(c core.Command) {
	create, ok := c.(*core.CreateContainer)
	if !ok || e.o.Logging == (core.Logging{}) {
		return
	}
	l, d := &create.Spec.Logging, e.o.Logging
	if l.Driver == "" {
		l.Driver = d.Driver
	}
	if l.Driver == "none" {
		return
	}
	if l.MaxBytes == 0 {
		l.MaxBytes = d.MaxBytes
	}
	if l.MaxFiles == 0 {
		l.MaxFiles = d.MaxFiles
	}
	if l.MaxAge == 0 {
		l.MaxAge = d.MaxAge
	}
	if !l.NonBlocking && l.MaxBufferBytes == 0 {
		l.NonBlocking, l.MaxBufferBytes = d.NonBlocking, d.MaxBufferBytes
	}
}
