package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	fleetClients  = 8
	fleetRestarts = 5
)

// measureFleet starts many containers by several clients at once, and restarts the
// engine with all of them running.
func measureFleet(ctx context.Context, r *rig) (figures []figure, err error) {
	name, root, run := r.name+"-f", filepath.Join(r.scratch, "fleet"), filepath.Join(r.run, "f")
	d, _, err := r.start(ctx, name, root, run)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if out, err := r.gantry(d, "load", "-i", r.image.archive).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("load the image: %w\n%s", err, out)
	}
	var ids []string
	defer func() { err = errors.Join(err, r.removeAll(d, ids)) }()
	var rates []float64
	for range 3 {
		if err := r.removeAll(d, ids); err != nil {
			return nil, err
		}
		ids = nil
		r.untilIdle(ctx, d, 20*time.Second)
		begun := time.Now()
		ids, err = r.startMany(ctx, d, manyContainers, fleetClients)
		rates = append(rates, manyContainers/time.Since(begun).Seconds())
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(rates)
	best := rates[len(rates)-1]
	figures = append(figures, figure{
		name: fmt.Sprintf("%d idle containers (`gantry run -d`) started by %d clients at once", manyContainers, fleetClients),
		goal: "≥ 100/s", met: middleOf(rates) >= 100, got: fmt.Sprintf("%.0f/s (median of %d, best %.0f/s)", middleOf(rates), len(rates), best),
		detail: []string{"- each client runs the CLI again and again; Docker manages 9.7, podman 12.4 on this kind of machine"},
	})
	took, err := r.answerTimes(ctx, &d, name, root, run)
	if err != nil {
		return figures, err
	}
	return append(figures, figure{
		name: fmt.Sprintf("the engine restarted with %d containers running: from its launch until `ps` is answered", manyContainers),
		goal: "≤ 300 ms", met: middle(took) <= 300*time.Millisecond,
		got:    fmt.Sprintf("%s (median of %d)", ms(middle(took)), len(took)),
		detail: []string{"- each time after kill -9; minimum " + ms(took[0]) + ", maximum " + ms(took[len(took)-1])},
	}), nil
}

// startMany starts n containers by some clients at once.
func (r *rig) startMany(ctx context.Context, d *daemon, n, clients int) ([]string, error) {
	var next atomic.Int64
	var mu sync.Mutex
	var ids []string // guarded by mu
	var errs []error // guarded by mu
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for next.Add(1) <= int64(n) && ctx.Err() == nil {
				out, err := r.gantry(d, "run", "-d", "--network", "none", imageName, "sleep", "100000").CombinedOutput()
				mu.Lock()
				if err != nil {
					errs = append(errs, fmt.Errorf("run a container: %w\n%s", err, out))
				} else {
					ids = append(ids, strings.TrimSpace(string(out)))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ids, errors.Join(errs...)
}

// answerTimes kills and launches the engine several times, and asks it without a
// pause until it answers.
func (r *rig) answerTimes(ctx context.Context, d **daemon, name, root, run string) ([]time.Duration, error) {
	var took []time.Duration
	for range fleetRestarts {
		r.untilIdle(ctx, *d, 10*time.Second)
		if err := (*d).cmd.Process.Kill(); err != nil {
			return nil, err
		}
		_ = (*d).cmd.Wait() // says that it was killed
		begun := time.Now()
		answered := make(chan time.Duration, 1)
		go func() {
			for r.gantry(*d, "ps", "-q").Run() != nil && ctx.Err() == nil && time.Since(begun) < time.Minute {
				time.Sleep(2 * time.Millisecond)
			}
			answered <- time.Since(begun)
		}()
		next, _, err := r.start(ctx, name, root, run)
		if err != nil {
			return nil, err
		}
		took = append(took, <-answered)
		*d = next
	}
	slices.Sort(took)
	return took, nil
}
