package execnative

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gantryd/gantry/internal/stdio"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
)

// attached is a shim seen through its attach socket, by a driver that did not
// start it. It tells the same reports as the control socket of a start.
type attached struct {
	c      net.Conn
	buf    []byte
	dir    string // of the run
	bootID [16]byte
}

// dial greets a living shim. The address goes through the directory's
// descriptor, so that the path's length does not matter.
func dial(ctx context.Context, dir string, bootID [16]byte) (*attached, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open run directory: %w", err)
	}
	defer d.Close()
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", filepath.Join(fmt.Sprintf("/proc/self/fd/%d", d.Fd()), socketFile))
	if err != nil {
		return nil, fmt.Errorf("greet shim: %w", err)
	}
	if err := stdio.WriteFrame(c, stdio.Hello{Control: true}.Frame()); err != nil {
		c.Close()
		return nil, fmt.Errorf("greet shim: %w", err)
	}
	return &attached{c: c, buf: make([]byte, 256), dir: dir, bootID: bootID}, nil
}

// FD implements events.
func (a *attached) FD() int { return plan.Descriptor(a.c) }

// Close implements events.
func (a *attached) Close() error { return a.c.Close() }

// Next implements events. A state becomes the report of that state; the first
// one names the shim.
func (a *attached) Next(ctx context.Context) (plan.Report, error) {
	a.c.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { a.c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		f, err := stdio.ReadFrame(a.c, a.buf)
		switch {
		case err != nil && ctx.Err() != nil:
			return plan.Report{}, ctx.Err()
		case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.ErrUnexpectedEOF):
			return plan.Report{}, io.EOF
		case err != nil:
			return plan.Report{}, err
		}
		switch f.Type {
		case stdio.FrameState:
			s, err := stdio.ParseState(f.Payload)
			if err != nil {
				return plan.Report{}, err
			}
			return reportOfState(s), nil
		case stdio.FrameExit:
			e, err := stdio.ParseExit(f.Payload)
			if err != nil {
				return plan.Report{}, err
			}
			r := reportOfExit(e)
			// Clients are not told where the log ends: the record, which the shim
			// writes first, has it.
			if rec, err := readRecord(a.dir, a.bootID); err == nil && rec.State == plan.StateExited {
				r.LogEnd = rec.LogEnd
			}
			return r, nil
		}
	}
}

// reportOfState translates a state. Of a run that has ended the exit follows;
// until then only the shim's pid is news.
func reportOfState(s stdio.State) plan.Report {
	switch s.State {
	case stdio.StateRunning:
		return plan.Report{Kind: plan.ReportRunning, PID: s.PID}
	default:
		return plan.Report{Kind: plan.ReportShim, PID: s.ShimPID}
	}
}

// reportOfExit translates the last frame.
func reportOfExit(e stdio.Exit) plan.Report {
	r := plan.Report{Kind: plan.ReportExited, Code: e.Code, Signal: e.Signal, Time: e.Time}
	if e.OOM {
		r.Flags |= plan.FlagOOM
	}
	if e.Timeout {
		r.Flags |= plan.FlagTimeout
	}
	if e.Failed {
		r.Kind = plan.ReportError
		r.Stage, r.Op, r.Index, r.Errno = plan.Stage(e.Stage), plan.Kind(e.Op), int(e.Index), e.Errno
	}
	return r
}
