package driverhost

import (
	"container/heap"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/sdk/execdriver"
)

const (
	// probesAtOnce bounds the probes of one driver that run at a time. One that
	// waits for its turn is late, which is no failure.
	probesAtOnce = 16
	// probesKept is how many of the last probes are told with a change.
	probesKept = 5
	// outputKept is how many bytes of a probe's output are kept.
	outputKept = 4 << 10
	// probeAgain is when a probe is tried again that could not be made: the
	// driver is being started, or the container is on its way out.
	probeAgain = time.Second
	// probeSlack is what a probe may take beyond its timeout until the driver
	// itself is taken to be hung. That says nothing about the container.
	probeSlack = 10 * time.Second
	// pauseWithin bounds the wait for a probe's end before a container is frozen.
	pauseWithin = 2 * time.Second
)

// Docker's defaults.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
)

// prober probes the health of one driver's containers. Between probes a watch
// costs its memory and its place in the heap: one goroutine with one timer serves
// them all. What it knows ends with the host; the engine asks for the watch anew.
type prober struct {
	probe func(context.Context, execdriver.Probe) (execdriver.Probed, error)
	tell  func(context.Context, *core.ReportHealth) error
	now   func() time.Time

	poke chan struct{} // holds a token when the heap's first may have changed

	mu      sync.Mutex
	watches map[core.ContainerID]*watch // guarded by mu
	due     dueHeap                     // those that wait for their time. Guarded by mu
	running int                         // probes. Guarded by mu
}

// watch is one container's. All but what it was made with is guarded by the
// prober's mu.
type watch struct {
	key     execdriver.Key
	health  core.Health
	process execdriver.Process
	started time.Time // when the run began: the start period counts from here

	status string
	told   string // the status that the engine has
	tells  bool   // it is being told another one
	streak int    // failures in a row
	probes []core.HealthProbe

	at     time.Time // when it is due
	index  int       // in the heap; -1 for not there
	paused bool
	over   bool          // nobody watches any more
	end    func()        // ends the probe that runs; nil for none
	ended  chan struct{} // closed when that has ended
}

func newProber() *prober {
	return &prober{now: time.Now, poke: make(chan struct{}, 1), watches: make(map[core.ContainerID]*watch)}
}

// watch takes a run's health over, in the place of an earlier run's. A watch that
// is there already goes on.
func (p *prober) watch(w *watch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := core.ContainerID(w.key.Container)
	if old := p.watches[id]; old != nil {
		if old.key == w.key {
			return
		}
		p.drop(old)
	}
	w.index = -1
	p.watches[id] = w
	p.schedule(w, p.now().Add(w.interval(p.now())))
}

// unwatch ends a watch of the run or an earlier one.
func (p *prober) unwatch(k execdriver.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.watches[core.ContainerID(k.Container)]; w != nil && w.key.Run <= k.Run {
		p.drop(w)
	}
}

// drop forgets a watch. The caller holds mu.
func (p *prober) drop(w *watch) {
	w.over = true
	if w.index >= 0 {
		heap.Remove(&p.due, w.index)
	}
	if w.end != nil {
		w.end()
	}
	delete(p.watches, core.ContainerID(w.key.Container))
}

// pause holds a container's probes before it is frozen; one that runs is ended,
// and does not count. resume lets them go on, a whole interval later.
func (p *prober) pause(container string) (resume func()) {
	p.mu.Lock()
	w := p.watches[core.ContainerID(container)]
	if w == nil {
		p.mu.Unlock()
		return func() {}
	}
	w.paused = true
	if w.index >= 0 {
		heap.Remove(&p.due, w.index)
	}
	ended := w.ended
	if w.end != nil {
		w.end()
	}
	p.mu.Unlock()
	if ended != nil {
		select {
		case <-ended:
		case <-time.After(pauseWithin):
		}
	}
	return func() { p.resume(container) }
}

func (p *prober) resume(container string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.watches[core.ContainerID(container)]
	if w == nil || !w.paused {
		return
	}
	w.paused = false
	if w.end == nil {
		p.schedule(w, p.now().Add(w.interval(p.now())))
	}
}

