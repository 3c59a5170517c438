package execnative

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// state is how far a run has come.
type state int

const (
	starting state = iota // Start is at work, or a shim that outlived a driver is
	running
	exited
	broken // a start that failed or died; nothing but leftovers
)

// run is one run of a container, from Start to Release, or one exec in it.
type run struct {
	key execdriver.Key
	dir string
	log string  // path of the log file, empty for none
	set setting // what its execs have of it

	ready chan struct{} // closed when the start has come to its end; err, left and started are fixed then
	gone  chan struct{} // closed when the run has ended, or its start failed

	// Guarded by native.mu; err, left and started may be read after ready.
	state   state
	err     error
	left    bool // the start failed since its caller had left
	started execdriver.Started
	shim    *os.File         // pidfd of the shim; nil if it is gone
	pidfd   *os.File         // of the container's first process
	parent  string           // the cgroup it holds in native.parents; empty for none
	root    *os.File         // the root filesystem's mount; nil for an earlier instance's
	memory  *cgroup.OOMWatch // nil while nobody watches, or an event is looked at
	end     execdriver.Exit
	oom     execdriver.OOM     // Count is 0 as long as nothing was killed
	killed  bool               // somebody kills its group, and freezes it for that
	giveUp  context.CancelFunc // of the start that this instance carries out; nil for an earlier one's
}

// newRun makes the record of a run that starts now.
func (d *native) newRun(k execdriver.Key) *run {
	return &run{key: k, dir: execdriver.RunDir(d.cfg.Run, k), ready: make(chan struct{}), gone: make(chan struct{})}
}

// events is where a shim tells what becomes of its run: the control socket of
// a start, or the attach socket after the driver's restart.
type events interface {
	// Next waits for the next report; io.EOF when the shim has left.
	Next(ctx context.Context) (plan.Report, error)
	// FD can be read from when there is a report, or the shim has left.
	FD() int
	// Close lets go of the shim.
	Close() error
}

// watchLater follows a run to its end, from when its shim has something to say.
func (d *native) watchLater(r *run, shim events) {
	if fd := shim.FD(); fd < 0 || d.poll.once(fd, func() {
		d.poll.forget(fd)
		d.watch(r, shim)
	}) != nil {
		go d.watch(r, shim)
	}
}

// watch follows a run to its end.
func (d *native) watch(r *run, shim events) {
	defer shim.Close()
	for {
		rep, err := shim.Next(context.Background())
		if err != nil {
			go d.connectionLost(r)
			return
		}
		if d.follow(r, rep) {
			return
		}
	}
}

// How long a shim that is ending may hold its lock when its connection is closed.
const (
	lockPause = time.Millisecond
	lockTries = 50
)

// connectionLost asks what has become of a shim that tells nothing more. Only its
// lock says that it is gone: what runs under one that lives is not to be killed.
func (d *native) connectionLost(r *run) {
	for range lockTries {
		if held, err := alive(r.dir); err != nil || !held {
			d.shimGone(r)
			return
		}
		time.Sleep(lockPause)
	}
	d.greetLater(r)
}

// follow takes one report in; over says that no other one matters.
func (d *native) follow(r *run, rep plan.Report) (over bool) {
	switch rep.Kind {
	case plan.ReportShim:
		d.knowShim(r, rep.PID)
	case plan.ReportRunning:
		d.becomeRunning(r, rep.PID, rep.File)
	case plan.ReportExited:
		d.endOthers(r)
		d.finish(r, execdriver.Exit{
			Key: r.key, Code: rep.Code, Signal: rep.Signal, OOMKilled: rep.Flags&plan.FlagOOM != 0, Time: rep.Time, LogEnd: rep.LogEnd,
		})
		return true
	case plan.ReportError:
		d.becomeBroken(r)
		return true
	}
	return false
}

// knowShim keeps hold of a shim that has just spoken, so that Release can wait
// for it to be gone.
func (d *native) knowShim(r *run, pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it has ended; nothing to wait for
	}
	d.holdShim(r, os.NewFile(uintptr(fd), "pidfd of shim"))
}

// holdShim keeps hold of a shim by its pidfd; nil for none yet.
func (d *native) holdShim(r *run, pidfd *os.File) {
	if pidfd == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.shim != nil {
		r.shim.Close()
	}
	r.shim = pidfd
}

