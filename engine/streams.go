package engine

import (
	"context"
	"net"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/stdio"
)

const (
	attachWithin = 30 * time.Second       // from the command to the shim's socket
	attachPoll   = 300 * time.Microsecond // how often the socket is looked for at first
	attachSoon   = 20 * time.Millisecond  // and for how long so often
	attachSlow   = 5 * time.Millisecond   // how often later
)

// Paths says where the exec driver keeps what is not in its results.
type Paths struct {
	Socket func(core.ContainerID, uint64, core.ExecID) string // of the shim of a run, or of an exec in it
	Copy   func(name string) string                           // of a copy
	Log    func(core.ContainerID) string                      // a log whose path the driver did not tell
}

// running is what a stream needs to know of a container.
type running struct {
	id     core.ContainerID
	name   string
	run    uint64
	up     bool // it runs
	soon   bool // it is wanted running and does not run yet
	rootfs bool // its root filesystem is held
	mute   bool // it keeps no log
	fault  *core.Fault
	log    string
	end    core.Exit // of its last run; zero for none
	exec   core.Exec // the one that was asked for; zero for none
}

func runningOf(c *core.Container) running {
	r := running{
		id: c.ID, name: c.Name, run: c.Run, up: c.Running(), soon: c.Want == core.Running && !c.Running(),
		rootfs: c.Rootfs.State == core.Held, mute: c.Spec.Logging.Driver == "none", fault: c.Fault, log: c.LogPath,
	}
	if c.Exit != nil {
		r.end = *c.Exit
	}
	return r
}

// look finds a container by reference, or by id when it was found before.
func (e *Engine) look(ref string) (running, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	c, err := findContainer(e.durable, ref)
	if err != nil {
		return running{}, err
	}
	return runningOf(c), nil
}

// Attach waits until the shim of the run listens, and connects to it.
func (e *Engine) Attach(ctx context.Context, p Paths, body []byte) (query.Attached, *os.File, error) {
	in, err := read[query.AttachIn](body)
	if err != nil {
		return query.Attached{}, nil, err
	}
	return e.attach(ctx, p, in)
}

func (e *Engine) attach(ctx context.Context, p Paths, in query.AttachIn) (query.Attached, *os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, attachWithin)
	defer cancel()
	c, err := e.look(in.Ref)
	if err != nil {
		return query.Attached{}, nil, err
	}
	run := in.Run
	if run == 0 {
		run = c.run
	}
	out := query.Attached{Container: c.id, Run: run}
	begun := time.Now()
	for wait := attachPoll; ; wait = attachWait(time.Since(begun)) {
		if f, err := dialFile(ctx, p.Socket(c.id, run, in.Exec)); err == nil {
			return out, f, nil
		}
		if c, err = e.lookExec(string(c.id), in.Exec); err != nil {
			return out, nil, err
		}
		if c.run > run || c.run == run && !c.up && !c.soon {
			return out, nil, notRunning(c)
		}
		if c.exec.Exited || c.exec.Fault != nil {
			return out, nil, execEnded(c.exec)
		}
		select {
		case <-ctx.Done():
			return out, nil, errclass.Errorf(context.DeadlineExceeded, "run %d of container %s did not listen within %v", run, c.name, attachWithin)
		case <-time.After(wait):
		}
	}
}

// attachWait is how long to wait before the next look, after so long: whoever
// attaches is most often there before the shim, by a few milliseconds.
func attachWait(waited time.Duration) time.Duration {
	if waited < attachSoon {
		return attachPoll
	}
	return attachSlow
}

// lookExec finds a container and one of its execs. An exec that is not there yet
// is none: its command may be on its way.
func (e *Engine) lookExec(ref string, exec core.ExecID) (running, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	c, err := findContainer(e.durable, ref)
	if err != nil {
		return running{}, err
	}
	r := runningOf(c)
	for i := range c.Execs {
		if exec != "" && c.Execs[i].ID == exec {
			r.exec = c.Execs[i]
		}
	}
	return r, nil
}

func execEnded(x core.Exec) error {
	if x.Fault != nil {
		return errclass.Errorf(errclass.ByName(x.Fault.Class), "%s", x.Fault.Message)
	}
	return errclass.Errorf(errdefs.ErrFailedPrecondition, "exec %.12s has ended", x.ID)
}

func notRunning(c running) error {
	err := errclass.Errorf(errdefs.ErrFailedPrecondition, "container %s is not running", c.name)
	if c.fault != nil {
		err = errclass.Errorf(errclass.ByName(c.fault.Class), "%s", c.fault.Message)
	}
	return err
}

// dialFile connects to a unix socket and gives the connection as a descriptor. It
// looks first whether there is one: whoever waits for it comes by often.
func dialFile(ctx context.Context, path string) (*os.File, error) {
	if _, err := os.Lstat(path); err != nil {
		return nil, err
	}
	c, err := stdio.DialSocket(ctx, path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*net.UnixConn).File() // the network is "unix"
}
