package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// jail runs commands on one thread with a mount namespace of its own, which lacks
// the second cgroup tree: crun refuses machines that have both mounted, so all
// runtimes are compared in such a namespace.
type jail struct{ do chan func() }

func newJail() (*jail, error) {
	j := &jail{do: make(chan func())}
	ready := make(chan error)
	go j.serve(ready)
	return j, <-ready
}

func (j *jail) serve(ready chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread and its namespace end together
	err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if _, none := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); err == nil && none == nil {
		err = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	}
	if err != nil {
		err = fmt.Errorf("make a mount namespace for the runtimes: %w", err)
	}
	ready <- err
	for f := range j.do {
		f()
	}
}

// run calls f there and waits for its end.
func (j *jail) run(f func()) {
	done := make(chan struct{})
	j.do <- func() {
		f()
		close(done)
	}
	<-done
}

// timed runs a command there and says how long it took.
func (j *jail) timed(c *exec.Cmd) (took time.Duration, err error) {
	j.run(func() { took, err = timed(c) })
	return took, err
}

// start runs a command there that leaves a container behind, which inherits its
// streams: they are the null device, or their end would be waited for.
func (j *jail) start(c *exec.Cmd) (err error) {
	j.run(func() { err = c.Run() })
	return err
}

func (j *jail) close() { close(j.do) }

// ociRuntime is one runtime on the command line.
type ociRuntime struct {
	name    string // also the name of its state directory
	program string
	root    string
	jail    *jail
	n       int
}

func (r *rig) runtime(j *jail, name string) *ociRuntime {
	o := &ociRuntime{name: name, program: name, root: filepath.Join(r.run, name), jail: j}
	if name == "gantry-oci" {
		o.program = filepath.Join(r.bin, name)
	}
	return o
}

func (o *ociRuntime) command(args ...string) *exec.Cmd {
	return exec.Command(o.program, append([]string{"--root", o.root}, args...)...)
}

// run runs a bundle from beginning to end.
func (o *ociRuntime) run(bundle string) (time.Duration, error) {
	o.n++
	return o.jail.timed(o.command("run", "--bundle", bundle, fmt.Sprintf("%s-%d", o.name, o.n)))
}

// runCold is run without what the runtime has kept of earlier filters.
func (o *ociRuntime) runCold(bundle string) (time.Duration, error) {
	err := os.RemoveAll(o.root)
	if err != nil {
		return 0, err
	}
	return o.run(bundle)
}

// hold starts a container that stays, and returns how to end it.
func (o *ociRuntime) hold(bundle, id string) (end func() error, err error) {
	if err := o.jail.start(o.command("run", "--detach", "--bundle", bundle, id)); err != nil {
		return nil, err
	}
	return func() error {
		_, err := o.jail.timed(o.command("delete", "--force", id))
		return err
	}, nil
}

// exec runs true in a container that is held.
func (o *ociRuntime) exec(id string) (time.Duration, error) {
	return o.jail.timed(o.command("exec", id, "true"))
}

// holdAll starts one container for each runtime and ends those that have begun
// when one fails.
func holdAll(bundle func(*ociRuntime) string, runtimes ...*ociRuntime) (end func() error, err error) {
	var ends []func() error
	end = func() error {
		var errs []error
		for _, e := range ends {
			errs = append(errs, e())
		}
		return errors.Join(errs...)
	}
	for _, o := range runtimes {
		e, err := o.hold(bundle(o), o.name+"-held")
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", o.name, err), end())
		}
		ends = append(ends, e)
	}
	return end, nil
}
