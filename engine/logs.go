package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/stdio"
)

// logPoll is how often a followed log is looked at.
const logPoll = 20 * time.Millisecond

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
	if c.mute {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "container %s keeps no log: its log driver is none", c.name)
	}
	if c.log == "" {
		c.log = p.Log(c.id)
	}
	log, err := stdio.OpenLog(c.log)
	if err != nil {
		return err
	}
	defer log.Close()
	if !in.Follow {
		err = log.Bound()
	}
	switch {
	case err != nil:
	case in.From > 0:
		err = log.Seek(in.From)
	case in.Tail != nil:
		err = log.Tail(*in.Tail)
	}
	if err != nil {
		return err
	}
	w, err := open(query.Logs{Container: c.id, Run: c.run, Running: c.up})
	if err != nil {
		return err
	}
	if err := e.copyLog(ctx, log, w, in, c); err != nil || ctx.Err() != nil {
		return err
	}
	return stdio.WriteFrame(w, stdio.Frame{Type: stdio.FrameEnd})
}

// copyLog sends records until there are no more: with Follow, until the container
// is stopped for good. One that is started again, by its policy or by hand, is
// followed on.
func (e *Engine) copyLog(ctx context.Context, log *stdio.LogReader, w io.Writer, in query.LogsIn, c running) error {
	for last := !in.Follow; ; {
		rec, err := log.Next()
		if last && errors.Is(err, io.EOF) {
			rec, err = log.Rest(c.end.LogEnd, c.end.Time)
		}
		switch {
		case err == nil:
			if !in.Until.IsZero() && rec.Time.After(in.Until) {
				return nil
			}
			if in.To > 0 && rec.Offset >= in.To {
				return nil
			}
			if rec.Time.Before(in.Since) {
				continue
			}
			if err := sendRecord(w, upTo(rec, in.To), in.Timestamps); err != nil || in.To > 0 && rec.End() >= in.To {
				return err
			}
			continue
		case !errors.Is(err, io.EOF):
			return err
		case last:
			return nil
		}
		// A run that has ended has written everything: one more look, then it is over.
		now, err := e.look(string(c.id))
		if err == nil {
			c = now
		}
		if last = err != nil || !c.up && !c.soon || !in.Until.IsZero() && e.o.Now().After(in.Until); last {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(logPoll):
		}
	}
}

// upTo is the part of a record before an offset; 0 is none.
func upTo(rec stdio.Record, to uint64) stdio.Record {
	if to == 0 || rec.End() <= to {
		return rec
	}
	if rec.Stream == stdio.Gap {
		rec.Lost = to - rec.Offset
	} else {
		rec.Data = rec.Data[:to-rec.Offset]
	}
	return rec
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
