package driverhost

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// The rules are Docker's (moby daemon/health.go): the first probe comes one
// interval after the start; in the start period, while the container has not been
// healthy yet, the start interval counts and a failure does not; a success ends the
// streak of failures, and as many in a row as retries make it unhealthy.

func (w *watch) timeout() time.Duration { return cmp.Or(w.health.Timeout, healthTimeout) }

// interval is how long the next probe is away.
func (w *watch) interval(now time.Time) time.Duration {
	if w.status == core.HealthStarting && now.Sub(w.started) < w.health.StartPeriod {
		return cmp.Or(w.health.StartInterval, healthStartInterval)
	}
	return cmp.Or(w.health.Interval, healthInterval)
}

// count takes one probe into account.
func (w *watch) count(h core.HealthProbe) {
	if w.probes = append(w.probes, h); len(w.probes) > probesKept {
		w.probes = slices.Clone(w.probes[len(w.probes)-probesKept:])
	}
	if h.Code == 0 && !h.TimedOut {
		w.status, w.streak = core.Healthy, 0
		return
	}
	if w.status == core.HealthStarting && h.Begun.Sub(w.started) < w.health.StartPeriod {
		return
	}
	if w.streak++; w.streak >= cmp.Or(w.health.Retries, healthRetries) {
		w.status = core.Unhealthy
	}
}

// news is what the engine has to be told, by the caller; nil for nothing, or for what
// is told after that which it is being told.
func (w *watch) news() *core.ReportHealth {
	if w.status == w.told || w.tells || w.over {
		return nil
	}
	w.tells = true
	return &core.ReportHealth{
		Container: core.ContainerID(w.key.Container), Run: w.key.Run, Status: w.status, Streak: w.streak,
		Probes: slices.Clone(w.probes),
	}
}

// prober is the one of this driver, for as long as the host lives.
func (d *hosted) prober() *prober {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.health == nil {
		d.health = newProber()
		d.health.probe, d.health.tell = d.probe, func(ctx context.Context, r *core.ReportHealth) error {
			return d.report(ctx, "", r) // a change of health is no instance's
		}
		go d.health.run(d.host.ctx)
	}
	return d.health
}

// probe has the instance that serves make a probe. None is started for it: one
// that must watch processes is being started anyway.
func (d *hosted) probe(ctx context.Context, r execdriver.Probe) (execdriver.Probed, error) {
	p, err := d.inService(ctx)
	if err != nil {
		return execdriver.Probed{}, err
	}
	defer p.calls.end()
	drv, ok := p.driver.(execdriver.Execer)
	if !ok {
		return execdriver.Probed{}, errclass.Errorf(errdefs.ErrNotImplemented, "driver %s cannot probe", d.id)
	}
	probed, err := drv.Probe(ctx, r)
	if ctx.Err() == nil && p.diedOver(ctx, err) {
		err = unavailable(err) // the next probe finds another one
	}
	return probed, err
}

// watchOf puts the step into the prober's words. The test is Docker's: a command, a
// line for the container's shell, or nothing.
func watchOf(st *core.WatchHealth) *watch {
	w := &watch{
		key: keyOf(st.Container, st.Run, ""), health: st.Spec, process: processOf(&st.Process), started: st.Started,
		status: cmp.Or(st.Status, core.HealthStarting), told: cmp.Or(st.Status, core.HealthStarting), streak: st.Streak,
	}
	w.process.TTY = false
	switch test := st.Spec.Test; {
	case len(test) > 1 && test[0] == "CMD":
		w.process.Args = test[1:]
	case len(test) > 1 && test[0] == "CMD-SHELL":
		w.process.Args = []string{"/bin/sh", "-c", test[1]}
	default:
		w.process.Args = test
	}
	return w
}
