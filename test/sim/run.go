package sim

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/internal/errclass"
)

// run is one step being run by a driver.
type run struct {
	s         *sim
	d         *driver
	step      bus.Step
	st        core.Step
	stale     bool // a copy of a step that was done already arrived late
	begun     bool // it runs in an instance
	instance  string
	cancelled bool
	effected  bool // its effect is there
	over      bool
}

// FailurePhases are the moments at which steps fail, and what else goes wrong with
// them.
func FailurePhases() []string {
	return []string{
		"before", "half", "after", "hang", "slow", "cancelled before", "cancelled half",
		"killed before", "killed half", "killed after", "lacks what was taken", "driver does not start", "replacement fails",
	}
}

// FaultClasses are the classes that failing steps have.
func FaultClasses() []string {
	return []string{
		"internal", "unavailable", "failed-precondition", "resource-exhausted", "aborted", "not-found", "invalid-argument", "deadline-exceeded",
	}
}

// begin runs the step: against an instance, which may have to be started first.
func (r *run) begin() {
	switch r.st.(type) {
	case *core.ReplaceDriver:
		r.d.alone(r.replace)
		return
	case *core.StopDriver:
		r.d.alone(r.stop)
		return
	}
	r.d.serve(func(err error) {
		if r.over {
			return
		}
		if err != nil {
			r.finish(core.Result{}, err)
			return
		}
		r.begun, r.instance = true, r.d.instance
		if r.cancelled {
			r.finish(core.Result{}, fmt.Errorf("it was cancelled: %w", errdefs.ErrAborted))
			return
		}
		r.s.machine.begin(r)
		r.act()
	})
}

// act plans what becomes of the step.
func (r *run) act() {
	s := r.s
	took := s.between(50*time.Microsecond, 5*time.Millisecond)
	fate := "well"
	switch {
	case s.chance(3):
		fate = "before"
	case s.chance(3):
		fate = "half"
	case s.chance(3):
		fate = "after"
	case s.chance(1.5):
		fate = "hang"
		took = s.between(30*time.Second, 3*time.Minute)
	case s.chance(4):
		fate = "slow"
		took = s.between(100*time.Millisecond, 20*time.Second)
	}
	if fate != "well" {
		s.cover.see("failure", fate)
	}
	r.beat()
	s.after(s.between(0, took), func() {
		if !r.over {
			r.effect(fate)
		}
	})
	s.after(took, func() {
		if !r.over {
			r.end(fate)
		}
	})
}

// effect is the moment at which the step does what it does.
func (r *run) effect(fate string) {
	switch {
	case fate == "before" || r.cancelled && r.s.r.IntN(2) == 0:
	case r.s.machine.lacking(r) != "":
	case fate == "half":
		r.half()
	default:
		r.effected = true
		r.s.machine.do(r)
	}
}

// half leaves the step's effect as far as it has come: what it makes is there, or
// not; the same for what it gives back.
func (r *run) half() {
	if _, load := r.st.(*core.LoadArchive); !load && r.s.r.IntN(2) == 0 && r.s.machine.lacking(r) == "" {
		r.s.machine.do(r)
	}
}

func (r *run) end(fate string) {
	r.s.machine.end(r)
	if _, ok := r.st.(*core.Reconcile); ok && fate == "well" {
		r.reconcile()
		return
	}
	switch {
	case r.effected && (fate == "well" || fate == "slow" || fate == "hang"):
		r.s.cover.see("step", core.StepName(r.st))
		r.finish(bring(r.st), nil)
	case r.effected:
		r.finish(core.Result{}, r.fault())
	case r.cancelled:
		r.s.cover.see("failure", "cancelled before")
		r.finish(core.Result{}, fmt.Errorf("it was cancelled: %w", errdefs.ErrAborted))
	case r.s.machine.lacking(r) != "":
		r.s.cover.see("failure", "lacks what was taken")
		r.finish(core.Result{}, r.lack(r.s.machine.lacking(r)))
	default:
		r.finish(core.Result{}, r.fault())
	}
}

// missing is why a step fails that lacks what its driver has told the engine it lacks:
// it was under way by then, is to be taken back, and its failure is nobody's.
const missing = "is not there, as the engine was told"

func (r *run) lack(k string) error {
	why := "is not there"
	if r.s.missed[k] && !r.stale {
		why = missing
	}
	return fmt.Errorf("%s %s: %w", k, why, errdefs.ErrNotFound)
}

// fault is why a step fails.
func (r *run) fault() error {
	class := pick(r.s.r, FaultClasses()[:7]...)
	return fmt.Errorf("it broke: %w", errclass.ByName(class))
}

// cancel takes the step back; what cannot be taken back ends as if it had not been.
func (r *run) cancel() {
	if r.cancelled || r.over {
		return
	}
	r.cancelled = true
	if !r.begun || r.s.r.IntN(4) == 0 {
		return
	}
	r.s.after(r.s.between(0, 20*time.Millisecond), func() {
		if r.over {
			return
		}
		if !r.effected && r.s.r.IntN(2) == 0 {
			r.half()
		}
		r.s.cover.see("failure", "cancelled half")
		r.s.machine.end(r)
		r.finish(core.Result{}, fmt.Errorf("it was cancelled: %w", errdefs.ErrAborted))
	})
}

