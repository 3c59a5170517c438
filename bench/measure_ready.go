package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/eventlog"
)

const (
	oldEvents = 1_000_000 // behind the snapshot
	newEvents = 10_000    // after it
	restarts  = 7
)

// measureReady makes a long log, folds it, and starts an engine on it.
func measureReady(ctx context.Context, r *rig) ([]figure, error) {
	name, root := r.name+"-log", filepath.Join(r.scratch, "old")
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, err
	}
	defer os.RemoveAll(root) //nolint:errcheck // the scratch directory goes anyway
	folded, err := r.makeHistory(ctx, root, name)
	if err != nil {
		return nil, fmt.Errorf("make a history: %w", err)
	}
	run := filepath.Join(r.run, "o")
	took, err := r.readyTimes(ctx, name, root, run)
	if err != nil {
		return nil, err
	}
	slices.Sort(took)
	rate := oldEvents / folded.Seconds()
	return []figure{
		{
			name: "decode and fold, from the journal with its hashes", goal: "≥ 100,000 events/s", met: rate >= 100_000,
			got:    fmt.Sprintf("%s events/s", thousands(rate)),
			detail: []string{fmt.Sprintf("- %s events (whole lives of containers, 200 of them kept) in %s, without a snapshot", thousands(oldEvents), folded.Round(time.Millisecond))},
		},
		{
			name: "a million events behind a snapshot, 10,000 after it: from starting gantryd until it is ready", goal: "≤ 1 s",
			met: middle(took) <= time.Second, got: ms(middle(took)) + " (median of " + fmt.Sprint(len(took)) + ")",
			detail: []string{
				"- each time after kill -9; minimum " + ms(took[0]) + ", maximum " + ms(took[len(took)-1]),
				"- older segments are verified, and the stream's last events caught up, in the background",
			},
		},
	}, nil
}

// makeHistory writes the events with a snapshot between, and says how long folding
// the older ones takes. An engine has run on them before, so that its stream has
// them, but the newer ones.
func (r *rig) makeHistory(ctx context.Context, root, name string) (time.Duration, error) {
	log, err := eventlog.Open(filepath.Join(root, "log"), eventlog.Options{})
	if err != nil {
		return 0, err
	}
	h := newHistory(log, core.NewState(), 0)
	h.begin(name)
	if err := h.events(oldEvents); err != nil {
		return 0, err
	}
	r.others.gate(r.share)
	begun := time.Now()
	s, err := engine.Fold(log)
	folded := time.Since(begun)
	if err != nil || s.Hash() != h.s.Hash() {
		return 0, fmt.Errorf("the fold is not what was written (%w)", err)
	}
	if err := log.Close(); err != nil {
		return 0, err
	}
	d, _, err := r.start(ctx, name, root, filepath.Join(r.run, "o"))
	if err != nil {
		return 0, err
	}
	r.untilIdle(ctx, d, 2*time.Minute) // the stream catches up
	if err := d.stop(); err != nil {   // keeps a snapshot
		return 0, err
	}
	if log, err = eventlog.Open(filepath.Join(root, "log"), eventlog.Options{}); err != nil {
		return 0, err
	}
	if s, err = engine.Fold(log); err != nil {
		return 0, err
	}
	h = newHistory(log, s, jobsOf(s))
	if err := h.events(s.Seq + newEvents); err != nil {
		return 0, err
	}
	return folded, log.Close()
}

// readyTimes starts and kills an engine several times.
func (r *rig) readyTimes(ctx context.Context, name, root, run string) ([]time.Duration, error) {
	var took []time.Duration
	for range restarts {
		r.others.gate(r.share)
		d, t, err := r.start(ctx, name, root, run)
		if err != nil {
			return nil, err
		}
		took = append(took, t)
		r.untilIdle(ctx, d, time.Minute)
		if err := d.cmd.Process.Kill(); err != nil {
			return nil, err
		}
		_ = d.cmd.Wait() // says that it was killed
	}
	d, _, err := r.start(ctx, name, root, run) // ends in order, and cleans up
	if err != nil {
		return nil, err
	}
	return took[1:], d.stop() // the first one also tells the stream of the newer events
}

// untilIdle waits until the engine uses no processor time, but not for ever.
func (r *rig) untilIdle(ctx context.Context, d *daemon, most time.Duration) {
	const look = 300 * time.Millisecond
	last := processTime(d.cmd.Process.Pid)
	for end := time.Now().Add(most); time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(look)
		now := processTime(d.cmd.Process.Pid)
		if now-last <= look/20 {
			return
		}
		last = now
	}
}

// processTime is the processor time of a process, in steps of 10 ms.
func processTime(pid int) time.Duration {
	fields, err := statFields(pid)
	if err != nil || len(fields) < 13 {
		return 0
	}
	var user, system int64
	_, _ = fmt.Sscan(fields[11]+" "+fields[12], &user, &system) // the kernel writes numbers
	return time.Duration(user+system) * 10 * time.Millisecond
}
