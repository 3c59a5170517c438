package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/linux"
)

// rig is what everything is measured on: a scratch directory, a cgroup of our own
// and, once somebody asks for it, an engine with the image loaded.
type rig struct {
	settings
	scratch string // on the disk
	run     string // on a tmpfs
	name    string // of the engine and of the cgroup, random
	image   testImage
	others  others
	groups  []string // our cgroups, in every hierarchy that counts processor time
	engine  *daemon  // nil until it is asked for
	closers []func() error
}

func newRig(ctx context.Context, s settings) (*rig, error) {
	suffix := make([]byte, 4)
	_, _ = rand.Read(suffix) // never fails (crypto/rand)
	r := &rig{settings: s, name: "bench-" + hex.EncodeToString(suffix)}
	if err := r.make(ctx); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *rig) make(ctx context.Context) error {
	var err error
	if r.scratch, err = os.MkdirTemp("", "gantry-bench-"); err != nil {
		return err
	}
	r.closers = append(r.closers, func() error { return os.RemoveAll(r.scratch) })
	r.closers = append(r.closers, r.removeCgroups)
	r.run = filepath.Join(r.scratch, "r")
	if err := os.Mkdir(r.run, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("gantry-bench", r.run, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	r.closers = append(r.closers, func() error { return unix.Unmount(r.run, unix.MNT_DETACH) })
	if err := install(ctx, "crun", "crun", "the runtime that gantry is compared with"); err != nil {
		return err
	}
	if err := install(ctx, "busybox", "busybox-static", "the program in the containers"); err != nil {
		return err
	}
	if r.image, err = makeImage(r.scratch); err != nil {
		return err
	}
	return r.enterCgroup()
}

// install installs a Debian package, if its program is not there.
func install(ctx context.Context, program, pkg, why string) error {
	if _, err := exec.LookPath(program); err == nil {
		return nil
	}
	fmt.Fprintf(os.Stderr, "bench: installing %s from Debian's packages: %s\n", pkg, why)
	c := exec.CommandContext(ctx, "apt-get", "install", "-y", "-q", "--no-install-recommends", pkg)
	c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("install %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// enterCgroup makes a cgroup of our own and moves into it, so that the processor
// time of others can be told from ours: the engine, the CLI and crun inherit it.
func (r *rig) enterCgroup() error {
	v1 := "/sys/fs/cgroup/cpuacct"
	if _, err := os.Stat(v1 + "/cpuacct.usage"); err == nil {
		r.others = others{whole: v1 + "/cpuacct.usage", parse: nanoseconds}
		r.groups = []string{v1 + "/" + r.name}
		r.others.ours = []string{v1 + "/" + r.name + "/cpuacct.usage", v1 + "/gantry-" + r.name + "/cpuacct.usage"}
	} else if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		v2 := "/sys/fs/cgroup/"
		r.others = others{whole: v2 + "cpu.stat", parse: usageUsec}
		r.groups = []string{v2 + r.name}
		r.others.ours = []string{v2 + r.name + "/cpu.stat", v2 + "gantry-" + r.name + "/cpu.stat"}
	}
	for _, g := range r.groups {
		if err := os.Mkdir(g, 0o755); err != nil {
			return fmt.Errorf("make a cgroup: %w", err)
		}
		root := filepath.Dir(g)
		r.closers = append(r.closers, func() error {
			err := os.WriteFile(root+"/cgroup.procs", []byte("0"), 0)
			return errors.Join(err, linux.RemoveCgroup(g, 2*time.Second))
		})
		if err := os.WriteFile(g+"/cgroup.procs", []byte("0"), 0); err != nil {
			return fmt.Errorf("enter a cgroup: %w", err)
		}
	}
	return nil
}

// removeCgroups removes the cgroups of our name that peers have left: Docker keeps
// what it has made for --cgroup-parent.
func (r *rig) removeCgroups() error {
	var errs error
	for _, above := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		left, err := filepath.Glob(above + r.name)
		errs = errors.Join(errs, err)
		for _, g := range left {
			errs = errors.Join(errs, linux.RemoveCgroup(g, 2*time.Second))
		}
	}
	return errs
}

func nanoseconds(data []byte) time.Duration {
	var n int64
	_, _ = fmt.Sscan(string(data), &n) // 0 for what the kernel does not write
	return time.Duration(n)
}

func usageUsec(data []byte) time.Duration {
	var n int64
	_, rest, _ := bytes.Cut(data, []byte("usage_usec "))
	_, _ = fmt.Sscan(string(rest), &n) // 0 for what the kernel does not write
	return time.Duration(n) * time.Microsecond
}

// close takes everything down, the last made first.
func (r *rig) close() error {
	var errs []error
	if r.engine != nil {
		errs = append(errs, r.engine.stop())
	}
	for i := len(r.closers) - 1; i >= 0; i-- {
		errs = append(errs, r.closers[i]())
	}
	return errors.Join(errs...)
}

// daemon is a gantryd of our own.
type daemon struct {
	cmd  *exec.Cmd
	logs string // file of what it said
	host string // for GANTRY_HOST
}

// start starts an engine on directories below the scratch directory and waits
// until it is ready; it says how long that took.
func (r *rig) start(ctx context.Context, name, root, run string) (*daemon, time.Duration, error) {
	d := &daemon{logs: root + ".log", host: "unix://" + filepath.Join(run, "gantry.sock")}
	logs, err := os.OpenFile(d.logs, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer logs.Close()
	d.cmd = exec.Command(filepath.Join(r.bin, "gantryd"), "--root", root, "--run", run, "--name", name)
	d.cmd.Stderr = logs
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, 0, err
	}
	begun := time.Now()
	if err := d.cmd.Start(); err != nil {
		return nil, 0, err
	}
	ready := make(chan time.Duration, 1)
	go func() {
		defer close(ready)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), "ready") {
				ready <- time.Since(begun)
			}
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	select {
	case took, ok := <-ready:
		if ok {
			return d, took, nil
		}
	case <-ctx.Done():
	}
	said, _ := os.ReadFile(d.logs) // for the message
	return nil, 0, errors.Join(fmt.Errorf("gantryd does not get ready:\n%s", said), d.stop())
}

// stop ends the engine; by force, if it does not end by itself.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	timer := time.AfterFunc(20*time.Second, func() { _ = d.cmd.Process.Kill() }) // fails if it has ended
	defer timer.Stop()
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("the engine ended badly: %w", err)
	}
	return nil
}

// gantry is the CLI with these arguments, for the engine d.
func (r *rig) gantry(d *daemon, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(r.bin, "gantry"), args...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "GANTRY_HOST=" + d.host}
	return c
}

// served is the engine that most figures are measured on, with the image loaded.
func (r *rig) served(ctx context.Context) (*daemon, error) {
	if r.engine != nil {
		return r.engine, nil
	}
	d, _, err := r.start(ctx, r.name, filepath.Join(r.scratch, "data"), filepath.Join(r.run, "g"))
	if err != nil {
		return nil, err
	}
	r.engine = d
	if out, err := r.gantry(d, "load", "-i", r.image.archive).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("load the image: %w\n%s", err, out)
	}
	return d, nil
}

// timed runs a command to its end and says how long that took.
func timed(c *exec.Cmd) (time.Duration, error) {
	var said bytes.Buffer
	c.Stderr = &said
	begun := time.Now()
	err := c.Run()
	took := time.Since(begun)
	if err != nil {
		return took, fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return took, nil
}
