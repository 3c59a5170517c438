package execnative

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// How a restarted driver deals with a shim that lives but does not answer.
const (
	greetTimeout = 2 * time.Second // for one attempt
	greetPause   = 500 * time.Millisecond
)

// errEarlier says that a start died with an earlier instance of the driver. The
// same start asked again begins anew.
var errEarlier = driver.Errorf(errdefs.ErrAborted, "the start died with an earlier driver")

// recover finds the runs of an earlier instance by their directories. When it
// returns, every ended run is known, in the order of the ends, and every
// living one is watched.
func (d *native) recover() error {
	entries, err := os.ReadDir(d.cfg.Run)
	if err != nil {
		return err
	}
	type ending struct {
		r   *run
		rec plan.ExitRecord
	}
	var ends []ending
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), usernsPrefix) {
			if err := dropHolderOf(filepath.Join(d.cfg.Run, e.Name())); err != nil {
				return err
			}
			continue
		}
		if strings.HasPrefix(e.Name(), sparePrefix) {
			if err := removeRunDir(filepath.Join(d.cfg.Run, e.Name())); err != nil {
				return err
			}
			continue
		}
		r, err := d.found(filepath.Join(d.cfg.Run, e.Name()))
		if err != nil {
			return err
		}
		if r == nil {
			continue
		}
		d.runs[r.key] = r
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
		d.settleEnd(e.r, e.rec)
	}
	return nil
}

// found reads one directory. It is nil for one that no run belongs to: of a
// start that died before its intent was whole. Those are removed.
func (d *native) found(dir string) (*run, error) {
	in, err := readIntent(dir)
	if err == nil && strings.HasPrefix(in.Exec, probeMark) {
		// Of a probe that died with its driver. Its program may live until
		// its deadline; its shim needs nothing of the directory.
		return nil, os.RemoveAll(dir)
	}
	if err == nil && execdriver.RunDir(d.cfg.Run, in.key()) == dir {
		r := d.newRun(in.key())
		r.log, r.set = in.Log, in.Set
		if r.key.Exec == "" && r.set.Parent != "" {
			_, _ = d.holdParent(r) // where it cannot be opened its processes are not found either
		}
		return r, nil
	}
	if _, err := os.Stat(filepath.Join(dir, lockFile)); !errors.Is(err, os.ErrNotExist) {
		return nil, nil // somebody has damaged it: leave it to be looked at
	}
	if !strings.Contains(filepath.Base(dir), "-") {
		return nil, nil // not a run's: the host keeps the driver's own socket beside them
	}
	return nil, os.RemoveAll(dir)
}

// revive looks at one run. A living one is watched from now on; ended says
// that the record tells the end, or that the shim was killed.
func (d *native) revive(r *run) (rec plan.ExitRecord, ended bool, err error) {
	held, err := alive(r.dir)
	if err != nil {
		return rec, false, err
	}
	if held {
		ctx, cancel := context.WithTimeout(context.Background(), greetTimeout)
		defer cancel()
		if shim, err := d.greet(ctx, r); err == nil {
			d.watchLater(r, shim)
			return rec, false, nil
		}
		if held, err = alive(r.dir); err != nil {
			return rec, false, err
		}
		if held { // it is stopped, perhaps: never kill what may be well, unless Release is asked
			d.holdSilent(r)
			go d.greetLater(r)
			return rec, false, nil
		}
	}
	// A damaged record tells nothing: its run counts as lost.
	rec, recErr := readRecord(r.dir, d.bootID)
	if recErr == nil && rec.State != plan.StateRunning && rec.State != plan.StateExited {
		r.state, r.err = broken, errEarlier
		close(r.ready)
		close(r.gone)
		return rec, false, nil
	}
	r.started = execdriver.Started{PID: rec.PID, Log: r.log}
	close(r.ready)
	return rec, true, nil
}

// holdSilent keeps hold of a shim that has not spoken, by the pid in its record: it
// is its own as long as the lock is held.
func (d *native) holdSilent(r *run) {
	rec, err := readRecord(r.dir, d.bootID)
	if err != nil || rec.ShimPID <= 0 {
		return
	}
	fd, err := unix.PidfdOpen(rec.ShimPID, 0)
	if err != nil {
		return
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd of shim")
	if held, err := alive(r.dir); err != nil || !held {
		pidfd.Close()
		return
	}
	d.holdShim(r, pidfd)
}

// settleEnd tells the end of a run whose shim is gone.
func (d *native) settleEnd(r *run, rec plan.ExitRecord) {
	if rec.State == plan.StateExited {
		d.endOthers(r)
		d.finish(r, exitOf(r.key, rec))
		return
	}
	d.lose(r)
}

// greet connects to a living shim and reads its first word. A program that runs
// is settled when it returns.
func (d *native) greet(ctx context.Context, r *run) (events, error) {
	shim, err := dial(ctx, r.dir, d.bootID)
	if err != nil {
		return nil, err
	}
	rep, err := shim.Next(ctx)
	if err != nil {
		shim.Close()
		return nil, fmt.Errorf("greet shim: %w", err)
	}
	if rec, err := readRecord(r.dir, d.bootID); err == nil && rec.ShimPID > 0 {
		d.knowShim(r, rec.ShimPID) // it has spoken on its own socket: the pid is its
	}
	d.follow(r, rep)
	return shim, nil
}

// greetLater tries again until the shim answers or is gone. Bounded by the
// shim's life: each attempt costs a connection, twice a second.
func (d *native) greetLater(r *run) {
	for ; ; time.Sleep(greetPause) {
		ctx, cancel := context.WithTimeout(context.Background(), greetTimeout)
		shim, err := d.greet(ctx, r)
		cancel()
		if err == nil {
			d.watchLater(r, shim)
			return
		}
		if held, err := alive(r.dir); err == nil && !held {
			d.shimGone(r)
			return
		}
	}
}
