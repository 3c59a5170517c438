package sim

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/engine"
)

// host is one process that hosts drivers, as package driverhost is.
type host struct {
	s       *sim
	epoch   uint64
	dead    bool
	drivers map[string]*driver
	telling int // what is said and not yet acknowledged
}

// driver is one driver: at most one instance of it serves at a time.
type driver struct {
	h          *host
	id         string // "kind/name"
	kind, name string
	instance   string // that serves; "" for none
	changing   bool   // an instance is being started, stopped or replaced
	waiting    []func(error)
	running    map[string]*run // by step id
	slots      map[string][]*run
}

// driverNames are all drivers of the world.
func driverNames() []string {
	return []string{"exec/native", "graphdriver/overlay", "image/oci", "net/bridge", "net/host", "net/null"}
}

func newHost(s *sim) *host {
	h := &host{s: s, epoch: s.e.Epoch(), drivers: make(map[string]*driver)}
	for _, id := range driverNames() {
		kind, name, _ := strings.Cut(id, "/")
		h.drivers[id] = &driver{h: h, id: id, kind: kind, name: name, running: make(map[string]*run), slots: make(map[string][]*run)}
	}
	return h
}

// need starts the drivers that must see what their charges do.
func (h *host) need(ids []string) {
	for _, id := range ids {
		h.drivers[id].serve(func(err error) {
			if err != nil && !h.dead {
				h.s.after(time.Second, func() {
					if !h.dead {
						h.need([]string{id})
					}
				})
			}
		})
	}
}

// take notes a step and runs it when its slot is free. The same one again joins the
// running one.
func (h *host) take(step bus.Step) error {
	h.epoch = max(h.epoch, step.Epoch)
	if step.Epoch < h.epoch {
		return fmt.Errorf("step %s is of an earlier engine: %w", step.ID, errdefs.ErrFailedPrecondition)
	}
	d := h.drivers[step.Kind+"/"+step.Driver]
	st, err := core.DecodeStep(step.Verb, step.Body)
	if err != nil {
		h.s.fail("decode step %s: %v", step.ID, err)
	}
	if r := d.running[step.ID]; r != nil {
		r.step.Try = step.Try
		h.s.cover.see("wire", "step joined")
		return nil
	}
	r := &run{s: h.s, d: d, step: step, st: st, stale: h.s.done[core.StepID(step.ID)]}
	d.running[step.ID] = r
	slot := core.StepID(step.ID).Slot()
	d.slots[slot] = append(d.slots[slot], r)
	if len(d.slots[slot]) == 1 {
		r.begin()
	}
	return nil
}

func (h *host) cancel(c bus.Cancel) error {
	r := h.drivers[c.Kind+"/"+c.Driver].running[c.ID]
	if r == nil {
		return fmt.Errorf("step %s does not run: %w", c.ID, errdefs.ErrNotFound)
	}
	r.cancel()
	return nil
}

// die ends the host and all instances; steps that run stay as they are.
func (h *host) die() {
	h.dead = true
	h.s.machine.forgetWatches()
	for _, id := range driverNames() {
		h.drivers[id].kill(false)
	}
}

// kill ends an instance and what runs in it. With told, the host says so.
func (d *driver) kill(told bool) {
	d.instance = ""
	for _, id := range sortedKeys(d.running) {
		if r := d.running[id]; r != nil && r.begun {
			r.kill(told)
		}
	}
}

// crash is the death of a driver's process; the host starts another one.
func (d *driver) crash() {
	if d.instance == "" || d.changing {
		return
	}
	was := d.instance
	d.h.s.trace("driver %s dies", d.id)
	d.kill(true)
	d.report(was, &core.ReportDriver{Driver: d.id, Instance: was, Ended: true, Reason: "its process died"}, func(error) {
		if !d.h.dead {
			d.h.need([]string{d.id})
		}
	})
}

// serve calls then when an instance serves, or cannot be started.
func (d *driver) serve(then func(error)) {
	if d.h.dead {
		return
	}
	if d.instance != "" && !d.changing {
		then(nil)
		return
	}
	d.waiting = append(d.waiting, then)
	if !d.changing {
		d.changing = true
		d.h.s.after(d.h.s.between(time.Millisecond, 30*time.Millisecond), func() { d.introduce(d.settled) })
	}
}

