package driverhost

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// hosted is one driver: at most one instance serves at a time.
type hosted struct {
	host       *Host
	kind, name string
	id         string // "kind/name"
	log        *slog.Logger

	// held has room for one: whoever starts, replaces or stops an instance.
	held chan struct{}

	mu       sync.Mutex
	serving  *bus.StepServing
	now      *process                 // that serves; nil for none. Guarded by mu, written while held
	closed   bool                     // no more steps. Guarded by mu
	running  map[string]*running      // by step id. Guarded by mu
	asks     map[string]func()        // what ends a question that is being answered, by its id. Guarded by mu
	slots    map[string]chan struct{} // closed when the last step of the slot has ended. Guarded by mu
	health   *prober                  // made when it is first needed. Guarded by mu
	starting int                      // goroutines that start it until it lives: see keepUp. Guarded by mu
	stops    int                      // how often it was stopped. Guarded by mu
	news     chan struct{}            // closed when what follows changes, and made anew. Guarded by mu
	failures int                      // starts and short lives in a row. Guarded by mu
	last     error                    // what the last of them was. Guarded by mu
	after    time.Time                // no start before. Guarded by mu
}

func newHosted(h *Host, kind, name string) *hosted {
	id := kind + "/" + name
	return &hosted{
		host: h, kind: kind, name: name, id: id,
		log:  h.o.Log.With("driver", id),
		held: make(chan struct{}, 1), running: make(map[string]*running), slots: make(map[string]chan struct{}),
		asks: make(map[string]func()), news: make(chan struct{}),
	}
}

func (d *hosted) runDir() string {
	return filepath.Join(d.host.o.Config.Run, d.kind+"-"+d.name)
}

