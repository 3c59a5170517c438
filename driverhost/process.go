package driverhost

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/graphdriver"
	"github.com/gantryd/gantry/sdk/imagedriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// process is one running instance of a driver.
type process struct {
	generation int
	instance   string // random; marks its results
	path       string
	client     *plugin.Client
	driver     driver.Common // and the interface of its kind
	drainer    interface{ Drain(context.Context) error }
	info       driver.Info
	pid        int
	died       chan struct{}  // closed when the process is gone
	calls      sync.WaitGroup // steps that run against it; Add under hosted.starting
}

// pluginOf is the go-plugin side of a kind's contract.
func pluginOf(kind string) (plugin.Plugin, error) {
	switch kind {
	case driver.KindGraph:
		return graphdriver.Plugin{}, nil
	case driver.KindNet:
		return netdriver.Plugin{}, nil
	case driver.KindExec:
		return execdriver.Plugin{}, nil
	case driver.KindImage:
		return imagedriver.Plugin{}, nil
	}
	return nil, fmt.Errorf("there is no kind of driver %q", kind)
}

// start runs the program at path as a new instance, and asks it who it is. All
// earlier instances are ended first, except the one that it is to replace.
func (d *hosted) start(ctx context.Context, path string, replaces *process) (*process, error) {
	plug, err := pluginOf(d.kind)
	if err != nil {
		return nil, err
	}
	generation := 0
	if replaces != nil {
		generation = 1 - replaces.generation
	}
	cfg, sockets, err := d.directories(generation)
	if err != nil {
		return nil, err
	}
	lock, err := d.fence(ctx, generation)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if replaces == nil {
		other, err := d.fence(ctx, 1-generation)
		if err != nil {
			return nil, err
		}
		defer other.Close()
	}
	cmd, closeFiles, err := d.command(path, cfg, sockets, lock, generation)
	if err != nil {
		return nil, err
	}
	defer closeFiles()
	p := &process{generation: generation, instance: newInstance(), path: path, died: make(chan struct{})}
	p.client = plugin.NewClient(driver.ClientConfig(d.kind, plug, cmd, hostLogger(d.log)))
	if err := p.connect(ctx, d.kind, d.name); err != nil {
		d.end(p)
		return nil, fmt.Errorf("start driver %s (%s): %w", d.id, path, err)
	}
	p.pid = cmd.Process.Pid
	go p.watch()
	return p, nil
}

// directories makes the driver's own directories; the one for sockets is the
// generation's.
func (d *hosted) directories(generation int) (driver.Config, string, error) {
	cfg := d.host.o.Config
	cfg.Root = filepath.Join(cfg.Root, d.kind+"-"+d.name)
	cfg.Run = d.runDir()
	sockets := filepath.Join(cfg.Run, fmt.Sprintf("plugin.%d", generation))
	for _, dir := range []string{cfg.Root, cfg.Run, sockets} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return cfg, "", fmt.Errorf("make the directories of driver %s: %w", d.id, err)
		}
	}
	old, err := filepath.Glob(filepath.Join(sockets, "*"))
	for _, s := range old { // of an instance that was killed; the lock says that nobody listens there
		err = errors.Join(err, os.Remove(s))
	}
	return cfg, sockets, err
}

// command is the program with everything that it may know and have.
func (d *hosted) command(path string, cfg driver.Config, sockets string, lock *os.File, generation int) (*exec.Cmd, func(), error) {
	group, err := d.host.cage.make(d.cageName(generation))
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(path)
	cmd.Env = append(cfg.Environ(), driver.EnvSocketDir+"="+sockets, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if d.host.cage.v2 {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, errors.Join(err, group.Close())
	}
	cmd.Stdin = null
	return cmd, func() { _, _ = group.Close(), null.Close() }, nil
}

// connect starts the process, with the kind's capabilities alone, and shakes
// hands. go-plugin forks in the goroutine that calls it; the bounding set is a
// thread's own, so a thread is spent on it.
func (p *process) connect(ctx context.Context, kind, name string) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := confine(kind, name); err != nil {
			done <- err
			return
		}
		_, err := p.client.Client()
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	rpc, err := p.client.Client()
	if err != nil {
		return err
	}
	d, err := rpc.Dispense(kind)
	if err != nil {
		return err
	}
	p.driver = d.(driver.Common)
	p.drainer = d.(interface{ Drain(context.Context) error })
	p.info, err = p.driver.Info(ctx)
	return err
}

// watch closes died when the process is gone.
func (p *process) watch() {
	defer close(p.died)
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return // gone already
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// drain waits for the steps that run against the instance, for so long at most.
func (p *process) drain(ctx context.Context, length time.Duration) {
	idle := make(chan struct{})
	go func() {
		p.calls.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-time.After(length):
	case <-p.died:
	case <-ctx.Done():
	}
}

// retire lets the instance end by itself, then sees to it that it has.
func (d *hosted) retire(ctx context.Context, p *process) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := p.drainer.Drain(ctx); err != nil {
		d.log.Info("calls of a driver were cut", "error", err)
	}
	p.client.Kill() // asks first, then kills
	d.end(p)
}

// end ends the instance, all of it, and what is left of it on the machine.
func (d *hosted) end(p *process) {
	name := d.cageName(p.generation)
	d.host.cage.kill(name)
	p.client.Kill()
	d.host.cage.drop(name)
}

// drainTimeout bounds the wait for calls in flight when an instance ends.
const drainTimeout = 5 * time.Second

func newInstance() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