// settled lets those go on that waited for an instance.
func (d *driver) settled(err error) {
	waiting := d.waiting
	d.changing, d.waiting = false, nil
	for _, then := range waiting {
		then(err)
	}
}

// introduce starts an instance and reports it and what it holds.
func (d *driver) introduce(then func(error)) {
	s := d.h.s
	switch {
	case d.h.dead:
		return
	case s.chance(8):
		s.cover.see("failure", "driver does not start")
		then(fmt.Errorf("driver %s does not start: %w", d.id, errdefs.ErrUnavailable))
		return
	}
	s.hosts++
	instance := fmt.Sprint("instance-", s.hosts)
	items, lost := s.machine.inventory(d.id), s.lostNetworks(d.id)
	d.report(instance, &core.ReportDriver{Driver: d.id, Instance: instance, PID: s.hosts, Version: "1"}, func(err error) {
		if err != nil {
			then(fmt.Errorf("report %s: %w: %w", d.id, err, errdefs.ErrUnavailable))
			return
		}
		d.report(instance, &core.ReportInventory{Kind: d.kind, Driver: d.name, Instance: instance, Items: items}, func(err error) {
			if err != nil {
				then(fmt.Errorf("report %s: %w: %w", d.id, err, errdefs.ErrUnavailable))
				return
			}
			s.trace("driver %s serves as %s", d.id, instance)
			s.misses(lost)
			d.instance = instance
			then(nil)
			for _, k := range sortedKeys(s.machine.procs) {
				p := s.machine.procs[k]
				switch {
				case d.id != "exec/native":
				case p.exited:
					d.tellExit(p)
				case p.ooms > 0:
					d.h.tell(p.oomReport())
				}
			}
		})
	})
}

// exited is the exec driver's word that a process has ended.
func (h *host) exited(p *proc) {
	if d := h.drivers["exec/native"]; d.instance != "" {
		d.tellExit(p)
	}
}

func (d *driver) tellExit(p *proc) {
	instance := d.instance
	d.insist("exit", "", func() bool { return d.instance == instance }, d.reporter(instance, &core.ReportExit{
		Container: p.container, Run: p.run, Exec: p.exec, Code: p.code, Signal: p.signal, Time: d.h.s.clock(),
	}), func(error) {})
}

// report tells the engine something until it has it.
func (d *driver) report(instance string, c core.Command, then func(error)) {
	d.insist("report", "report "+d.id, func() bool { return true }, d.reporter(instance, c), then)
}

func (d *driver) reporter(instance string, c core.Command) sender {
	body, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	r := bus.Report{Epoch: d.h.epoch, Kind: d.kind, Driver: d.name, Instance: instance, Name: core.CommandName(c), Body: body}
	return func(e *engine.Engine, reply func(bus.Receipt, error)) {
		e.Report(r, func(receipt bus.Receipt, err error) {
			d.h.s.receipt(r.Epoch, core.CommandName(c), receipt, err)
			reply(receipt, err)
		})
	}
}

// sender says something to the engine, which replies.
type sender func(e *engine.Engine, reply func(bus.Receipt, error))

// insist says something again and again until there is an answer that counts, or
// the host is dead, or it is no longer wanted.
func (d *driver) insist(kind, way string, wanted func() bool, send sender, then func(error)) {
	h, s := d.h, d.h.s
	over := false
	h.telling++
	end := func(err error, tell bool) {
		if over {
			return
		}
		over = true
		h.telling--
		if tell && !h.dead {
			then(err)
		}
	}
	// A receipt counts for the sending that is newest: what came before it has
	// arrived then, or never will.
	sending := 0
	wait := time.Second
	var again func()
	again = func() {
		if over {
			return
		}
		if h.dead || !wanted() {
			end(nil, false)
			return
		}
		sending++
		this := sending
		s.toEngine(kind, way, func(e *engine.Engine) {
			send(e, func(_ bus.Receipt, err error) {
				s.wire("receipt", "", func() {
					if (this == sending || way == "") && (err == nil || !onTheWay(err)) {
						end(err, true)
					}
				})
			})
		})
		s.after(wait, again)
		wait = min(2*wait, 8*time.Second)
	}
	again()
}
