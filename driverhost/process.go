package driverhost

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
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
	launch     *launch
	client     *plugin.Client
	driver     driver.Common // and the interface of its kind
	remote     remote
	info       driver.Info
	pid        int
	born       time.Time
	calls      calls // that run against it; one begins while the driver is held
	dismissed  bool  // it was ended on purpose; written and read while the driver is held
}

// remote is what the host asks of any driver beside its contract.
type remote interface {
	Drain(ctx context.Context) error
	Cancel(ctx context.Context, call string) error
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
	l, closeFiles, err := d.prepare(path, cfg, sockets, lock, generation)
	if err != nil {
		return nil, err
	}
	defer closeFiles()
	p := &process{generation: generation, instance: newInstance(), path: path, launch: l, born: time.Now()}
	p.client = l.client(driver.ClientConfig(d.kind, plug, nil, hostLogger(d.log)), sockets, d.host.patience.start)
	if err := p.connect(ctx, d.kind, d.host.patience.start); err != nil {
		d.end(p)
		return nil, fmt.Errorf("start driver %s (%s): %w", d.id, path, err)
	}
	p.pid = l.cmd.Process.Pid
	if p.info.Name != d.name {
		d.end(p)
		return nil, fmt.Errorf("start driver %s (%s): it says that it is driver %q", d.id, path, p.info.Name)
	}
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
	old, err := os.ReadDir(sockets)
	for _, s := range old { // of an instance that was killed; the lock says that nobody listens there
		err = errors.Join(err, os.Remove(filepath.Join(sockets, s.Name())))
	}
	return cfg, sockets, err
}

// prepare makes the program ready to be started, with everything that it may
// know and have.
func (d *hosted) prepare(path string, cfg driver.Config, sockets string, lock *os.File, generation int) (*launch, func(), error) {
	name := d.cageName(generation)
	group, err := d.host.cage.make(name)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(path)
	cmd.Env = append(cfg.Environ(), driver.EnvSocketDir+"="+sockets, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if d.log.Enabled(context.Background(), slog.LevelDebug) {
		cmd.Env = append(cmd.Env, driver.EnvLogLevel+"=debug")
	}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if d.host.cage.v2 {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	l := &launch{
		cmd: cmd, cage: d.host.cage, name: name, fence: d.host.patience.fence, said: newSaid(d.log),
		ended: make(chan struct{}), gone: make(chan struct{}),
		enter: func() error {
			if err := d.host.cage.join(name); err != nil {
				return err
			}
			return confine(d.kind, d.name)
		},
	}
	return l, func() { _ = group.Close() }, nil
}

// connect starts the process, shakes hands, and asks who it is. When ctx ends,
// so does the process.
func (p *process) connect(ctx context.Context, kind string, length time.Duration) error {
	stop := context.AfterFunc(ctx, func() { _ = p.launch.Kill(ctx) })
	defer stop()
	rpc, err := p.client.Client()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return p.launch.refusal(err)
	}
	d, err := rpc.Dispense(kind)
	if err != nil {
		return err
	}
	p.driver, p.remote = d.(driver.Common), d.(remote)
	ask, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	if p.info, err = p.driver.Info(ask); err != nil {
		return p.ailing(ctx, "ask who it is", err)
	}
	return nil
}

// list asks a new instance for what it holds.
func (d *hosted) list(ctx context.Context, p *process) ([]driver.Item, error) {
	ask, cancel := context.WithTimeout(ctx, d.host.patience.start)
	defer cancel()
	items, err := p.driver.List(ask)
	if err != nil {
		return nil, fmt.Errorf("start driver %s (%s): %w", d.id, p.path, p.ailing(ctx, "ask for what it holds", err))
	}
	return items, nil
}

// ailing adds to the error of a call how the process ended, if it did.
func (p *process) ailing(ctx context.Context, act string, err error) error {
	if p.diedOver(ctx, err) {
		return fmt.Errorf("%s: it ended: %s", act, p.launch.how())
	}
	return fmt.Errorf("%s: %w", act, err)
}

// dead reports whether the main process is gone.
func (p *process) dead() bool {
	select {
	case <-p.launch.ended:
		return true
	default:
		return false
	}
}

// dying is how long the end of a process may be seen after that of its files: the kernel
// closes them before it tells the parent, and the machine may be busy.
const dying = 10 * time.Second

// diedOver reports whether a call failed because the instance has died. Its connection
// ended by that, or was closed by whoever buried it: then the call was cancelled.
func (p *process) diedOver(ctx context.Context, err error) bool {
	return (errdefs.IsUnavailable(err) || errdefs.IsCanceled(err)) && p.died(ctx)
}

// died reports, of an instance that a call could not reach, whether it has died.
func (p *process) died(ctx context.Context) bool {
	select {
	case <-p.launch.ended:
		return true
	case <-time.After(again):
	}
	ask, done := context.WithTimeout(ctx, time.Second)
	defer done()
	if err := p.remote.Cancel(ask, ""); !errdefs.IsUnavailable(err) {
		return false // it was the driver's own word
	}
	select {
	case <-p.launch.ended:
		return true
	case <-time.After(dying):
		return false
	}
}

// drain waits for the steps that run against the instance, for so long at most.
func (p *process) drain(ctx context.Context, length time.Duration) {
	select {
	case <-p.calls.ended():
	case <-time.After(length):
	case <-p.launch.ended:
	case <-ctx.Done():
	}
}

// retire lets the instance end by itself, then sees to it that it has.
func (d *hosted) retire(ctx context.Context, p *process) {
	ctx, cancel := context.WithTimeout(ctx, d.host.patience.drain)
	defer cancel()
	if err := p.remote.Drain(ctx); err != nil {
		d.log.Info("calls of a driver are cut", "error", err)
	}
	// go-plugin asks it to end and waits for the answer without a bound.
	kill := time.AfterFunc(politeness, func() { _ = p.launch.Kill(ctx) })
	p.client.Kill()
	kill.Stop()
	d.end(p)
}

// politeness is how long an instance that has drained may take to end by itself.
const politeness = 2 * time.Second

// end ends the instance, all of it, and what is left of it on the machine.
func (d *hosted) end(p *process) {
	_ = p.launch.Kill(context.Background())
	p.client.Kill()
	if p.launch.cmd.Process != nil {
		<-p.launch.gone
	}
	d.host.cage.drop(p.launch.name)
}

func newInstance() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
