package driverhost

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/ask"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

// asksAtOnce bounds the questions that one driver answers at a time. They keep
// no step waiting: a step that nobody answers is the engine's affair, a question
// that is refused is asked again by whoever wants to know.
const asksAtOnce = 64

// ask answers a question from the instance that serves, outside of every slot.
// It does not block.
func (d *hosted) ask(a bus.Ask, answer func(any, error)) {
	ctx, err := d.admit(a)
	if err != nil {
		answer(nil, err)
		return
	}
	go func() {
		defer d.host.wg.Done()
		out, err := d.answer(ctx, a)
		d.mu.Lock()
		end := d.asks[a.ID]
		delete(d.asks, a.ID)
		d.mu.Unlock()
		end()
		answer(out, err)
	}()
}

// admit notes a question, with what ends it.
func (d *hosted) admit(a bus.Ask) (context.Context, error) {
	if !d.host.current(a.Epoch) {
		return nil, errclass.Errorf(errdefs.ErrFailedPrecondition, "question %s is of an earlier engine (epoch %d)", a.ID, a.Epoch)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, errclass.Errorf(errdefs.ErrUnavailable, "driver %s is being ended", d.id)
	case len(d.asks) >= asksAtOnce:
		return nil, errclass.Errorf(errdefs.ErrResourceExhausted, "driver %s is answering %d questions already", d.id, len(d.asks))
	case d.asks[a.ID] != nil:
		return nil, errclass.Errorf(errdefs.ErrAlreadyExists, "question %s is being answered", a.ID)
	}
	ctx, end := d.host.ctx, context.CancelFunc(nil)
	if a.Deadline > 0 {
		ctx, end = context.WithTimeout(ctx, time.Duration(a.Deadline))
	} else {
		ctx, end = context.WithCancel(ctx)
	}
	d.asks[a.ID] = end
	d.host.wg.Add(1)
	return ctx, nil
}

// answer answers a question. One that a driver died over is put to the next
// instance, once, unless bytes have gone by already.
func (d *hosted) answer(ctx context.Context, a bus.Ask) (any, error) {
	out, err := d.answerOnce(ctx, a)
	if errdefs.IsUnavailable(err) && ctx.Err() == nil && a.Verb != ask.ExecCopyIn && a.Verb != ask.ExecCopyOut {
		return d.answerOnce(ctx, a)
	}
	return out, err
}

// answerOnce puts a question into the driver's words.
func (d *hosted) answerOnce(ctx context.Context, a bus.Ask) (any, error) {
	p, err := d.instance(ctx, a.Path, d.host.patience.hold)
	if err != nil {
		return nil, err
	}
	defer p.calls.end()
	switch a.Verb {
	case ask.ExecStats:
		return askOf(ctx, p, a, stats)
	case ask.ExecProcesses:
		return askOf(ctx, p, a, processes)
	case ask.ExecStatPath:
		return askOf(ctx, p, a, statPath)
	case ask.ExecCopyOut:
		return askOf(ctx, p, a, copyOut)
	case ask.ExecCopyIn:
		return askOf(ctx, p, a, copyIn)
	case ask.RootfsChanges:
		return askOf(ctx, p, a, changes)
	}
	return nil, errclass.Errorf(errdefs.ErrNotImplemented, "no driver's host answers %s", a.Verb)
}

// askOf asks the instance, if it has the ability D.
func askOf[D, In, Out any](ctx context.Context, p *process, a bus.Ask, f func(context.Context, D, In) (Out, error)) (any, error) {
	drv, ok := p.driver.(D)
	if !ok {
		return nil, errclass.Errorf(errdefs.ErrNotImplemented, "driver %s/%s does not answer %s", a.Kind, a.Driver, a.Verb)
	}
	var in In
	if err := json.Unmarshal(a.Body, &in); err != nil {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "read the question %s: %w", a.Verb, err)
	}
	out, err := f(ctx, drv, in)
	if ctx.Err() == nil && p.diedOver(ctx, err) {
		err = errclass.Errorf(errdefs.ErrUnavailable, "the driver died while it answered (%s)", p.launch.how())
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%s: %w", a.Verb, ctx.Err())
	}
	return out, err
}

func stats(ctx context.Context, d execdriver.Meter, in ask.Runs) (ask.Stats, error) {
	keys := make([]execdriver.Key, len(in.Runs))
	for i, r := range in.Runs {
		keys[i] = execdriver.Key{Container: string(r.Container), Run: r.Run}
	}
	measured, err := d.Stats(ctx, keys)
	out := ask.Stats{Runs: make([]statsOut, 0, len(measured))}
	for _, m := range measured {
		out.Runs = append(out.Runs, fromStats(m))
	}
	return out, err
}

func processes(ctx context.Context, d execdriver.Meter, in ask.Run) (ask.Tasks, error) {
	tasks, err := d.Processes(ctx, execdriver.Key{Container: string(in.Container), Run: in.Run})
	var out ask.Tasks
	for _, t := range tasks {
		out.Tasks = append(out.Tasks, taskOut(t))
	}
	return out, err
}

func statPath(ctx context.Context, d execdriver.Copier, in ask.Copy) (pathOut, error) {
	s, err := d.Stat(ctx, copyOf(in))
	return pathOut(s), err
}

func copyOut(ctx context.Context, d execdriver.Copier, in ask.Copy) (any, error) {
	return nil, d.CopyOut(ctx, copyOf(in))
}

func copyIn(ctx context.Context, d execdriver.Copier, in ask.Copy) (any, error) {
	return nil, d.CopyIn(ctx, copyOf(in))
}

func copyOf(in ask.Copy) execdriver.Copy {
	return execdriver.Copy{
		Key:    execdriver.Key{Container: string(in.Container), Run: in.Run},
		Rootfs: toMounts(in.Rootfs), Mounts: mountsOf(nil, in.Mounts), IDMap: idMapOf(in.IDMap),
		Path: in.Path, Socket: in.Socket,
		WholeRoot: in.WholeRoot, KeepIDs: in.KeepIDs, Overwrite: in.Overwrite,
	}
}

func changes(ctx context.Context, d graphdriver.Changer, in ask.Rootfs) (ask.Changes, error) {
	list, err := d.Changes(ctx, string(in.Container))
	var out ask.Changes
	for _, c := range list {
		out.Changes = append(out.Changes, changeOut(c))
	}
	return out, err
}