// becomeRunning notes that the program was executed. Without a pidfd it has
// ended already, and the exit is on its way. The shim that started it brings one; a
// pid that an attach socket has told is looked at.
func (d *native) becomeRunning(r *run, pid int, pidfd *os.File) {
	if pidfd == nil {
		pidfd, _ = openPidfd(pid, groupName(r.key)) // an exec is in its container's group
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.state != starting {
		if pidfd != nil {
			pidfd.Close()
		}
		return
	}
	r.state, r.pidfd = running, pidfd
	r.started = execdriver.Started{PID: pid, Log: r.log}
	close(r.ready)
	d.watchMemoryLater(r)
}

// becomeBroken notes that a start failed while no driver waited for it.
func (d *native) becomeBroken(r *run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.state == starting {
		r.state, r.err = broken, errEarlier
		close(r.ready)
		close(r.gone)
	}
}

// shimGone tells the end of a run whose shim has closed its socket. If it left
// no exit in its record it was killed: what ran is killed too, since nobody
// takes its output any more.
func (d *native) shimGone(r *run) {
	rec, err := readRecord(r.dir, d.bootID)
	d.mu.Lock()
	begun := r.state == running // also if somebody has taken its record away
	d.mu.Unlock()
	if err == nil && !begun && rec.State != plan.StateRunning && rec.State != plan.StateExited {
		d.becomeBroken(r)
		return
	}
	d.settleEnd(r, rec)
}

// lose ends a run whose shim was killed.
func (d *native) lose(r *run) {
	e := execdriver.Exit{Key: r.key, Code: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL), Lost: true, Time: time.Now(), Reason: "shim lost"}
	d.mu.Lock()
	pidfd := r.pidfd
	d.mu.Unlock()
	if err := d.killRest(r, pidfd); err != nil {
		e.Reason += ": " + err.Error()
	}
	if code, signal, ok := trueExit(pidfd); ok {
		e.Code, e.Signal = code, signal
	}
	if n, err := d.group(r).OOMKills(); err == nil && n > 0 && r.key.Exec == "" {
		e.OOMKilled = true
	}
	d.finish(r, e)
}

// killRest kills what a lost shim has left behind: everything of a container,
// of an exec its own process. What that has started goes on, as the children
// of a container's other processes do.
func (d *native) killRest(r *run, pidfd *os.File) error {
	if r.key.Exec == "" {
		return d.killGroup(r)
	}
	if pidfd == nil {
		return nil
	}
	err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// killGroup kills everything in a container's cgroup.
func (d *native) killGroup(r *run) error {
	d.mu.Lock()
	r.killed = true
	d.mu.Unlock()
	return d.group(r).Kill()
}

// endOthers kills what outlives the first process of a container that has no
// pid namespace of its own: the kernel does it for the others.
func (d *native) endOthers(r *run) {
	if r.key.Exec == "" && r.set.Namespaces.PID.Mode != execdriver.ShareNone {
		_ = d.killGroup(r) // Release does it again, and says why it cannot
	}
}

// finish records the end of a run, once, and tells everybody who waits.
func (d *native) finish(r *run, e execdriver.Exit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.state == exited || r.state == broken {
		return
	}
	if r.state == starting { // ended between two drivers, before its start was told
		select {
		case <-r.ready:
		default:
			close(r.ready)
		}
	}
	r.state, r.end = exited, e
	if r.memory != nil {
		d.letGoMemory(r.memory)
		r.memory = nil
	}
	if r.pidfd != nil {
		r.pidfd.Close()
		r.pidfd = nil
	}
	d.letGoRoot(r)
	d.ended = append(d.ended, r)
	close(r.gone)
	close(d.news)
	d.news = make(chan struct{})
}

// exitOf is the end that a record tells.
func exitOf(k execdriver.Key, rec plan.ExitRecord) execdriver.Exit {
	return execdriver.Exit{Key: k, Code: rec.Code, Signal: rec.Signal, OOMKilled: rec.Flags&plan.FlagOOM != 0, Time: rec.Ended, LogEnd: rec.LogEnd}
}

// Exits implements execdriver.Driver.
func (d *native) Exits(ctx context.Context, f func(execdriver.Exit) error) error {
	told := map[*run]bool{}
	for {
		d.mu.Lock()
		news := d.news
		var next []execdriver.Exit
		held := make(map[*run]bool, len(d.ended))
		for _, r := range d.ended {
			held[r] = true
			if !told[r] {
				next = append(next, r.end)
			}
		}
		d.mu.Unlock()
		told = held // released ones are forgotten
		for _, e := range next {
			if err := f(e); err != nil {
				return fmt.Errorf("report exit of %s run %d: %w", e.Container, e.Run, err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		}
	}
}
