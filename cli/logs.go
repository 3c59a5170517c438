package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/stdio"
)

func (a *app) logsCmd() *cobra.Command {
	var in query.LogsIn
	var tail, since, until string
	var details bool
	c := &cobra.Command{
		Use: "logs [flags] CONTAINER", Short: "Show what a container has written", Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in.Ref = args[0]
			if err := readLogFlags(&in, tail, since, until); err != nil {
				return &usageError{err, c.CommandPath()}
			}
			return a.showLogs(c.Context(), in, details)
		},
	}
	c.Flags().BoolVarP(&in.Follow, "follow", "f", false, "go on until the container ends")
	c.Flags().StringVarP(&tail, "tail", "n", "all", "only so many lines of the end")
	c.Flags().StringVar(&since, "since", "", "only what was written since: a time, or how long ago, e.g. 10m")
	c.Flags().StringVar(&until, "until", "", "only what was written until then")
	c.Flags().BoolVarP(&in.Timestamps, "timestamps", "t", false, "put the time before each line")
	c.Flags().BoolVar(&details, "details", false, "put before each line what the log keeps beside it (nothing yet)")
	return c
}

func readLogFlags(in *query.LogsIn, tail, since, until string) error {
	if tail != "all" {
		n, err := strconv.Atoi(tail)
		if err != nil {
			return fmt.Errorf("tail %q: want a number of lines, or all", tail)
		}
		if n >= 0 {
			in.Tail = &n
		}
	}
	var err error
	now := time.Now()
	if since != "" {
		if in.Since, err = parseTime(since, now); err != nil {
			return err
		}
	}
	if until != "" {
		in.Until, err = parseTime(until, now)
	}
	return err
}

// showLogs copies the frames of a log to where they belong.
func (a *app) showLogs(ctx context.Context, in query.LogsIn, details bool) error {
	out := &stamper{w: a.Stdout, on: in.Timestamps, details: details, fresh: true}
	errs := &stamper{w: a.Stderr, on: in.Timestamps, details: details, fresh: true}
	var gap stdio.Lost // that was not told yet
	tell := func() {
		if gap.To > gap.From {
			a.complain(fmt.Sprintf("%d bytes are missing here", gap.To-gap.From), "")
		}
		gap = stdio.Lost{}
	}
	defer tell()
	ended := false
	err := a.readOutput(ctx, in, func(f stdio.Frame) error {
		var err error
		if f.Type != stdio.FrameLost {
			tell()
		}
		switch f.Type {
		case stdio.FrameEnd:
			ended = true
		case stdio.FrameStdout:
			err = out.write(f.Payload)
		case stdio.FrameStderr:
			err = errs.write(f.Payload)
		case stdio.FrameLost:
			if l, bad := stdio.ParseLost(f.Payload); bad == nil {
				if gap.Stream != l.Stream || gap.To != l.From { // else it is the next part of one gap
					tell()
					gap = l
				}
				gap.To = l.To
			}
			if in.Follow {
				tell() // what comes next may be long in coming
			}
		}
		if err != nil {
			return fmt.Errorf("write the log: %w", err)
		}
		return nil
	})
	if err == nil && !ended && ctx.Err() == nil {
		err = errclass.Errorf(errdefs.ErrUnavailable, "the engine has gone while it was showing the log, which may go on")
	}
	return err
}

// readOutput reads a log frame by frame.
func (a *app) readOutput(ctx context.Context, in query.LogsIn, each func(stdio.Frame) error) error {
	st, err := a.stream(ctx, query.OpLogs, in)
	if err != nil {
		return err
	}
	defer st.Close()
	buf := make([]byte, stdio.MaxFrame)
	for {
		f, err := stdio.ReadFrame(st, buf)
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		if err := each(f); err != nil {
			return err
		}
	}
}

// stamper writes one stream; with on, each payload begins with its time, which
// is put before every line. Details are put there too: a log of ours keeps none,
// so that their place is empty.
type stamper struct {
	w       io.Writer
	on      bool
	details bool
	fresh   bool // the next byte begins a line
	buf     bytes.Buffer
}

func (s *stamper) write(p []byte) error {
	if !s.on && !s.details {
		_, err := s.w.Write(p)
		return err
	}
	before := ""
	if s.on {
		if len(p) < 8 {
			return fmt.Errorf("a payload of %d bytes has no time", len(p))
		}
		before = time.Unix(0, int64(binary.BigEndian.Uint64(p))).UTC().Format("2006-01-02T15:04:05.000000000Z07:00") + " "
		p = p[8:]
	}
	if s.details {
		before += " "
	}
	s.buf.Reset()
	for rest := p; len(rest) > 0; {
		if s.fresh {
			s.buf.WriteString(before)
		}
		end := bytes.IndexByte(rest, '\n') + 1
		if s.fresh = end > 0; !s.fresh {
			end = len(rest)
		}
		s.buf.Write(rest[:end])
		rest = rest[end:]
	}
	_, err := s.w.Write(s.buf.Bytes())
	return err
}
