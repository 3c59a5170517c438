package driverhost

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/graphdriver"
	"github.com/gantryd/gantry/sdk/imagedriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// running is one step being run.
type running struct {
	step   bus.Step
	cancel context.CancelFunc
}

// take notes a step and runs it. The same step again joins the running one: its
// result then answers for the newer try.
func (d *hosted) take(s bus.Step) error {
	if !d.host.current(s.Epoch) {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "step %s is of an earlier engine (epoch %d)", s.ID, s.Epoch)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errclass.Errorf(errdefs.ErrUnavailable, "driver %s is being ended", d.id)
	}
	if r := d.running[s.ID]; r != nil {
		r.step.Epoch, r.step.Try = s.Epoch, s.Try
		return nil
	}
	ctx, cancel := context.WithCancel(d.host.ctx)
	r := &running{step: s, cancel: cancel}
	d.running[s.ID] = r
	slot := core.StepID(s.ID).Slot()
	before, ended := d.slots[slot], make(chan struct{})
	d.slots[slot] = ended
	d.host.wg.Add(1)
	go func() {
		defer d.host.wg.Done()
		defer cancel()
		if before != nil {
			<-before // one at a time for each slot
		}
		d.carryOut(ctx, r)
		d.mu.Lock()
		if d.slots[slot] == ended {
			delete(d.slots, slot)
		}
		d.mu.Unlock()
		close(ended)
	}()
	return nil
}

// cancel takes a running step back. Its end is still told. A question ends too.
func (d *hosted) cancel(c bus.Cancel) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if end := d.asks[c.ID]; end != nil {
		end()
		return nil
	}
	r := d.running[c.ID]
	if r == nil {
		return errclass.Errorf(errdefs.ErrNotFound, "step %s does not run here", c.ID)
	}
	r.cancel()
	return nil
}

// carryOut runs a step and tells its result until the engine has it.
func (d *hosted) carryOut(ctx context.Context, r *running) {
	d.mu.Lock()
	step := r.step
	d.mu.Unlock()
	d.log.Debug("step starts", "step", step.ID)
	begun := time.Now()
	quiet := d.beat(r)
	result, instance, err := d.run(ctx, step)
	quiet()
	d.log.Debug("step ends", "step", step.ID, "took", time.Since(begun), "error", err)

	d.mu.Lock()
	step = r.step // another try may have joined
	delete(d.running, step.ID)
	d.mu.Unlock()
	f := bus.Finish{Epoch: step.Epoch, Kind: d.kind, Driver: d.name, Instance: instance, Step: step.ID, Try: step.Try}
	if err != nil {
		f.Error = bus.NewError(err)
	} else if f.Result, err = json.Marshal(result); err != nil {
		f.Error = bus.NewError(fmt.Errorf("encode the result of %s: %w", step.ID, err))
	}
	if _, err := d.host.o.Bus.Finish(d.host.ctx, f); err != nil && d.host.ctx.Err() == nil {
		d.log.Warn("tell a result", "step", step.ID, "error", err)
	}
}

// beat tells, until quiet, that a step still runs. Most steps have ended before the
// first time: nothing but a timer waits for it.
func (d *hosted) beat(r *running) (quiet func()) {
	over := make(chan struct{})
	ended := func() bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	}
	var t *time.Timer
	t = time.AfterFunc(time.Hour, func() {
		if ended() {
			return
		}
		d.mu.Lock()
		s := r.step
		d.mu.Unlock()
		// It may get lost: the next one follows.
		_, _ = d.host.o.Bus.Finish(d.host.ctx, bus.Finish{
			Epoch: s.Epoch, Kind: d.kind, Driver: d.name, Step: s.ID, Try: s.Try, Heartbeat: true,
		})
		if !ended() {
			t.Reset(d.host.patience.heartbeat)
		}
	})
	t.Reset(d.host.patience.heartbeat) // not before t is set, which the function reads
	return func() {
		close(over)
		t.Stop()
	}
}

// run runs a step against the instance that serves, within its deadline.
func (d *hosted) run(ctx context.Context, s bus.Step) (core.Result, string, error) {
	if err := ctx.Err(); err != nil {
		return core.Result{}, "", fmt.Errorf("taken back before it began: %w", err)
	}
	st, err := core.DecodeStep(s.Verb, s.Body)
	if err != nil {
		return core.Result{}, "", err
	}
	switch st := st.(type) {
	case *core.ReplaceDriver:
		p, err := d.replace(ctx, st.Path)
		if err != nil {
			return core.Result{}, "", err
		}
		return core.Result{Instance: p.instance, Version: p.info.Version}, p.instance, nil
	case *core.StopDriver:
		return core.Result{}, "", d.stop(ctx)
	}
	p, err := d.instance(ctx, s.Path, d.host.patience.hold)
	if err != nil {
		return core.Result{}, "", err
	}
	defer p.calls.end()
	w := newWatchdog(s)
	call, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	go w.guard(ctx, d, p, s.ID, cut)
	result, err := d.dispatch(driver.WithCall(call, s.ID), p, st, d.progress(s, w))
	if err = w.explain(d.host.ctx, p, err); err != nil && p.dead() {
		return result, "", err // the engine no longer knows the instance
	}
	return result, p.instance, err
}

// dispatch calls the method that the step stands for.
func (d *hosted) dispatch(ctx context.Context, p *process, st core.Step, progress driver.Progress) (core.Result, error) {
	switch st := st.(type) {
	case *core.Reconcile:
		items, err := p.driver.List(ctx)
		if err != nil {
			return core.Result{}, err
		}
		report := inventory(d.kind, d.name, p.instance, items)
		report.Since = st.ID().Turn()
		return core.Result{}, d.report(d.host.ctx, p.instance, report)
	case *core.WatchHealth:
		d.prober().watch(watchOf(st))
		return core.Result{}, nil
	case *core.UnwatchHealth:
		d.prober().unwatch(keyOf(st.Container, st.Run, ""))
		return core.Result{}, nil
	case *core.Freeze:
		resume := d.prober().pause(string(st.Container))
		r, err := runExec(ctx, p.driver.(execdriver.Driver), st)
		if err != nil {
			resume()
		}
		return r, err
	case *core.Thaw:
		defer d.prober().resume(string(st.Container))
	}
	switch drv := p.driver.(type) {
	case graphdriver.Driver:
		return runGraph(ctx, drv, st, progress)
	case netdriver.Driver:
		return runNet(ctx, drv, st)
	case execdriver.Driver:
		return runExec(ctx, drv, st)
	case imagedriver.Driver:
		return runImage(ctx, drv, st, progress)
	}
	return core.Result{}, noRunner(st)
}

func noRunner(st core.Step) error {
	return errclass.Errorf(errdefs.ErrNotImplemented, "no driver of this kind runs %s", core.StepName(st))
}

// progress keeps the watchdog calm and tells the job's followers.
func (d *hosted) progress(s bus.Step, w *watchdog) driver.Progress {
	return func(done, total int64, what string) {
		w.calm()
		if s.Job != "" {
			// Progress may get lost.
			_ = d.host.o.Bus.TellProgress(s.Job, Progress{Step: s.ID, Done: done, Total: total, What: what})
		}
	}
}

// Progress is how far a step has come, as it goes over the bus.
type Progress struct {
	Step  string `json:"step"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"` // 0 if unknown
	What  string `json:"what,omitempty"`
}
