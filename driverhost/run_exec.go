package driverhost

import (
	"context"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/sdk/execdriver"
)

func runExec(ctx context.Context, d execdriver.Driver, st core.Step) (core.Result, error) {
	switch st := st.(type) {
	case *core.StartProcess:
		start, err := startOf(st)
		if err != nil {
			return core.Result{}, err
		}
		s, err := d.Start(ctx, start)
		if err != nil {
			return core.Result{}, err
		}
		return core.Result{Started: &core.Started{PID: s.PID, Log: s.Log}}, nil
	case *core.SignalProcess:
		return core.Result{}, d.Signal(ctx, keyOf(st.Container, st.Run, st.Exec), st.Signal)
	case *core.ReleaseProcess:
		return core.Result{}, release(ctx, d, st)
	case *core.RemoveLog:
		return core.Result{}, d.RemoveLog(ctx, string(st.Container))
	case *core.GiveBack:
		switch st.Item.Kind {
		case "process":
			return core.Result{}, d.Release(ctx, keyOf(core.ContainerID(st.Item.Key), st.Item.Run, core.ExecID(st.Item.Exec)))
		case "userns":
			return core.Result{}, released(withAbility(d, st, func(d execdriver.UserNamespacer) error { return d.ReleaseUserNS(ctx, st.Item.Key) }))
		}
	}
	return runLive(ctx, d, st)
}

// release gives back a run, and the container's log if that goes with it.
func release(ctx context.Context, d execdriver.Driver, st *core.ReleaseProcess) error {
	k := keyOf(st.Container, st.Run, st.Exec)
	if p, ok := d.(execdriver.Purger); ok && st.RemoveLog {
		return p.Purge(ctx, k)
	}
	if err := d.Release(ctx, k); err != nil || !st.RemoveLog {
		return err
	}
	return d.RemoveLog(ctx, k.Container)
}

// runLive runs the steps for which a driver needs an ability.
func runLive(ctx context.Context, d execdriver.Driver, st core.Step) (core.Result, error) {
	var r core.Result
	var err error
	switch st := st.(type) {
	case *core.StartExec:
		err = withAbility(d, st, func(d execdriver.Execer) error {
			s, err := d.Exec(ctx, execOf(st))
			r.Started = &core.Started{PID: s.PID}
			return err
		})
	case *core.Freeze:
		err = withAbility(d, st, func(d execdriver.Freezer) error { return d.Freeze(ctx, keyOf(st.Container, st.Run, "")) })
	case *core.Thaw:
		err = released(withAbility(d, st, func(d execdriver.Freezer) error { return d.Thaw(ctx, keyOf(st.Container, st.Run, "")) }))
	case *core.UpdateResources:
		err = withAbility(d, st, func(d execdriver.Updater) error {
			return d.Update(ctx, keyOf(st.Container, st.Run, ""), limitsOf(&st.Resources))
		})
	case *core.HoldUserNS:
		err = withAbility(d, st, func(d execdriver.UserNamespacer) error {
			ns, err := d.HoldUserNS(ctx, string(st.Container), idMapOf(st.IDMap))
			held := core.Namespace(ns)
			r.UserNS = &held
			return err
		})
	case *core.ReleaseUserNS:
		err = released(withAbility(d, st, func(d execdriver.UserNamespacer) error { return d.ReleaseUserNS(ctx, string(st.Container)) }))
	default:
		err = noRunner(st)
	}
	return r, err
}

// released is the end of a release: a driver that lacks the ability holds nothing
// that there would be to give back.
func released(err error) error {
	if errdefs.IsNotImplemented(err) {
		return nil
	}
	return err
}

// withAbility calls f with the driver, if it has the ability A.
func withAbility[A any](d execdriver.Driver, st core.Step, f func(A) error) error {
	able, ok := d.(A)
	if !ok {
		return errclass.Errorf(errdefs.ErrNotImplemented, "the exec driver cannot run %s", core.StepName(st))
	}
	return f(able)
}

func keyOf(id core.ContainerID, run uint64, exec core.ExecID) execdriver.Key {
	return execdriver.Key{Container: string(id), Run: run, Exec: string(exec)}
}

// exiter is a driver that watches processes.
type exiter interface {
	Exits(ctx context.Context, f func(execdriver.Exit) error) error
}

// followExits reports every exit until the engine has it. The stream begins
// with all that were not released, so that none is lost with an instance.
func (d *hosted) followExits(p *process, e exiter) {
	d.follow(p, "exits", func(ctx context.Context) error {
		return e.Exits(ctx, func(x execdriver.Exit) error {
			return d.report(ctx, p.instance, &core.ReportExit{
				Container: core.ContainerID(x.Container), Run: x.Run, Exec: core.ExecID(x.Exec), Code: x.Code, Signal: x.Signal,
				OOMKilled: x.OOMKilled, Lost: x.Lost, Reason: x.Reason, Time: x.Time, LogEnd: x.LogEnd,
			})
		})
	})
}

// followOOMs reports what the kernel kills for want of memory while a run goes on.
func (d *hosted) followOOMs(p *process, w execdriver.OOMWatcher) {
	d.follow(p, "memory", func(ctx context.Context) error {
		return w.OOMs(ctx, func(o execdriver.OOM) error {
			return d.report(ctx, p.instance, &core.ReportOOM{
				Container: core.ContainerID(o.Container), Run: o.Run, Count: o.Count, Time: o.Time,
			})
		})
	})
}

// follow reads a stream of an instance for as long as that lives.
func (d *hosted) follow(p *process, what string, read func(context.Context) error) {
	defer d.host.wg.Done()
	ctx, cancel := context.WithCancel(d.host.ctx)
	defer cancel()
	go func() {
		select {
		case <-p.launch.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		err := read(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case <-time.After(d.host.patience.backoff):
			d.log.Warn("a stream of the driver broke off", "of", what, "error", err)
		case <-ctx.Done(): // with the driver, which is told elsewhere
		}
	}
}
