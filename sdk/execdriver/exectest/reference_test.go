package exectest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// reference is a good exec driver with its memory in this process. Containers
// are real: init_test.go makes them, in a child of the test binary. It limits
// nothing and says so.
type reference struct {
	config driver.Config

	mu    sync.Mutex // guards what follows
	runs  map[execdriver.Key]*process
	ended []execdriver.Exit // in order
	wake  chan struct{}     // closed and made anew at each end
}

// process is one run.
type process struct {
	started execdriver.Started
	cmd     *exec.Cmd
	socket  net.Listener
	exited  bool
	done    chan struct{} // closed when its end is recorded
}

// world keeps drivers over restarts, by their directory.
type world struct {
	mu      sync.Mutex // guards drivers
	drivers map[string]*reference
}

func (w *world) open(c driver.Config) *reference {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.drivers == nil {
		w.drivers = map[string]*reference{}
	}
	if w.drivers[c.Run] == nil {
		w.drivers[c.Run] = newReference(c)
	}
	return w.drivers[c.Run]
}

func newReference(c driver.Config) *reference {
	return &reference{config: c, runs: map[execdriver.Key]*process{}, wake: make(chan struct{})}
}

func (d *reference) Info(context.Context) (driver.Info, error) {
	return driver.Info{Name: "reference", Version: "1", Warnings: []string{"it limits nothing"}}, nil
}

func (d *reference) Start(ctx context.Context, r execdriver.Start) (execdriver.Started, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p, ok := d.runs[r.Key]; ok {
		return p.started, nil
	}
	plan, err := makePlan(r)
	if err != nil {
		return execdriver.Started{}, err
	}
	dir := execdriver.RunDir(d.config.Run, r.Key)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return execdriver.Started{}, err
	}
	p := &process{done: make(chan struct{})}
	if p.socket, err = net.Listen("unix", execdriver.SocketPath(d.config.Run, r.Key)); err != nil {
		return execdriver.Started{}, err
	}
	if err = d.attached(ctx, p, r); err == nil {
		err = d.launch(p, r, plan)
	}
	if err != nil {
		p.socket.Close()
		return execdriver.Started{}, errors.Join(err, os.RemoveAll(dir))
	}
	d.runs[r.Key] = p
	go d.await(r.Key, p)
	return p.started, nil
}

