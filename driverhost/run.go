package driverhost

import (
	"context"
	"encoding/json"
	"errors"
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

// heartbeat is how often the engine hears of a step that still runs.
const heartbeat = time.Second

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
	st, err := core.DecodeStep(s.Verb, s.Body)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errclass.Errorf(errdefs.ErrUnavailable, "driver %s is being ended", d.id)
	}
	if r := d.running[s.ID]; r != nil {
		r.step.Try = s.Try
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
		d.carryOut(ctx, r, st)
		d.mu.Lock()
		if d.slots[slot] == ended {
			delete(d.slots, slot)
		}
		d.mu.Unlock()
		close(ended)
	}()
	return nil
}

// cancel takes a running step back. Its end is still told.
func (d *hosted) cancel(c bus.Cancel) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.running[c.ID]
	if r == nil {
		return errclass.Errorf(errdefs.ErrNotFound, "step %s does not run here", c.ID)
	}
	r.cancel()
	return nil
}

// carryOut runs a step and tells its result until the engine has it.
func (d *hosted) carryOut(ctx context.Context, r *running, st core.Step) {
	log := d.log.With("step", r.step.ID)
	log.Debug("step starts")
	begun := time.Now()
	quiet := make(chan struct{})
	go d.beat(r, quiet)
	result, instance, err := d.run(ctx, r, st)
	close(quiet)
	log.Debug("step ends", "took", time.Since(begun), "error", err)

	d.mu.Lock()
	step := r.step
	delete(d.running, step.ID)
	d.mu.Unlock()
	f := bus.Finish{Epoch: step.Epoch, Kind: d.kind, Driver: d.name, Instance: instance, Step: step.ID, Try: step.Try}
	if err != nil {
		f.Error = bus.NewError(err)
	} else if f.Result, err = json.Marshal(result); err != nil {
		f.Error = bus.NewError(fmt.Errorf("encode the result of %s: %w", step.ID, err))
	}
	if _, err := d.host.o.Bus.Finish(d.host.ctx, f); err != nil && d.host.ctx.Err() == nil {
		log.Warn("tell a result", "error", err)
	}
}

// beat tells that a step still runs.
func (d *hosted) beat(r *running, quiet chan struct{}) {
	t := time.NewTicker(heartbeat)
	defer t.Stop()
	for {
		select {
		case <-quiet:
			return
		case <-t.C:
		}
		d.mu.Lock()
		s := r.step
		d.mu.Unlock()
		// It may get lost: the next one follows.
		_, _ = d.host.o.Bus.Finish(d.host.ctx, bus.Finish{
			Epoch: s.Epoch, Kind: d.kind, Driver: d.name, Step: s.ID, Try: s.Try, Heartbeat: true,
		})
	}
}

// run runs a step against the instance that serves, within its deadline.
func (d *hosted) run(ctx context.Context, r *running, st core.Step) (core.Result, string, error) {
	switch st := st.(type) {
	case *core.ReplaceDriver:
		p, err := d.replace(ctx, st.Path)
		if err != nil {
			return core.Result{}, "", err
		}
		return core.Result{Instance: p.instance, Version: p.info.Version}, p.instance, nil
	case *core.StopDriver:
		d.stop(ctx)
		return core.Result{}, "", nil
	}
	p, err := d.instance(ctx, r.step.Path)
	if err != nil {
		return core.Result{}, "", err
	}
	defer p.calls.Done()
	ctx, watchdog := d.deadline(ctx, r.step, p)
	defer watchdog.stop()
	result, err := d.dispatch(ctx, p, st, d.progress(r, watchdog))
	return result, p.instance, watchdog.explain(ctx, err)
}

// dispatch calls the method that the step stands for.
func (d *hosted) dispatch(ctx context.Context, p *process, st core.Step, progress driver.Progress) (core.Result, error) {
	if _, ok := st.(*core.Reconcile); ok {
		return core.Result{}, d.reconcile(ctx, p)
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
func (d *hosted) progress(r *running, w *watchdog) driver.Progress {
	return func(done, total int64, what string) {
		w.calm()
		if r.step.Job != "" {
			// Progress may get lost.
			_ = d.host.o.Bus.TellProgress(r.step.Job, Progress{Step: r.step.ID, Done: done, Total: total, What: what})
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

// watchdog cancels a step at its deadline: the silence that is allowed for
// those that tell progress, the whole duration of the others.
type watchdog struct {
	timer  *time.Timer
	length time.Duration
	long   bool
	cancel context.CancelCauseFunc
}

var errDeadline = errors.New("deadline")

func (d *hosted) deadline(ctx context.Context, s bus.Step, p *process) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{length: time.Duration(s.Deadline), cancel: cancel}
	if w.length <= 0 {
		w.length = 2 * time.Minute
	}
	w.long = s.Verb == "layer.apply" || s.Verb == "image.load-archive"
	w.timer = time.AfterFunc(w.length, func() { cancel(errDeadline) })
	stop := context.AfterFunc(ctx, func() {})
	go func() { // a dead instance answers nothing any more
		select {
		case <-p.died:
			cancel(errDied)
		case <-ctx.Done():
		}
		stop()
	}()
	return ctx, w
}

var errDied = errors.New("the driver died")

func (w *watchdog) calm() {
	if w.long {
		w.timer.Reset(w.length)
	}
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// explain says why a step was cut.
func (w *watchdog) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errDied):
		return errclass.Errorf(errdefs.ErrUnavailable, "the driver died while it ran the step")
	case errors.Is(cause, errDeadline):
		return errclass.Errorf(errdefs.ErrAborted, "no end within %v", w.length)
	}
	return err
}
