package engine

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

// handOut asks what the nouns owe and sends what can be sent.
func (e *Engine) handOut(s *core.State, nouns []core.Noun, now time.Time) {
	e.dispatch.update(s, nouns, now, e.send)
}

// send puts a step, or its cancellation, on its way. What is lost is sent again.
func (e *Engine) send(p parcel) {
	if e.stopping.Load() {
		return
	}
	kind, name := p.step.Driver()
	id := p.step.ID()
	if p.cancel {
		e.log.Debug("cancel step", "step", id, "driver", kind+"/"+name)
		if err := e.o.Hosts.Cancel(bus.Cancel{Epoch: e.dispatch.epoch, ID: string(id), Kind: kind, Driver: name}); err != nil {
			e.log.Debug("cancel step", "step", id, "error", err)
		}
		return
	}
	st, err := e.vault.open(p.step)
	var body []byte
	if err == nil {
		body, err = json.Marshal(st)
	}
	if err != nil {
		e.giveUp(id, p.try, err)
		return
	}
	e.log.Debug("send step", "step", id, "job", p.job, "driver", kind+"/"+name)
	err = e.o.Hosts.Send(bus.Step{
		Epoch: e.dispatch.epoch, ID: string(id), Try: p.try, Kind: kind, Driver: name, Path: driverPath(e.durable, p.step),
		Verb: core.StepName(p.step), Job: p.job, Deadline: bus.Seconds(deadline(p.step)), Body: body,
	})
	if err != nil {
		e.log.Debug("send step", "step", id, "error", err)
	}
}

// giveUp finishes a step that cannot be sent, or that nobody takes.
func (e *Engine) giveUp(id core.StepID, try int, err error) {
	fault := &core.Fault{Class: errclass.Name(err), Message: err.Error()}
	r := request{
		command: &core.FinishStep{Step: id, Fault: fault}, own: try, actor: core.Actor{Engine: true}, essential: true,
		reply: func(bus.Receipt, error) {},
	}
	if err := e.queue.putReport(r); err != nil {
		e.log.Debug("give up step", "step", id, "error", err) // it is sent again, and given up again
	}
}

// Heard notes that a host has taken a step.
func (e *Engine) Heard(step string) { e.dispatch.heard(core.StepID(step), e.o.Now()) }

// Refused notes that no host has taken a step (or, with cancelled, that none knows
// the one that was to be cancelled), and why. Nothing of it may run then.
func (e *Engine) Refused(step string, try int, cancelled bool, err error) {
	id := core.StepID(step)
	if !e.dispatch.refused(id, try, cancelled, err, e.o.Now()) {
		e.queue.poke()
		return
	}
	if errdefs.IsUnavailable(err) {
		kind, name := e.dispatch.driverOf(id)
		err = errclass.Errorf(errdefs.ErrUnavailable, "driver %s/%s is not there: no program gantry-%s-%s is on the driver path, or it does not start",
			kind, name, kind, name)
	}
	e.giveUp(id, try, err)
}

// driverPath is the program that was put in the place of the step's driver: now, and not
// when the step became owed.
func driverPath(s *core.State, st core.Step) string {
	kind, name := st.Driver()
	if d := s.Drivers[kind+"/"+name]; d != nil {
		return d.Path
	}
	return ""
}

// jobOf is the job that a step of n is a part of, to tell its progress under.
func jobOf(s *core.State, n core.Noun) string {
	first := func(ids []core.JobID) string {
		if len(ids) == 0 {
			return ""
		}
		return string(ids[0])
	}
	switch n.Kind {
	case core.KindJob:
		return n.ID
	case core.KindContainer:
		if c := s.Containers[core.ContainerID(n.ID)]; c != nil {
			return first(c.Jobs)
		}
	case core.KindImage:
		if i := s.Images[core.ImageID(n.ID)]; i != nil {
			return first(i.Jobs)
		}
	case core.KindNetwork:
		if w := s.Networks[core.NetworkID(n.ID)]; w != nil {
			return first(w.Jobs)
		}
	case core.KindDriver:
		if d := s.Drivers[n.ID]; d != nil {
			return first(d.Jobs)
		}
	case core.KindLayer:
		return loadOf(s, core.LayerID(n.ID))
	}
	return ""
}

// loadOf is the oldest open load that waits for an image with the layer.
func loadOf(s *core.State, id core.LayerID) string {
	oldest := core.JobID("")
	for _, j := range s.Jobs {
		if !j.Open() || len(j.Awaits) == 0 || oldest != "" && j.ID > oldest {
			continue
		}
		for _, img := range j.Awaits {
			i := s.Images[img]
			if i != nil && slices.ContainsFunc(i.Layers, func(l core.ImageLayer) bool { return l.ID == id }) {
				oldest = j.ID
			}
		}
	}
	return string(oldest)
}

// sendTry is how long one sending waits for the acknowledgement.
const sendTry = 900 * time.Millisecond

// busHosts carries steps over the bus, each on a goroutine of its own: a driver's
// host that does not answer keeps nobody waiting. One in this process answers at
// once.
type busHosts struct {
	near   func(kind, driver string) bool
	send   func(bus.Step)
	cancel func(bus.Cancel)

	mu     sync.Mutex
	flying map[string]chan struct{} // closed when the step's sending is over
}

// Sendings is who is told what became of a sending.
type Sendings interface {
	Heard(step string)
	Refused(step string, try int, cancelled bool, err error)
}

// BusHosts carries steps over c until ctx ends and tells to() what became of them.
func BusHosts(ctx context.Context, c *bus.Client, to func() Sendings) Hosts {
	h := &busHosts{near: c.Near, flying: make(map[string]chan struct{})}
	h.send = func(s bus.Step) {
		try, stop := context.WithTimeout(ctx, sendTry)
		defer stop()
		err := c.SendStep(try, s)
		switch {
		case err == nil:
			to().Heard(s.ID)
		case !errdefs.IsDeadlineExceeded(err) && ctx.Err() == nil:
			to().Refused(s.ID, s.Try, false, err)
		}
	}
	h.cancel = func(x bus.Cancel) {
		try, stop := context.WithTimeout(ctx, sendTry)
		defer stop()
		if err := c.CancelStep(try, x); errdefs.IsNotFound(err) && ctx.Err() == nil {
			to().Refused(x.ID, 0, true, err)
		}
	}
	return h
}

// Send sends a step on a goroutine; a second sending of it waits for the first.
// Without an answer the engine asks again.
func (h *busHosts) Send(s bus.Step) error {
	if h.at(s.Kind, s.Driver, s.ID) {
		h.send(s)
		return nil
	}
	h.after(s.ID, func() { h.send(s) })
	return nil
}

// Cancel sends a cancellation when the sending of its step is over, so that it
// cannot overtake the step.
func (h *busHosts) Cancel(x bus.Cancel) error {
	if h.at(x.Kind, x.Driver, x.ID) {
		h.cancel(x)
		return nil
	}
	h.after(x.ID, func() { h.cancel(x) })
	return nil
}

// at reports whether the host answers at once and nothing of the step is on a longer
// way still.
func (h *busHosts) at(kind, driver, id string) bool {
	if !h.near(kind, driver) {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.flying[id] == nil
}

func (h *busHosts) after(id string, f func()) {
	done := make(chan struct{})
	h.mu.Lock()
	before := h.flying[id]
	h.flying[id] = done
	h.mu.Unlock()
	go func() {
		if before != nil {
			<-before
		}
		f()
		h.mu.Lock()
		if h.flying[id] == done {
			delete(h.flying, id)
		}
		h.mu.Unlock()
		close(done)
	}()
}
