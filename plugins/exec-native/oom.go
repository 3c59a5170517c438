package execnative

import (
	"context"
	"time"

	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// watchDelay is how long after its start a run's memory begins to be watched:
// not while the program takes its first steps, or ends already. What the kernel
// kills meanwhile is in the count that is read first.
const watchDelay = 50 * time.Millisecond

// OOMs implements execdriver.OOMWatcher. From the first call on every run is
// watched.
func (d *native) OOMs(ctx context.Context, f func(execdriver.OOM) error) error {
	d.mu.Lock()
	first := !d.watching
	d.watching = true
	for _, r := range d.runs {
		if first && r.state == running {
			go d.watchMemory(r)
		}
	}
	d.mu.Unlock()
	told := map[*run]uint64{}
	for {
		d.mu.Lock()
		news := d.oomNews
		var next []execdriver.OOM
		now := make(map[*run]uint64, len(told))
		for _, r := range d.runs {
			if r.state != running || r.oom.Count == 0 {
				continue
			}
			if now[r] = r.oom.Count; told[r] != r.oom.Count {
				next = append(next, r.oom)
			}
		}
		d.mu.Unlock()
		told = now // those of ended runs are forgotten
		for _, o := range next {
			if err := f(o); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		}
	}
}

// watchMemoryLater begins to watch a run that has just started, if anybody wants
// it. d.mu is held.
func (d *native) watchMemoryLater(r *run) {
	if d.watching && r.key.Exec == "" {
		time.AfterFunc(watchDelay, func() { d.watchMemory(r) })
	}
}

// watchMemory begins to follow the count of one run. What cannot be watched (no
// controller for memory) is not told; the exit still tells.
func (d *native) watchMemory(r *run) {
	if r.key.Exec != "" {
		return
	}
	w, err := d.group(r).WatchOOM()
	if err != nil {
		return
	}
	kills, err := d.group(r).OOMKills()
	if err != nil {
		w.Close()
		return
	}
	d.noteOOM(r, kills)
	d.awaitMemory(r, w)
}

// awaitMemory waits for the next event of a run, as long as it runs.
func (d *native) awaitMemory(r *run, w *cgroup.OOMWatch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.state != running || r.memory != nil || d.poll.when(w.FD(), w.Events(), func() { d.memoryEvent(r) }) != nil {
		d.letGoMemory(w)
		return
	}
	r.memory = w
}

// letGoMemory ends a watch.
func (d *native) letGoMemory(w *cgroup.OOMWatch) {
	d.poll.forget(w.FD())
	w.Close()
}

// memoryEvent looks what an event was.
func (d *native) memoryEvent(r *run) {
	d.mu.Lock()
	w := r.memory
	r.memory = nil // ours
	d.mu.Unlock()
	if w == nil {
		return
	}
	kills, gone, err := w.Check()
	if err == nil && !gone {
		d.noteOOM(r, kills)
		d.awaitMemory(r, w)
		return
	}
	d.letGoMemory(w)
}

// noteOOM remembers a count that has risen.
func (d *native) noteOOM(r *run, kills uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kills <= r.oom.Count {
		return
	}
	r.oom = execdriver.OOM{Key: r.key, Count: kills, Time: time.Now()}
	close(d.oomNews)
	d.oomNews = make(chan struct{})
}
