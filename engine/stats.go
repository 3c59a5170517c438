package engine

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/ask"
	"github.com/gantryd/gantry/internal/query"
)

// statsEvery is how often a stream of stats has a sample.
const statsEvery = time.Second

// meter measures for all who watch: they tick together, on full seconds, so that
// the driver is asked once for all of them, and not at all when nobody watches.
type meter struct {
	mu      sync.Mutex
	sample  *sample           // the newest; guarded by mu
	watched map[*watcher]bool // guarded by mu
}

// watcher is one who wants samples: of some containers, or of all.
type watcher struct{ ids map[core.ContainerID]bool }

// sample is one measure. It is shared by whoever asks while it is fresh.
type sample struct {
	at    time.Time
	ready chan struct{} // closed when the rest is set
	by    map[core.ContainerID]query.Stats
	err   error
}

func newMeter() *meter { return &meter{watched: make(map[*watcher]bool)} }

func (m *meter) watch(w *watcher) (stop func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watched[w] = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watched, w)
	}
}

// wanted reports whether somebody watches the container.
func (m *meter) wanted(id core.ContainerID) bool {
	for w := range m.watched {
		if w.ids == nil || w.ids[id] {
			return true
		}
	}
	return false
}

// measure gives a sample that was taken not before since.
func (e *Engine) measure(ctx context.Context, since time.Time) (*sample, error) {
	m := e.meter
	m.mu.Lock()
	s := m.sample
	if s == nil || s.at.Before(since) {
		s = &sample{at: e.o.Now(), ready: make(chan struct{})}
		m.sample = s
		runs, t := e.watchedRuns()
		go e.takeSample(s, runs, t)
	}
	m.mu.Unlock()
	select {
	case <-s.ready:
		return s, s.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// watchedRuns are the runs that somebody watches. The caller holds the meter.
func (e *Engine) watchedRuns() ([]ask.Run, target) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var runs []ask.Run
	for _, c := range e.durable.Containers {
		if c.Running() && e.meter.wanted(c.ID) {
			runs = append(runs, ask.Run{Container: c.ID, Run: c.Process.Run})
		}
	}
	return runs, execTarget(e.durable)
}

// takeSample takes one sample. It is nobody's alone: who began it may leave.
func (e *Engine) takeSample(s *sample, runs []ask.Run, t target) {
	defer close(s.ready)
	s.by = make(map[core.ContainerID]query.Stats, len(runs))
	if len(runs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	var out ask.Stats
	s.err = e.asks.ask(ctx, t, ask.ExecStats, ask.Runs{Runs: runs}, &out)
	for _, r := range out.Runs {
		if r.MemoryLimit == 0 {
			r.MemoryLimit = e.o.Machine.MemoryBytes
		}
		s.by[r.Container] = r
	}
}

// Stats tells what containers use: to each sample that send takes, every second
// until ctx ends, or once. open is called when the containers are found.
func (e *Engine) Stats(ctx context.Context, body []byte, open func() (send func(query.StatsSample) error, err error)) error {
	in, err := read[query.StatsIn](body)
	if err != nil {
		return err
	}
	w := &watcher{}
	for _, ref := range in.Refs {
		c, err := e.look(ref)
		if err != nil {
			return err
		}
		if w.ids == nil {
			w.ids = make(map[core.ContainerID]bool)
		}
		w.ids[c.id] = true
	}
	send, err := open()
	if err != nil {
		return err
	}
	defer e.meter.watch(w)()
	for since := e.o.Now(); ; {
		s, err := e.measure(ctx, since)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (in.Once || errdefs.IsNotImplemented(err)):
			return err
		case err == nil:
			err = send(e.sampleFor(s, w, in.All))
		default:
			e.log.Debug("measure", "error", err) // the next second may bring one
			err = send(e.sampleFor(&sample{}, w, in.All))
		}
		if err != nil || in.Once {
			return err
		}
		since = since.Truncate(statsEvery).Add(statsEvery)
		if now := e.o.Now(); since.Before(now) {
			since = now.Truncate(statsEvery).Add(statsEvery)
		}
		select {
		case <-time.After(since.Sub(e.o.Now())):
		case <-ctx.Done():
			return nil
		}
	}
}

// sampleFor is the sample as one watcher wants it, by the containers' names.
func (e *Engine) sampleFor(s *sample, w *watcher, all bool) query.StatsSample {
	out := query.StatsSample{Containers: []query.Stats{}}
	e.mu.RLock()
	for _, c := range e.durable.Containers {
		stats, ok := s.by[c.ID]
		if w.ids != nil && !w.ids[c.ID] || w.ids == nil && !all && !ok {
			continue
		}
		stats.Container, stats.Name = c.ID, c.Name
		out.Containers = append(out.Containers, stats)
	}
	e.mu.RUnlock()
	slices.SortFunc(out.Containers, func(a, b query.Stats) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(string(a.Container), string(b.Container)))
	})
	return out
}
