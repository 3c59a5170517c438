package execnative

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// shimPatience is how long a shim may take to record an exit, after everything
// in its container was killed.
const shimPatience = 2 * time.Second

// shimLeave is how long Release waits for a shim that has told everything.
const shimLeave = 100 * time.Millisecond

// endStartPause is how long a killed start may take before it is killed again.
const endStartPause = 20 * time.Millisecond

// Signal implements execdriver.Driver.
func (d *native) Signal(_ context.Context, k execdriver.Key, signal int) error {
	if signal < 0 || signal > 64 {
		return driver.Errorf(errdefs.ErrInvalidArgument, "signal %d is not from 0 to 64", signal)
	}
	r, err := d.send(k, signal)
	if err == nil && signal == int(unix.SIGKILL) {
		// A frozen process of cgroup version 1 dies only when it is thawed.
		err = d.group(r).Thaw()
	}
	return err
}

// send delivers a signal to the first process of a run, or to an exec's.
func (d *native) send(k execdriver.Key, signal int) (*run, error) {
	d.mu.Lock()
	defer d.mu.Unlock() // the pidfd stays open meanwhile; sending does not block
	r := d.runs[k]
	if r == nil || r.state != running || r.pidfd == nil {
		return nil, notRunning(k)
	}
	err := unix.PidfdSendSignal(int(r.pidfd.Fd()), unix.Signal(signal), nil, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, notRunning(k)
	case err != nil:
		return nil, fmt.Errorf("send signal %d to %s: %w", signal, what(k), err)
	}
	return r, nil
}

// what names a run, or an exec, in an error.
func what(k execdriver.Key) string {
	if k.Exec != "" {
		return fmt.Sprintf("exec %s of container %s", k.Exec, k.Container)
	}
	return fmt.Sprintf("container %s run %d", k.Container, k.Run)
}

// notRunning is the answer where something must run and does not.
func notRunning(k execdriver.Key) error {
	return driver.Errorf(errdefs.ErrNotFound, "%s is not running", what(k))
}

// Release implements execdriver.Driver.
func (d *native) Release(ctx context.Context, k execdriver.Key) error {
	if err := checkKey(k); err != nil {
		return err
	}
	d.mu.Lock()
	r := d.runs[k]
	if r == nil {
		r = d.newRun(k) // perhaps a cgroup without a directory
		r.state = broken
	}
	state := r.state
	var shim *os.File
	if state != starting {
		shim, r.shim = r.shim, nil // ours now
	}
	d.mu.Unlock()
	if state == starting {
		if err := d.endStart(ctx, r); err != nil {
			return err
		}
		return d.Release(ctx, k)
	}
	if err := d.end(ctx, r, state, shim); err != nil {
		d.holdShim(r, shim) // who asks again may have to kill it
		return err
	}
	if shim != nil {
		awaitLeave(shim)
		shim.Close()
	}
	d.drop(r)
	return nil
}

// end ends a run that is not being started, and removes what there is of it.
func (d *native) end(ctx context.Context, r *run, state state, shim *os.File) error {
	if state == running {
		if err := d.kill(r); err != nil {
			return fmt.Errorf("release %s: %w", what(r.key), err)
		}
		if err := awaitEnd(ctx, r, shim); err != nil {
			return err
		}
	}
	if r.key.Exec == "" {
		if err := d.removeGroup(ctx, r); err != nil {
			return fmt.Errorf("release %s: %w", what(r.key), err)
		}
	}
	if err := removeRunDir(r.dir); err != nil {
		return fmt.Errorf("remove run directory: %w", err)
	}
	return nil
}

// checkKey refuses names that cannot be.
func checkKey(k execdriver.Key) error {
	switch {
	case !isName(k.Container):
		return driver.Errorf(errdefs.ErrInvalidArgument, "container id %q is not one component of a path", k.Container)
	case k.Exec != "" && !isName(k.Exec):
		return driver.Errorf(errdefs.ErrInvalidArgument, "exec id %q is not one component of a path", k.Exec)
	}
	return nil
}

// kill ends everything in a run, or an exec's process alone, and thaws it.
func (d *native) kill(r *run) error {
	if r.key.Exec == "" {
		return d.killGroup(r)
	}
	if err := d.Signal(context.Background(), r.key, int(unix.SIGKILL)); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// endStart ends a start that is still at work, by killing what it has made so
// far, until it has come to its end. A shim that says nothing goes as well.
func (d *native) endStart(ctx context.Context, r *run) error {
	tick, patience := time.NewTicker(endStartPause), time.After(shimPatience)
	defer tick.Stop()
	for {
		if err := d.killStart(r); err != nil {
			return fmt.Errorf("release %s: %w", what(r.key), err)
		}
		select {
		case <-r.ready:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-patience:
			d.killShim(r)
		case <-tick.C:
		}
	}
}

// killShim kills the shim of a run, if it is known.
func (d *native) killShim(r *run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.shim != nil {
		_ = unix.PidfdSendSignal(int(r.shim.Fd()), unix.SIGKILL, nil, 0) // it may be gone by now
	}
}

// killStart kills what a start has made. That of an exec cannot be told from
// the container's other processes: its shim is told to give up, or killed.
func (d *native) killStart(r *run) error {
	if r.key.Exec == "" {
		return d.killGroup(r)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.giveUp != nil {
		r.giveUp()
	} else if r.shim != nil {
		_ = unix.PidfdSendSignal(int(r.shim.Fd()), unix.SIGKILL, nil, 0) // it may be gone by now
	}
	return nil
}

// awaitEnd waits until a shim has told the end of its run; one that does not is
// killed.
func awaitEnd(ctx context.Context, r *run, shim *os.File) error {
	timer := time.NewTimer(shimPatience)
	defer timer.Stop()
	select {
	case <-r.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	if shim != nil {
		_ = unix.PidfdSendSignal(int(shim.Fd()), unix.SIGKILL, nil, 0) // it may be gone by now
	}
	select {
	case <-r.gone: // watch has seen the socket close
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(shimPatience):
		return driver.Errorf(errdefs.ErrUnavailable, "the shim of %s does not end", what(r.key))
	}
}

// awaitLeave gives a shim that has told everything a moment to be gone, so that
// its cgroup can be removed. One that serves a slow client stays longer.
func awaitLeave(shim *os.File) {
	if shim != nil {
		linux.AwaitExit(shim, shimLeave)
	}
}

// drop forgets a released run.
func (d *native) drop(r *run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.runs[r.key] == r {
		delete(d.runs, r.key)
	}
	for i, e := range d.ended {
		if e == r {
			d.ended = append(d.ended[:i:i], d.ended[i+1:]...)
			break
		}
	}
}