// schedule puts a watch into the heap. The caller holds mu.
func (p *prober) schedule(w *watch, at time.Time) {
	w.at = at
	heap.Push(&p.due, w)
	if p.due[0] == w {
		p.wake()
	}
}

func (p *prober) wake() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// run begins probes when they are due, until ctx ends.
func (p *prober) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(p.begin(ctx))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.poke:
		}
	}
}

// begin begins what is due, and tells how long the rest has time.
func (p *prober) begin(ctx context.Context) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.due) > 0 && p.running < probesAtOnce {
		w := p.due[0]
		if left := w.at.Sub(p.now()); left > 0 {
			return left
		}
		heap.Pop(&p.due)
		p.running++
		limited, end := context.WithTimeout(ctx, w.timeout()+probeSlack)
		w.end, w.ended = end, make(chan struct{})
		go func() {
			if report := p.once(limited, w); report != nil {
				p.report(ctx, w, report)
			}
		}()
	}
	return time.Hour // whoever comes, or ends a probe, wakes
}

// once makes one probe, and gives what there is to tell.
func (p *prober) once(ctx context.Context, w *watch) *core.ReportHealth {
	begun := p.now()
	probed, err := p.probe(ctx, execdriver.Probe{Key: w.key, Process: w.process, Timeout: w.timeout(), Keep: outputKept})
	p.mu.Lock()
	dismissed := w.paused || w.over || ctx.Err() != nil
	w.end()
	w.end = nil
	close(w.ended)
	p.running--
	var report *core.ReportHealth
	next := w.interval(p.now())
	switch {
	case dismissed:
	case err != nil && !counts(err):
		next = min(next, probeAgain)
	default:
		w.count(probeOf(probed, err, begun, p.now(), w.timeout()))
		report = w.news()
	}
	if !w.paused && !w.over {
		p.schedule(w, p.now().Add(next))
	}
	p.wake()
	p.mu.Unlock()
	return report
}

// report tells a change, and then what has changed meanwhile: one after the other, so
// that none overtakes a newer one. What is not taken is told after the next probe.
func (p *prober) report(ctx context.Context, w *watch, r *core.ReportHealth) {
	for r != nil {
		err := p.tell(ctx, r)
		p.mu.Lock()
		w.tells = false
		if err == nil {
			w.told = r.Status
			r = w.news()
		} else {
			r = nil
		}
		p.mu.Unlock()
	}
}

// counts reports whether an error is the container's: its probe could not be run
// in it. That the driver is away, or the container frozen or ending, is not.
func counts(err error) bool {
	return !errdefs.IsUnavailable(err) && !errdefs.IsFailedPrecondition(err) && !errdefs.IsCanceled(err) &&
		!errdefs.IsAborted(err) && !errdefs.IsDeadlineExceeded(err) && !errdefs.IsResourceExhausted(err)
}

// probeOf is one probe as it is told.
func probeOf(r execdriver.Probed, err error, begun, ended time.Time, timeout time.Duration) core.HealthProbe {
	h := core.HealthProbe{Begun: r.Begun, Ended: r.Ended, Code: r.Code, Output: string(r.Output), TimedOut: r.TimedOut}
	switch {
	case err != nil:
		h.Code, h.Output = -1, err.Error()
	case r.TimedOut:
		h.Code, h.Output = -1, fmt.Sprintf("Health check exceeded timeout (%v)", timeout)
		if len(r.Output) > 0 {
			h.Output += ": " + string(r.Output)
		}
	}
	if h.Begun.IsZero() {
		h.Begun, h.Ended = begun, ended
	}
	h.Begun, h.Ended = h.Begun.Round(0).UTC(), h.Ended.Round(0).UTC()
	if len(h.Output) > outputKept {
		h.Output = h.Output[:outputKept]
	}
	return h
}

// dueHeap has the watch that is due first at its root.
type dueHeap []*watch

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for package heap.
func (h *dueHeap) Push(x any) {
	w := x.(*watch)
	w.index = len(*h)
	*h = append(*h, w)
}

// Pop is for package heap.
func (h *dueHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	w.index = -1
	return w
}
