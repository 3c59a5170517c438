package rig

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of what an engine may take.
const (
	readyWithin = 20 * time.Second
	endWithin   = 20 * time.Second
)

// Options say what kind of engine.
type Options struct {
	Name       string   // of one that was closed, whose data it takes over; empty: random
	Root       string   // of the data; empty: in the scratch directory
	DriverPath string   // as gantryd's --driver-path; empty: the programs' own directory
	Flags      []string // more flags of gantryd
}

// Engine is a private gantryd. Its methods are for one goroutine at a time,
// except Kill.
type Engine struct {
	Name string // random, so that nothing else on the machine bears it
	Dir  string // scratch, on disk
	Root string // of the data
	Run  string // of sockets, on tmpfs
	Bin  string // of the programs

	options Options
	net     *netns
	log     *os.File
	boot    string // a file that stands for the kernel's boot id; empty: the kernel's own

	mu   sync.Mutex // guards proc
	proc *process   // nil: it does not run
}

// process is gantryd while it runs.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it is gone, after err is set
	err   error
}

// New makes an engine without starting it. Close takes it away again.
func New(o Options) (*Engine, error) {
	bin, err := Bin()
	if err != nil {
		return nil, err
	}
	word := make([]byte, 4)
	_, _ = rand.Read(word) // never fails (crypto/rand)
	e := &Engine{Name: fmt.Sprintf("%s%d-%s", namePrefix, os.Getpid(), hex.EncodeToString(word)), Bin: bin, options: o}
	if o.Name != "" {
		e.Name = o.Name
	}
	e.Dir, e.Run = filepath.Join(os.TempDir(), e.Name), filepath.Join(tmpfs(), e.Name)
	e.Root = o.Root
	if e.Root == "" {
		e.Root = filepath.Join(e.Dir, "root")
	}
	for _, dir := range []string{e.Dir, e.Run} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, errors.Join(err, e.Close())
		}
	}
	if e.net, err = newNetns(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	if e.log, err = os.Create(filepath.Join(e.Dir, "gantryd.log")); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// tmpfs is where run directories belong: /run, if that is a tmpfs.
func tmpfs() string {
	var st unix.Statfs_t
	if unix.Statfs("/run", &st) == nil && st.Type == unix.TMPFS_MAGIC {
		return "/run"
	}
	return "/dev/shm"
}

// Start makes an engine and starts it.
func Start(o Options) (*Engine, error) {
	e, err := New(o)
	if err != nil {
		return nil, err
	}
	if err := e.Start(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Start starts gantryd and waits until it says that it is ready.
func (e *Engine) Start() error {
	args := []string{"--root", e.Root, "--run", e.Run, "--name", e.Name}
	if e.options.DriverPath != "" {
		args = append(args, "--driver-path", e.options.DriverPath)
	}
	cmd := e.gantryd(append(args, e.options.Flags...))
	cmd.Stderr = e.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is the test's
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := e.net.start(cmd); err != nil {
		return fmt.Errorf("start gantryd: %w", err)
	}
	pid := []byte(strconv.Itoa(cmd.Process.Pid))
	if err := os.WriteFile(filepath.Join(e.Dir, "pid"), pid, 0o644); err != nil {
		return err
	}
	d := &process{cmd: cmd, ended: make(chan struct{})}
	e.mu.Lock()
	e.proc = d
	e.mu.Unlock()
	ready := make(chan struct{})
	go func() {
		told := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), "ready") && !told {
				told = true
				close(ready)
			}
		}
		_, _ = io.Copy(io.Discard, out) // a line too long for the scanner
		d.err = cmd.Wait()
		close(d.ended)
	}()
	select {
	case <-ready:
		return nil
	case <-d.ended:
		return fmt.Errorf("gantryd ended before it was ready: %w\n%s", e.Wait(), e.Said())
	case <-time.After(readyWithin):
		return fmt.Errorf("gantryd is not ready after %v\n%s", readyWithin, e.Said())
	}
}

// SetDriverPath changes where drivers are looked for, from the next start on.
func (e *Engine) SetDriverPath(path string) { e.options.DriverPath = path }

// SetFlags changes gantryd's further flags, from the next start on.
func (e *Engine) SetFlags(flags []string) { e.options.Flags = flags }

func (e *Engine) running() *process {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.proc
}

// Pid is gantryd's process; 0 if there is none.
func (e *Engine) Pid() int {
	if d := e.running(); d != nil {
		return d.cmd.Process.Pid
	}
	return 0
}

// Signal sends gantryd a signal and does not wait for what follows.
func (e *Engine) Signal(s syscall.Signal) error {
	d := e.running()
	if d == nil {
		return errors.New("gantryd does not run")
	}
	return d.cmd.Process.Signal(s)
}

// Kill is kill -9 of gantryd, without a word to anybody else. It returns when
// the process is gone.
func (e *Engine) Kill() error {
	if err := e.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	err := e.Wait()
	if err == nil || !strings.Contains(err.Error(), "signal: killed") {
		return fmt.Errorf("gantryd was to be killed and ended otherwise: %v", err)
	}
	return nil
}

// Wait waits until gantryd has ended, and says how.
func (e *Engine) Wait() error {
	d := e.running()
	if d == nil {
		return errors.New("gantryd does not run")
	}
	select {
	case <-d.ended:
	case <-time.After(endWithin):
		return fmt.Errorf("gantryd has not ended after %v", endWithin)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.proc == d {
		e.proc = nil
	}
	return d.err
}

// Stop ends gantryd as a service manager does. Containers stay.
func (e *Engine) Stop() error {
	if err := e.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return e.Wait()
}

// Said is what gantryd has logged, its end if that is much.
func (e *Engine) Said() string {
	data, err := os.ReadFile(e.log.Name())
	if err != nil {
		return err.Error()
	}
	const most = 8 << 10
	if len(data) > most {
		data = append([]byte("…"), data[len(data)-most:]...)
	}
	return string(data)
}

// Account is what there is to read when a test has failed: what gantryd said and,
// while it runs, the newest events of its log.
func (e *Engine) Account() string {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	events, err := e.CLI(ctx, "log", "--json", "-n", "60").CombinedOutput()
	if err != nil {
		events = fmt.Appendf(events, "(%v)\n", err)
	}
	return fmt.Sprintf("gantryd said:\n%s\nthe newest events:\n%s", e.Said(), events)
}

// LogFile is the file that gantryd logs to.
func (e *Engine) LogFile() string { return e.log.Name() }

// Host is what GANTRY_HOST is to be for clients.
func (e *Engine) Host() string { return "unix://" + filepath.Join(e.Run, "gantry.sock") }

// CLI is a call of gantry against this engine.
func (e *Engine) CLI(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(e.Bin, "gantry"), args...)
	cmd.Env = append(os.Environ(), "GANTRY_HOST="+e.Host())
	return cmd
}

// InNet runs a program in the engine's network namespace.
func (e *Engine) InNet(name string, args ...string) (string, error) {
	return e.net.output(name, args...)
}

// NetworkNamespace is a path by which nsenter --net finds the engine's.
func (e *Engine) NetworkNamespace() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), e.net.f.Fd())
}