// hold takes the driver for starting, replacing or stopping an instance.
func (d *hosted) hold(ctx context.Context) error {
	select {
	case d.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *hosted) letGo() { <-d.held }

// instance is the process that serves; it is started if there is none. path
// names another program than the one on the driver path, or is empty. A driver
// that keeps ending is not waited for longer than hold: the caller is told why.
// The caller says calls.end when it is done with the process.
func (d *hosted) instance(ctx context.Context, path string, hold time.Duration) (*process, error) {
	if err := d.hold(ctx); err != nil {
		return nil, err
	}
	defer d.letGo()
	return d.ensure(ctx, path, hold)
}

// ensure is instance for whoever holds the driver.
func (d *hosted) ensure(ctx context.Context, path string, hold time.Duration) (*process, error) {
	if p := d.current(); p != nil {
		p.calls.begin()
		return p, nil
	}
	if p := d.dead(); p != nil {
		d.bury(p)
	}
	if err := d.pause(ctx, hold); err != nil {
		return nil, err
	}
	if path == "" {
		path = d.host.program(d.kind, d.name)
	}
	// The start is not this step's alone: its end does not end it.
	p, err := d.start(d.host.ctx, path, nil)
	if err == nil {
		if err = d.introduce(d.host.ctx, p); err != nil {
			d.end(p)
		}
	}
	if err != nil {
		d.failed(err)
		return nil, unavailable(err)
	}
	p.calls.begin()
	d.begin(p)
	return p, nil
}

// pause waits out the back-off of a driver that keeps ending.
func (d *hosted) pause(ctx context.Context, hold time.Duration) error {
	d.mu.Lock()
	wait, last := time.Until(d.after), d.last
	d.mu.Unlock()
	if wait > hold {
		return unavailable(fmt.Errorf("%w (it is tried again in %v)", last, wait.Round(time.Second/10)))
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failed counts a failed start, or a life that was too short.
func (d *hosted) failed(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures++
	d.last, d.after = err, time.Now().Add(d.host.patience.pauseAfter(d.failures))
	d.tell()
}

// tell wakes those who rest. The caller holds mu.
func (d *hosted) tell() {
	close(d.news)
	d.news = make(chan struct{})
}

// forgive forgets failures: the driver has lived well, or was stopped on purpose.
func (d *hosted) forgive() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures, d.last, d.after = 0, nil, time.Time{}
	d.tell()
}

// inService is the instance that serves now; none is started. The caller says
// calls.end when it is done with it.
func (d *hosted) inService(ctx context.Context) (*process, error) {
	if err := d.hold(ctx); err != nil {
		return nil, err
	}
	defer d.letGo()
	p := d.current()
	if p == nil {
		return nil, errclass.Errorf(errdefs.ErrUnavailable, "driver %s is not running now", d.id)
	}
	p.calls.begin()
	return p, nil
}

// current is the instance that serves and lives, or nil.
func (d *hosted) current() *process {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now == nil || d.now.dead() {
		return nil
	}
	return d.now
}

// introduce reports a new instance and what it holds, before its first step.
func (d *hosted) introduce(ctx context.Context, p *process) error {
	for _, w := range p.info.Warnings {
		d.log.Warn(w)
	}
	items, err := d.list(ctx, p)
	if err != nil {
		return err
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
	if w, ok := p.driver.(execdriver.OOMWatcher); ok && slices.Contains(p.info.Abilities, execdriver.AbilityOOM) {
		d.host.wg.Add(1)
		go d.followOOMs(p, w)
	}
}

// startsAlone bounds how often a driver that ended by itself is started again
// before a step asks for it. One that must watch processes has no bound.
const startsAlone = 8

// watch waits for the end of an instance. One that ended by itself is told, and
// started again.
func (d *hosted) watch(p *process) {
	defer d.host.wg.Done()
	select {
	case <-p.launch.gone:
	case <-d.host.ctx.Done():
		return
	}
	if d.hold(d.host.ctx) != nil {
		return
	}
	if d.dead() == p {
		d.bury(p)
	}
	asked, stops := p.dismissed, d.stopped()
	d.letGo()
	if asked {
		return
	}
	bound := startsAlone
	if _, ok := p.driver.(exiter); ok {
		bound = 0
	}
	d.keepUp(p.path, bound, stops)
}

// dead is the instance that served and died, or nil.
func (d *hosted) dead() *process {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now != nil && d.now.dead() {
		return d.now
	}
	return nil
}

// bury clears away an instance that died by itself, and tells it. The caller
// holds the driver: a new instance may take the same place.
func (d *hosted) bury(p *process) {
	<-p.launch.gone
	how := p.launch.how()
	d.log.Warn("driver died", "pid", p.pid, "how", how)
	d.mu.Lock()
	d.now = nil
	d.mu.Unlock()
	d.end(p)
	if time.Since(p.born) > d.host.patience.good {
		d.forgive()
	}
	d.failed(fmt.Errorf("driver %s (%s) keeps ending: %s", d.id, p.path, how))
	ended := &core.ReportDriver{Driver: d.id, Instance: p.instance, Ended: true, Reason: how}
	if err := d.report(d.host.ctx, p.instance, ended); err != nil && d.host.ctx.Err() == nil {
		d.log.Warn("report the end of a driver", "error", err)
	}
}

// dismiss takes the instance out of service, to be ended; nil if there is none.
// The caller holds the driver.
func (d *hosted) dismiss() *process {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.now
	d.now = nil
	if p != nil {
		p.dismissed = true
	}
	return p
}

// keepUp starts an instance until there is one, at most bound times; 0 is no bound.
// It ends when the driver is stopped: stops is how often it was before.
func (d *hosted) keepUp(path string, bound, stops int) {
	d.begun(1)
	defer d.begun(-1)
	for n := 0; bound == 0 || n < bound; n++ {
		d.rest()
		if d.bringUp(path, stops) {
			return
		}
	}
}

// rest waits until the back-off of a driver that keeps ending is over. Nobody else is
// kept from the driver meanwhile: a program that works may be put in its place.
func (d *hosted) rest() {
	for {
		d.mu.Lock()
		wait, news := time.Until(d.after), d.news
		d.mu.Unlock()
		if wait <= 0 {
			return
		}
		select {
		case <-time.After(wait):
		case <-news:
		case <-d.host.ctx.Done():
			return
		}
	}
}

// bringUp starts an instance if there is none. It reports whether nothing more is to be
// done: one serves, or none is to.
func (d *hosted) bringUp(path string, stops int) (over bool) {
	if d.hold(d.host.ctx) != nil {
		return true
	}
	defer d.letGo()
	if d.refusing() || d.stopped() != stops {
		return true
	}
	p, err := d.ensure(d.host.ctx, path, d.host.patience.hold)
	if err == nil {
		p.calls.end()
		return true
	}
	if d.host.ctx.Err() == nil {
		d.log.Warn("start a driver", "error", err)
	}
	return false
}

// stop ends the instance that serves: drained first, then killed with all that
// it has started in its cgroup. What an earlier host may have left is ended too.
func (d *hosted) stop(ctx context.Context) error {
	if err := d.hold(ctx); err != nil {
		return err
	}
	defer d.letGo()
	if err := d.stopping(ctx); err != nil {
		return err
	}
	p := d.dismiss()
	if p != nil {
		d.retire(ctx, p)
		d.log.Info("driver stopped", "pid", p.pid)
	}
	d.forgive()
	for generation := range 2 {
		name := d.cageName(generation)
		if !d.host.cage.end(name, d.host.patience.fence) {
			return errclass.Errorf(errdefs.ErrUnavailable, "driver %s does not end: %s", d.id, d.host.cage.describe(name))
		}
		d.host.cage.drop(name)
	}
	return nil
}

// stopping counts a stop, unless it is taken back: whoever starts the driver then, after
// its cancellation, ends when the driver is stopped, and would end by this stop.
func (d *hosted) stopping(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("taken back before it began: %w", err)
	}
	d.stops++
	d.tell()
	return nil
}

// stopped is how often the driver was stopped.
func (d *hosted) stopped() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stops
}

// begun counts who starts the driver until it lives.
func (d *hosted) begun(more int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.starting += more
}

// refuse takes no more steps.
func (d *hosted) refuse() {
	d.mu.Lock()
	d.closed = true
	serving := d.serving
	d.mu.Unlock()
	if serving != nil {
		serving.Close()
	}
}

func (d *hosted) refusing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed || d.host.ctx.Err() != nil
}

func (d *hosted) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.running) > 0
}

func unavailable(err error) error {
	if errdefs.IsUnavailable(err) {
		return err
	}
	return errclass.Errorf(errdefs.ErrUnavailable, "%w", err)
}
