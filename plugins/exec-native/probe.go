package execnative

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/stdio"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// Bounds of a probe.
const (
	mostKept   = 64 << 10         // bytes of output
	probeGrace = 10 * time.Second // that starting it may take, beyond its timeout
	probeMark  = "probe-"         // begins the exec id of a probe
)

// Probe implements execdriver.Execer. A probe is an exec that nobody hears of:
// it has a run directory, which a driver that comes after this one's death
// finds and removes, but it is in no list.
func (d *native) Probe(ctx context.Context, r execdriver.Probe) (execdriver.Probed, error) {
	if err := checkProbe(r); err != nil {
		return execdriver.Probed{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout+probeGrace)
	defer cancel()
	var id [8]byte
	rand.Read(id[:])
	k := r.Key
	k.Exec = probeMark + hex.EncodeToString(id[:])
	one := d.newRun(k)
	e := joiner{process: r.Process, stdio: execdriver.Stdio{WaitAttach: true}, timeout: r.Timeout}
	heard := make(chan capture, 1)
	listen := func() { heard <- listenTo(ctx, one.dir, r.Keep) }
	defer os.RemoveAll(one.dir)
	defer d.letGo(one)
	begun := time.Now()
	shim, err := d.launchExec(ctx, one, e, listen)
	time.AfterFunc(warmDelay, d.warmUp)
	if err != nil {
		return execdriver.Probed{}, err
	}
	defer shim.Close()
	end, err := awaitExit(ctx, shim)
	if err != nil {
		return execdriver.Probed{}, d.probeLost(ctx, one, err)
	}
	c := <-heard // the shim closes after the last byte
	if end.Flags&plan.FlagTimeout != 0 {
		d.killSession(one)
	}
	return execdriver.Probed{
		Code: end.Code, Output: c.output, TimedOut: end.Flags&plan.FlagTimeout != 0, Begun: begun, Ended: end.Time,
	}, c.err
}

// checkProbe refuses what cannot be.
func checkProbe(r execdriver.Probe) error {
	switch {
	case r.Exec != "":
		return driver.Errorf(errdefs.ErrInvalidArgument, "Exec %q: a probe is of a container", r.Exec)
	case r.Timeout <= 0:
		return driver.Errorf(errdefs.ErrInvalidArgument, "Timeout %v is not positive", r.Timeout)
	case r.Keep < 0 || r.Keep > mostKept:
		return driver.Errorf(errdefs.ErrInvalidArgument, "Keep %d is not from 0 to %d", r.Keep, mostKept)
	}
	return checkExec(r.Key, r.Process)
}

// probeLost says why a probe did not come to its end, and ends it.
func (d *native) probeLost(ctx context.Context, one *run, err error) error {
	d.mu.Lock()
	pidfd := one.pidfd
	d.mu.Unlock()
	if kill := d.killRest(one, pidfd); kill != nil {
		err = errors.Join(err, kill)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("probe %s: %w", what(one.key), ctx.Err())
	}
	return fmt.Errorf("probe %s: %w", what(one.key), err)
}

// sessionRounds bounds how often the processes of a session are looked for:
// those that are found may just be forking.
const sessionRounds = 5

// killSession kills what a probe has started and left in process groups other
// than its own, which the shim has killed. The probe led a session. What has
// made one of its own, as a daemon does, goes on until the container's end: it
// can no longer be told from the container's own processes.
func (d *native) killSession(one *run) {
	d.mu.Lock()
	session := one.started.PID
	d.mu.Unlock()
	for range sessionRounds {
		found := false
		pids, _ := d.group(one).Pids() // none where the container has ended
		for _, pid := range pids {
			found = killMember(pid, session) || found
		}
		if !found {
			return
		}
	}
}

// killMember kills a process if it is of the session, and tells so.
func killMember(pid, session int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// Behind the program's name: state, parent, process group, session.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 4 || fields[0] == "Z" || fields[3] != strconv.Itoa(session) {
		return false
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil // its pid was its own if it lives still
}

// letGo closes what a probe has held.
func (d *native) letGo(one *run) {
	d.mu.Lock()
	shim, pidfd := one.shim, one.pidfd
	one.shim, one.pidfd = nil, nil
	d.mu.Unlock()
	if shim != nil {
		awaitLeave(shim)
		shim.Close()
	}
	if pidfd != nil {
		pidfd.Close()
	}
}

// awaitExit reads reports until the exit.
func awaitExit(ctx context.Context, shim *plan.Conn) (plan.Report, error) {
	for {
		rep, err := shim.Next(ctx)
		if errors.Is(err, io.EOF) {
			return rep, driver.Errorf(errdefs.ErrUnavailable, "the shim was lost")
		}
		if err != nil || rep.Kind == plan.ReportExited {
			return rep, err
		}
	}
}

// capture is what a probe has said.
type capture struct {
	output []byte
	err    error
}

// listenTo attaches to a shim and keeps the first bytes of both streams. The
// rest is read too, so that the program is not held up.
func listenTo(ctx context.Context, dir string, keep int) capture {
	var c capture
	conn, _, err := stdio.Dial(ctx, attachPath(dir), stdio.Hello{Stdout: true, Stderr: true, Lossless: true})
	if err != nil {
		c.err = fmt.Errorf("attach to probe: %w", err)
		return c
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		f, err := conn.Next()
		switch {
		case err != nil: // after the exit, or the shim is lost, which the control socket tells
			return c
		case f.Type == stdio.FrameStdout, f.Type == stdio.FrameStderr:
			c.output = append(c.output, f.Payload[:min(len(f.Payload), keep-len(c.output))]...)
		case f.Type == stdio.FrameExit:
			return c
		}
	}
}