// attached waits for a client if one was asked for.
func (d *reference) attached(ctx context.Context, p *process, r execdriver.Start) error {
	if !r.Stdio.WaitAttach {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	came := make(chan error, 1)
	go func() {
		_, err := p.socket.Accept()
		came <- err
	}()
	select {
	case err := <-came:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *reference) logPath(container string) string {
	return filepath.Join(d.config.Root, container[:16]+".log")
}

// launch starts the container's init and waits until it has executed the
// program, or says why not.
func (d *reference) launch(p *process, r execdriver.Start, plan plan) error {
	raw, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Args = []string{initName}
	p.cmd.Env = []string{"PLAN=" + string(raw)}
	p.cmd.ExtraFiles = []*os.File{write} // closed by the exec: then it reads as empty
	flags := uintptr(syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC)
	if r.Network.Mode == netdriver.NamespaceNew || r.Network.Mode == "" {
		flags |= syscall.CLONE_NEWNET
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if r.Stdio.Log.Driver != "none" {
		p.started.Log = d.logPath(r.Container)
		log, err := os.OpenFile(p.started.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer log.Close()
		p.cmd.Stdout, p.cmd.Stderr = log, log
	}
	err = p.cmd.Start()
	write.Close()
	if err != nil {
		return err
	}
	fault, err := io.ReadAll(read)
	if err == nil && len(fault) == 0 {
		p.started.PID = p.cmd.Process.Pid
		return nil
	}
	p.cmd.Wait()
	return driver.Errorf(errdefs.ErrInternal, "start container %s: %s (%v)", r.Container, fault, err)
}

// await records the end of a run.
func (d *reference) await(k execdriver.Key, p *process) {
	p.cmd.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	e := execdriver.Exit{Key: k, Code: status.ExitStatus(), Time: time.Now()}
	if status.Signaled() {
		e.Signal = int(status.Signal())
		e.Code = 128 + e.Signal
	}
	p.exited = true
	d.ended = append(d.ended, e)
	close(p.done)
	close(d.wake)
	d.wake = make(chan struct{})
}

func (d *reference) Signal(_ context.Context, k execdriver.Key, signal int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.runs[k]
	if !ok || p.exited {
		return driver.Errorf(errdefs.ErrNotFound, "run %d of container %s is not running", k.Run, k.Container)
	}
	return p.cmd.Process.Signal(syscall.Signal(signal))
}

func (d *reference) Release(_ context.Context, k execdriver.Key) error {
	d.mu.Lock()
	p, ok := d.runs[k]
	d.mu.Unlock()
	if ok {
		p.cmd.Process.Kill() // the first process of its namespace: all others end with it
		<-p.done
		p.socket.Close()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.runs, k)
	d.ended = slices.DeleteFunc(d.ended, func(e execdriver.Exit) bool { return e.Key == k })
	return os.RemoveAll(execdriver.RunDir(d.config.Run, k))
}

func (d *reference) RemoveLog(_ context.Context, container string) error {
	return os.RemoveAll(d.logPath(container))
}

func (d *reference) Exits(ctx context.Context, f func(execdriver.Exit) error) error {
	told := map[execdriver.Key]bool{}
	for {
		d.mu.Lock()
		ended, wake := slices.Clone(d.ended), d.wake
		d.mu.Unlock()
		for _, e := range ended {
			if told[e.Key] {
				continue
			}
			told[e.Key] = true
			if err := f(e); err != nil {
				return err
			}
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *reference) List(context.Context) ([]driver.Item, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var items []driver.Item
	for k, p := range d.runs {
		if p.exited {
			items = append(items, exitedItem(k))
		} else {
			items = append(items, runningItem(k, p.started.PID))
		}
	}
	return items, nil
}

// makePlan checks a request and looks up what the init needs.
func makePlan(r execdriver.Start) (plan, error) {
	p := plan{Start: r}
	invalid := func(what string, value any) error {
		return driver.Errorf(errdefs.ErrInvalidArgument, "%s cannot be %q", what, value)
	}
	modes := []string{"", netdriver.NamespaceHost, netdriver.NamespaceNew, netdriver.NamespacePath}
	switch {
	case len(r.Process.Args) == 0:
		return p, invalid("args", r.Process.Args)
	case !slices.Contains(modes, r.Network.Mode):
		return p, invalid("network mode", r.Network.Mode)
	case r.Security.Seccomp != "" && r.Security.Seccomp != "unconfined":
		return p, invalid("seccomp", r.Security.Seccomp)
	case r.Process.Cwd != "" && r.Process.Cwd[0] != '/':
		return p, invalid("cwd", r.Process.Cwd)
	case r.Resources.MemoryBytes > 0 || r.Resources.PidsLimit > 0:
		return p, driver.Errorf(errdefs.ErrNotImplemented, "the reference driver limits nothing")
	}
	var err error
	root := r.Rootfs[0].Source
	if p.Caps, err = capabilities(r.Security); err != nil {
		return p, err
	}
	if p.UID, p.GID, err = lookUpUser(root, r.Process.User); err != nil {
		return p, err
	}
	p.Program, err = lookUpProgram(root, r.Process)
	return p, err
}

// lookUpProgram finds the program by PATH inside the root filesystem.
func lookUpProgram(root string, p execdriver.Process) (string, error) {
	candidates := []string{p.Args[0]}
	if !strings.Contains(p.Args[0], "/") {
		candidates = nil
		for _, e := range p.Env {
			if path, ok := strings.CutPrefix(e, "PATH="); ok {
				for _, dir := range filepath.SplitList(path) {
					candidates = append(candidates, filepath.Join(dir, p.Args[0]))
				}
			}
		}
	}
	for _, c := range candidates {
		info, err := os.Stat(filepath.Join(root, c))
		if err != nil {
			continue
		}
		if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return "", driver.Errorf(errdefs.ErrPermissionDenied, "execute %s: it is no executable file", c)
		}
		return c, nil
	}
	return "", driver.Errorf(errdefs.ErrNotFound, "execute %s: it is not there", p.Args[0])
}
