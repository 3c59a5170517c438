package driverhost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/sdk/driver"
)

// The bounds of the back-off between starts of a driver that ends by itself.
const (
	backoffMin  = 20 * time.Millisecond
	backoffMax  = 30 * time.Second
	backoffGood = 10 * time.Second // an instance that lived so long starts the count anew
)

// hosted is one driver: at most one instance serves at a time.
type hosted struct {
	host       *Host
	kind, name string
	id         string // "kind/name"
	found      string // the program on the driver path
	log        *slog.Logger
	serving    *bus.StepServing

	// starting is held while an instance is started, replaced or stopped.
	starting sync.Mutex

	mu      sync.Mutex
	now     *process            // that serves; nil for none. Guarded by mu
	closed  bool                // no more steps. Guarded by mu
	running map[string]*running // by step id. Guarded by mu
	slots   map[string]chan struct{}
	backoff time.Duration // guarded by starting
	born    time.Time     // of the last instance; guarded by starting
}

func newHosted(h *Host, kind, name, path string) *hosted {
	id := kind + "/" + name
	return &hosted{
		host: h, kind: kind, name: name, id: id, found: path,
		log:     h.o.Log.With("driver", id),
		running: make(map[string]*running), slots: make(map[string]chan struct{}),
	}
}

func (d *hosted) runDir() string {
	return filepath.Join(d.host.o.Config.Run, d.kind+"-"+d.name)
}

// instance is the process that serves; it is started if there is none. path
// names another program than the one found, or is empty. The caller says
// calls.Done when it is done with the process.
func (d *hosted) instance(ctx context.Context, path string) (*process, error) {
	d.starting.Lock()
	defer d.starting.Unlock()
	if p := d.current(); p != nil {
		p.calls.Add(1)
		return p, nil
	}
	if err := d.pause(ctx); err != nil {
		return nil, err
	}
	if path == "" {
		path = d.found
	}
	d.born = time.Now()
	p, err := d.start(ctx, path, nil)
	if err != nil {
		return nil, unavailable(err)
	}
	if err := d.introduce(ctx, p); err != nil {
		d.end(p)
		return nil, unavailable(err)
	}
	p.calls.Add(1)
	d.begin(p)
	return p, nil
}

// pause waits out the back-off of a driver that has ended by itself.
func (d *hosted) pause(ctx context.Context) error {
	if d.born.IsZero() {
		return nil
	}
	if lived := time.Since(d.born); lived > backoffGood {
		d.backoff = 0
	}
	wait := d.backoff
	d.backoff = min(max(2*d.backoff, backoffMin), backoffMax)
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
}

// current is the instance that serves and lives, or nil.
func (d *hosted) current() *process {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now == nil {
		return nil
	}
	select {
	case <-d.now.died:
		return nil
	default:
		return d.now
	}
}

// introduce reports a new instance and what it holds, before its first step.
func (d *hosted) introduce(ctx context.Context, p *process) error {
	if p.info.Name != d.name {
		return fmt.Errorf("the program %s says that it is driver %q, not %q", p.path, p.info.Name, d.name)
	}
	for _, w := range p.info.Warnings {
		d.log.Warn(w)
	}
	items, err := p.driver.List(ctx)
	if err != nil {
		return fmt.Errorf("ask driver %s for what it holds: %w", d.id, err)
	}
	started := &core.ReportDriver{Driver: d.id, Instance: p.instance, PID: p.pid, Version: p.info.Version}
	if err := d.report(ctx, p.instance, started); err != nil {
		return err
	}
	return d.report(ctx, p.instance, inventory(d.kind, d.name, p.instance, items))
}

// begin makes p the instance that serves and watches over it.
func (d *hosted) begin(p *process) {
	d.mu.Lock()
	d.now = p
	d.mu.Unlock()
	d.log.Info("driver started", "pid", p.pid, "version", p.info.Version)
	d.host.wg.Add(1)
	go d.watch(p)
	if e, ok := p.driver.(exiter); ok {
		d.host.wg.Add(1)
		go d.followExits(p, e)
	}
}

// watch waits for the end of an instance. One that ended by itself is told,
// and started again if it is one that must watch processes.
func (d *hosted) watch(p *process) {
	defer d.host.wg.Done()
	select {
	case <-p.died:
	case <-d.host.ctx.Done():
		return
	}
	d.mu.Lock()
	unasked := d.now == p
	if unasked {
		d.now = nil
	}
	closed := d.closed
	d.mu.Unlock()
	if !unasked {
		return
	}
	d.log.Warn("driver died", "pid", p.pid)
	d.end(p)
	ended := &core.ReportDriver{Driver: d.id, Instance: p.instance, Ended: true, Reason: "its process died"}
	if err := d.report(d.host.ctx, p.instance, ended); err != nil && d.host.ctx.Err() == nil {
		d.log.Warn("report the end of a driver", "error", err)
	}
	for !closed && d.host.ctx.Err() == nil {
		again, err := d.instance(d.host.ctx, p.path)
		if err == nil {
			again.calls.Done()
			return
		}
		d.log.Warn("start a driver again", "error", err)
		d.mu.Lock()
		closed = d.closed
		d.mu.Unlock()
	}
}

// stop ends the instance that serves: drained first, then killed with all that
// it has started in its cgroup.
func (d *hosted) stop(ctx context.Context) {
	d.starting.Lock()
	defer d.starting.Unlock()
	d.mu.Lock()
	p := d.now
	d.now = nil
	d.mu.Unlock()
	if p == nil {
		return
	}
	d.retire(ctx, p)
	d.backoff, d.born = 0, time.Time{}
	d.log.Info("driver stopped", "pid", p.pid)
}

// refuse takes no more steps.
func (d *hosted) refuse() {
	d.serving.Close()
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
}

func (d *hosted) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.running) > 0
}

// replace puts the program at path in the place of the one that serves. Steps
// that come meanwhile wait; those that run against the old one end first, or
// are cut and asked for again. If the new one does not shake hands, say who it is
// and what it holds, the old one serves on.
func (d *hosted) replace(ctx context.Context, path string) (*process, error) {
	d.starting.Lock()
	defer d.starting.Unlock()
	old := d.current()
	if old != nil {
		old.drain(ctx, drainTimeout)
	}
	p, err := d.start(ctx, path, old)
	if err != nil {
		return nil, err
	}
	if p.info.Name != d.name {
		d.end(p)
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "the program %s says that it is driver %q, not %q", path, p.info.Name, d.name)
	}
	if _, err := p.driver.List(ctx); err != nil {
		d.end(p)
		return nil, fmt.Errorf("ask the new driver for what it holds: %w", err)
	}
	d.mu.Lock()
	d.now = nil
	d.mu.Unlock()
	if old != nil {
		d.retire(ctx, old)
	}
	if err := d.introduce(ctx, p); err != nil {
		d.end(p)
		return nil, err
	}
	d.begin(p)
	return p, nil
}

func unavailable(err error) error {
	if errdefs.IsUnavailable(err) {
		return err
	}
	return errors.Join(errdefs.ErrUnavailable, err)
}