// kill ends the step with its instance: undone, half done or done.
func (r *run) kill(told bool) {
	if r.over {
		return
	}
	switch {
	case r.effected:
		r.s.cover.see("failure", "killed after")
	case r.s.r.IntN(2) == 0:
		r.s.cover.see("failure", "killed half")
		r.half()
	default:
		r.s.cover.see("failure", "killed before")
	}
	r.s.machine.end(r)
	if told {
		r.finish(core.Result{}, fmt.Errorf("the driver died while it ran the step: %w", errdefs.ErrUnavailable))
		return
	}
	r.over = true
}

// finish tells the result until the engine has it, and lets the slot go on.
func (r *run) finish(result core.Result, err error) {
	r.over = true
	d := r.d
	delete(d.running, r.step.ID)
	f := bus.Finish{
		Epoch: r.step.Epoch, Kind: d.kind, Driver: d.name, Instance: r.instance, Step: r.step.ID, Try: r.step.Try,
		Error: bus.NewError(err),
	}
	if err == nil {
		data, err := json.Marshal(result)
		if err != nil {
			panic(err)
		}
		f.Result = data
	} else {
		r.s.cover.see("class", f.Error.Class)
	}
	r.s.trace("finish %s try %d of %s: %v", f.Step, f.Try, f.Instance, err)
	d.insist("result", "", func() bool { return true }, func(e *engine.Engine, reply func(bus.Receipt, error)) {
		e.Finish(f, func(receipt bus.Receipt, err error) {
			r.s.receipt(f.Epoch, "the result of "+f.Step, receipt, err)
			r.taken(f, receipt, err)
			reply(receipt, err)
		})
	}, func(error) {})
	slot := core.StepID(r.step.ID).Slot()
	d.slots[slot] = d.slots[slot][1:]
	if len(d.slots[slot]) > 0 && !d.h.dead {
		d.slots[slot][0].begin()
	}
}

// taken checks the engine's answer to a result.
func (r *run) taken(f bus.Finish, receipt bus.Receipt, err error) {
	id := core.StepID(f.Step)
	if err != nil {
		r.s.trace("result of %s refused: %v", id, err)
		return
	}
	if r.s.flights[id.Slot()] == id {
		delete(r.s.flights, id.Slot())
	}
	if receipt.Stale || f.Error != nil {
		return
	}
	if r.s.done[id] {
		r.s.fail("step %s has succeeded twice", id)
	}
	r.s.done[id] = true
}

// beat tells now and then that the step still runs.
func (r *run) beat() {
	r.s.after(time.Second, func() {
		if r.over || r.d.h.dead {
			return
		}
		f := bus.Finish{Epoch: r.step.Epoch, Kind: r.d.kind, Driver: r.d.name, Step: r.step.ID, Try: r.step.Try, Heartbeat: true}
		r.s.toEngine("heartbeat", "", func(e *engine.Engine) { e.Finish(f, func(bus.Receipt, error) {}) })
		r.beat()
	})
}

// reconcile reports the inventory anew.
func (r *run) reconcile() {
	if r.d.instance == "" {
		r.finish(core.Result{}, fmt.Errorf("the driver died: %w", errdefs.ErrUnavailable))
		return
	}
	report := &core.ReportInventory{
		Kind: r.d.kind, Driver: r.d.name, Instance: r.d.instance, Items: r.s.machine.inventory(r.d.id), Since: r.st.ID().Turn(),
	}
	r.d.report(r.d.instance, report, func(err error) {
		if r.over {
			return
		}
		if err == nil {
			r.s.cover.see("step", core.StepName(r.st))
		}
		r.finish(core.Result{}, err)
	})
}

// alone calls f when nobody else starts, stops or replaces the driver's instance.
func (d *driver) alone(f func()) {
	if !d.changing {
		d.changing = true
		d.drain(f, d.h.s.now+2*time.Second)
		return
	}
	d.h.s.after(5*time.Millisecond, func() {
		if !d.h.dead {
			d.alone(f)
		}
	})
}

// drain waits for what runs in the instance, but not for long.
func (d *driver) drain(then func(), latest time.Duration) {
	if d.h.dead {
		return
	}
	for _, id := range sortedKeys(d.running) {
		if d.running[id].begun && d.h.s.now < latest {
			d.h.s.after(20*time.Millisecond, func() { d.drain(then, latest) })
			return
		}
	}
	then()
}

// stop ends the driver's instance: the driver is disabled.
func (r *run) stop() {
	if r.over {
		r.resume()
		return
	}
	r.d.kill(true)
	r.s.cover.see("step", core.StepName(r.st))
	r.finish(core.Result{}, nil)
	r.resume()
}

// replace puts another program in the driver's place; the old one serves on if
// that fails.
func (r *run) replace() {
	if r.over {
		r.resume()
		return
	}
	if r.s.chance(25) {
		r.s.cover.see("failure", "replacement fails")
		r.finish(core.Result{}, r.fault())
		r.resume()
		return
	}
	r.d.kill(true)
	r.d.introduce(func(err error) {
		if !r.over {
			r.instance = r.d.instance
			if err == nil {
				r.s.cover.see("step", core.StepName(r.st))
			}
			r.finish(core.Result{Instance: r.d.instance, Version: "2"}, err)
		}
		r.resume()
		if err != nil { // neither serves: the old one is started again
			r.d.h.need([]string{r.d.id})
		}
	})
}

// resume lets those go on that waited for the driver.
func (r *run) resume() {
	waiting := r.d.waiting
	r.d.changing, r.d.waiting = false, nil
	for _, then := range waiting {
		r.d.serve(then)
	}
}
