package execnative

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// recoverTimeout bounds how long a shim may take to greet a new driver.
const recoverTimeout = 5 * time.Second

// recover finds the runs of an earlier instance by their directories. When it
// returns, every ended run is known and every living one is watched.
func (d *native) recover() error {
	entries, err := os.ReadDir(d.cfg.Run)
	if err != nil {
		return err
	}
	var found []*run
	for _, e := range entries {
		dir := filepath.Join(d.cfg.Run, e.Name())
		if !e.IsDir() {
			continue
		}
		in, err := readIntent(dir)
		if err != nil || execdriver.RunDir(d.cfg.Run, in.key()) != dir {
			// Of a start that died before anything else was made.
			if _, lockErr := os.Stat(filepath.Join(dir, lockFile)); errors.Is(lockErr, os.ErrNotExist) {
				if err := os.RemoveAll(dir); err != nil {
					return err
				}
			}
			continue
		}
		r := d.newRun(in.key())
		r.log = in.Log
		d.runs[r.key] = r
		found = append(found, r)
	}
	type ending struct {
		r   *run
		rec plan.ExitRecord
	}
	var ends []ending
	for _, r := range found {
		rec, ended, err := d.revive(r)
		if err != nil {
			return fmt.Errorf("run %d of container %s: %w", r.key.Run, r.key.Container, err)
		}
		if ended {
			ends = append(ends, ending{r, rec})
		}
	}
	slices.SortFunc(ends, func(a, b ending) int { return cmp.Compare(a.rec.Ended.UnixNano(), b.rec.Ended.UnixNano()) })
	for _, e := range ends {
		if e.rec.State == plan.StateExited {
			d.finish(e.r, exitOf(e.r.key, e.rec))
		} else {
			d.lose(e.r)
		}
	}
	return nil
}

// revive looks at one run: living ones are watched from now on; ended says that
// its end is known by the record, or that its shim was killed.
func (d *native) revive(r *run) (rec plan.ExitRecord, ended bool, err error) {
	held, err := alive(r.dir)
	if err != nil {
		return rec, false, err
	}
	if held {
		if shim, err := d.reconnect(r); err == nil {
			go d.watch(r, shim)
			return rec, false, nil
		}
		// It has ended just now, or does not answer: the record tells.
		if held, err = alive(r.dir); err != nil {
			return rec, false, err
		}
	}
	// A damaged record tells nothing: its run counts as lost.
	rec, recErr := readRecord(r.dir, d.bootID)
	if recErr == nil && (rec.State == plan.StateNone || rec.State == plan.StateMade || rec.State == plan.StateFailed) && !held {
		r.state, r.err = broken, errors.New("the start died with an earlier driver")
		close(r.ready)
		close(r.gone)
		return rec, false, nil
	}
	r.started = execdriver.Started{PID: rec.PID, Log: r.log}
	r.shimPID = rec.ShimPID
	close(r.ready)
	return rec, true, nil
}

// reconnect greets a living shim. It returns once the shim has told that the
// program runs, or the run's end.
func (d *native) reconnect(r *run) (events, error) {
	ctx, cancel := context.WithTimeout(context.Background(), recoverTimeout)
	defer cancel()
	return d.dial(ctx, r)
}
