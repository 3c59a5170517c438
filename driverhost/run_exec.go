package driverhost

import (
	"context"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/sdk/execdriver"
)

func runExec(ctx context.Context, d execdriver.Driver, st core.Step) (core.Result, error) {
	switch st := st.(type) {
	case *core.StartProcess:
		s, err := d.Start(ctx, startOf(st))
		if err != nil {
			return core.Result{}, err
		}
		return core.Result{Started: &core.Started{PID: s.PID, Log: s.Log}}, nil
	case *core.SignalProcess:
		return core.Result{}, d.Signal(ctx, execdriver.Key{Container: string(st.Container), Run: st.Run}, st.Signal)
	case *core.ReleaseProcess:
		if err := d.Release(ctx, execdriver.Key{Container: string(st.Container), Run: st.Run}); err != nil || !st.RemoveLog {
			return core.Result{}, err
		}
		return core.Result{}, d.RemoveLog(ctx, string(st.Container))
	case *core.RemoveLog:
		return core.Result{}, d.RemoveLog(ctx, string(st.Container))
	case *core.GiveBack:
		if st.Item.Kind == "process" {
			return core.Result{}, d.Release(ctx, execdriver.Key{Container: st.Item.Key, Run: st.Item.Run})
		}
	}
	return core.Result{}, noRunner(st)
}

// exiter is a driver that watches processes.
type exiter interface {
	Exits(ctx context.Context, f func(execdriver.Exit) error) error
}

// followExits reports every exit until the engine has it. The stream begins
// with all that were not released, so that none is lost with an instance.
func (d *hosted) followExits(p *process, e exiter) {
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
		err := e.Exits(ctx, func(x execdriver.Exit) error {
			return d.report(ctx, p.instance, &core.ReportExit{
				Container: core.ContainerID(x.Container), Run: x.Run, Code: x.Code, Signal: x.Signal,
				OOMKilled: x.OOMKilled, Lost: x.Lost, Reason: x.Reason, Time: x.Time,
			})
		})
		if ctx.Err() != nil {
			return
		}
		d.log.Warn("the stream of exits broke off", "error", err)
		select {
		case <-time.After(d.host.patience.backoff):
		case <-ctx.Done():
		}
	}
}
