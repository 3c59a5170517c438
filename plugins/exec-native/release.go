package execnative

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
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
	d.mu.Lock()
	defer d.mu.Unlock() // the pidfd stays open meanwhile; sending does not block
	r := d.runs[k]
	if r == nil || r.state != running || r.pidfd == nil {
		return driver.Errorf(errdefs.ErrNotFound, "container %s run %d is not running", k.Container, k.Run)
	}
	err := unix.PidfdSendSignal(int(r.pidfd.Fd()), unix.Signal(signal), nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return driver.Errorf(errdefs.ErrNotFound, "container %s run %d is not running", k.Container, k.Run)
	}
	if err != nil {
		return fmt.Errorf("send signal %d to container %s: %w", signal, k.Container, err)
	}
	if signal == int(unix.SIGKILL) {
		// A frozen process of cgroup version 1 dies only when it is thawed.
		return d.containers.Group(groupName(k)).Freeze(false)
	}
	return nil
}

// Release implements execdriver.Driver.
func (d *native) Release(ctx context.Context, k execdriver.Key) error {
	if !isName(k.Container) {
		return driver.Errorf(errdefs.ErrInvalidArgument, "container id %q is not one component of a path", k.Container)
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
	if shim != nil {
		defer shim.Close()
	}
	group := d.containers.Group(groupName(k))
	if state == starting {
		if err := endStart(ctx, r, group); err != nil {
			return err
		}
		return d.Release(ctx, k)
	}
	if state == running {
		if err := group.Kill(); err != nil {
			return fmt.Errorf("release container %s run %d: %w", k.Container, k.Run, err)
		}
		if err := awaitEnd(ctx, r, shim); err != nil {
			return err
		}
	}
	if err := group.Remove(ctx); err != nil {
		return fmt.Errorf("release container %s run %d: %w", k.Container, k.Run, err)
	}
	if err := os.RemoveAll(r.dir); err != nil {
		return fmt.Errorf("remove run directory: %w", err)
	}
	awaitLeave(shim)
	d.drop(r)
	return nil
}

// endStart ends a start that is still at work, by killing what it has made so
// far, until it has come to its end.
func endStart(ctx context.Context, r *run, group *cgroup.Group) error {
	tick := time.NewTicker(endStartPause)
	defer tick.Stop()
	for {
		if err := group.Kill(); err != nil {
			return fmt.Errorf("release container %s run %d: %w", r.key.Container, r.key.Run, err)
		}
		select {
		case <-r.ready:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
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
		return driver.Errorf(errdefs.ErrUnavailable, "the shim of container %s does not end", r.key.Container)
	}
}

// awaitLeave gives a shim that has told everything a moment to be gone, so that
// its cgroup can be removed. One that serves a slow client stays longer.
func awaitLeave(shim *os.File) {
	if shim != nil {
		poll := []unix.PollFd{{Fd: int32(shim.Fd()), Events: unix.POLLIN}}
		_, _ = unix.Poll(poll, int(shimLeave.Milliseconds()))
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
