package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
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
	attachSlow   = 5 * time.Millisecond   // and later
	logPoll      = 20 * time.Millisecond
)

// Paths says where the exec driver keeps what is not in its results.
type Paths struct {
	Socket func(core.ContainerID, uint64) string // of a run's shim
	Log    func(core.ContainerID) string         // a log whose path the driver did not tell
}

// running is what a stream needs to know of a container.
type running struct {
	id    core.ContainerID
	name  string
	run   uint64
	up    bool // it runs
	soon  bool // it is wanted running and does not run yet
	fault *core.Fault
	log   string
}

// look finds a container by reference, or by id when it was found before.
func (e *Engine) look(ref string) (running, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	c, err := findContainer(e.durable, ref)
	if err != nil {
		return running{}, err
	}
	return running{
		id: c.ID, name: c.Name, run: c.Run, up: c.Running(), soon: c.Want == core.Running && !c.Running(), fault: c.Fault,
		log: c.LogPath,
	}, nil
}

// Attach waits until the shim of the run listens, and connects to it.
func (e *Engine) Attach(ctx context.Context, p Paths, body []byte) (query.Attached, *os.File, error) {
	in, err := read[query.AttachIn](body)
	if err != nil {
		return query.Attached{}, nil, err
	}
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
	for wait := attachPoll; ; wait = min(2*wait, attachSlow) {
		if f, err := dialFile(ctx, p.Socket(c.id, run)); err == nil {
			return out, f, nil
		}
		if c, err = e.look(string(c.id)); err != nil {
			return out, nil, err
		}
		if c.run > run || c.run == run && !c.up && !c.soon {
			return out, nil, notRunning(c)
		}
		select {
		case <-ctx.Done():
			return out, nil, errclass.Errorf(context.DeadlineExceeded, "run %d of container %s did not listen within %v", run, c.name, attachWithin)
		case <-time.After(wait):
		}
	}
}

func notRunning(c running) error {
	err := errclass.Errorf(errdefs.ErrFailedPrecondition, "container %s is not running", c.name)
	if c.fault != nil {
		err = errclass.Errorf(errclass.ByName(c.fault.Class), "%s", c.fault.Message)
	}
	return err
}

// dialFile connects to a unix socket and gives the connection as a descriptor.
func dialFile(ctx context.Context, path string) (*os.File, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*net.UnixConn).File() // the network is "unix"
}

// Logs sends what a container has written as frames of package stdio. open is
// called once the container is found, and answers the client.
func (e *Engine) Logs(ctx context.Context, p Paths, body []byte, open func(query.Logs) (io.Writer, error)) error {
	in, err := read[query.LogsIn](body)
	if err != nil {
		return err
	}
	c, err := e.look(in.Ref)
	if err != nil {
		return err
	}
	if c.log == "" {
		c.log = p.Log(c.id)
	}
	log, err := stdio.OpenLog(c.log)
	if err != nil {
		return err
	}
	defer log.Close()
	if in.Tail != nil {
		if err := log.Tail(*in.Tail); err != nil {
			return err
		}
	}
	w, err := open(query.Logs{Container: c.id, Run: c.run, Running: c.up})
	if err != nil {
		return err
	}
	return e.copyLog(ctx, log, w, in, c)
}

// copyLog sends records until there are no more: with Follow, until the run that
// was there at the beginning has ended.
func (e *Engine) copyLog(ctx context.Context, log *stdio.LogReader, w io.Writer, in query.LogsIn, c running) error {
	last := !in.Follow
	for {
		rec, err := log.Next()
		switch {
		case err == nil:
			if !in.Until.IsZero() && rec.Time.After(in.Until) {
				return nil
			}
			if rec.Time.Before(in.Since) {
				continue
			}
			if err := sendRecord(w, rec, in.Timestamps); err != nil {
				return err
			}
			continue
		case !errors.Is(err, io.EOF) || last:
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		// A run that has ended has written everything: one more look, then it is over.
		now, err := e.look(string(c.id))
		if last = err != nil || now.run != c.run || !now.up && !now.soon; last {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(logPoll):
		}
	}
}

// sendRecord sends one record of a log as frames.
func sendRecord(w io.Writer, r stdio.Record, stamped bool) error {
	if r.Stream == stdio.Gap {
		return stdio.WriteFrame(w, stdio.Lost{Stream: stdio.Gap, From: r.Offset, To: r.Offset + r.Lost}.Frame())
	}
	f := stdio.Frame{Type: stdio.FrameStdout}
	if r.Stream == stdio.Stderr {
		f.Type = stdio.FrameStderr
	}
	if !stamped {
		f.Payload = r.Data
		return stdio.WriteFrame(w, f)
	}
	for data := r.Data; len(data) > 0; {
		n := min(len(data), stdio.MaxFrame-8)
		f.Payload = append(binary.BigEndian.AppendUint64(nil, uint64(r.Time.UnixNano())), data[:n]...)
		if err := stdio.WriteFrame(w, f); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
