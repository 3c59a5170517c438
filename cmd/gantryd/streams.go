package main

import (
	"context"
	"encoding/json"
	"io"
	"os"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/server"
	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// streams are the operations of the stream sockets.
func (d *assembly) streams() map[string]server.StreamHandler {
	return map[string]server.StreamHandler{
		bus.OpUpload:    d.afterStart(server.Spool(d.root("spool"), uploadLimit)),
		query.OpQuery:   d.query,
		query.OpCommand: d.afterStart(control(d.command)),
		query.OpAttach:  d.afterStart(control(d.attach)),
		query.OpLogs:    d.afterStart(control(d.logs)),
		query.OpTop:     d.afterStart(control(d.top)),
		query.OpStats:   d.afterStart(control(d.stats)),
		query.OpDiff:    d.afterStart(control(d.diff)),
		query.OpCopyOut: d.afterStart(control(d.copying(true))),
		query.OpCopyIn:  d.afterStart(control(d.copying(false))),
	}
}

// afterStart has a stream wait until the engine has started: there are no drivers
// before.
func (d *assembly) afterStart(f server.StreamHandler) server.StreamHandler {
	return func(ctx context.Context, call *server.StreamCall) error {
		select {
		case <-d.begun:
			return f(ctx, call)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// control lets only those through who may control the engine.
func control(f server.StreamHandler) server.StreamHandler {
	return func(ctx context.Context, call *server.StreamCall) error {
		if call.Role != bus.RoleControl {
			return errclass.Errorf(errdefs.ErrPermissionDenied, "%s is for those who may control the engine", call.Request.Op)
		}
		return f(ctx, call)
	}
}

// query answers from what is known: it waits for no start.
func (d *assembly) query(ctx context.Context, call *server.StreamCall) error {
	var in query.QueryIn
	if err := json.Unmarshal(call.Request.Body, &in); err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "read the query: %w", err)
	}
	out, err := d.engine.Query(ctx, bus.Query{Name: in.Name, Body: in.Body})
	if err == nil {
		_, err = call.Accept(out, nil)
	}
	return err
}

// command takes a command; what becomes of it goes out line by line.
func (d *assembly) command(ctx context.Context, call *server.StreamCall) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stream *bus.Stream
	return d.engine.Carry(ctx, engine.Carry{
		Paths: d.paths(), Actor: call.Actor, Body: call.Request.Body,
		Open: func(r bus.Receipt) (context.Context, error) {
			var err error
			if stream, err = call.Accept(r, nil); err == nil {
				go endWith(stream, cancel)
			}
			return ctx, err
		},
		Say: func(said query.Said, file *os.File) error { return stream.Say(said, file) },
	})
}

func (d *assembly) attach(ctx context.Context, call *server.StreamCall) error {
	out, file, err := d.engine.Attach(ctx, d.paths(), call.Request.Body)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = call.Accept(out, file)
	return err
}

func (d *assembly) logs(ctx context.Context, call *server.StreamCall) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return d.engine.Logs(ctx, d.paths(), call.Request.Body, func(l query.Logs) (io.Writer, error) {
		stream, err := call.Accept(l, nil)
		if err != nil {
			return nil, err
		}
		go endWith(stream, cancel)
		return stream, nil
	})
}

// endWith ends what is done for a client when the client goes: it says nothing,
// so what comes from it is its end.
func endWith(s *bus.Stream, cancel context.CancelFunc) {
	_, _ = io.Copy(io.Discard, s.Conn) // however it ends, it has ended
	cancel()
}

func (d *assembly) top(ctx context.Context, call *server.StreamCall) error {
	out, err := d.engine.Top(ctx, call.Request.Body)
	if err == nil {
		_, err = call.Accept(out, nil)
	}
	return err
}

func (d *assembly) diff(ctx context.Context, call *server.StreamCall) error {
	out, err := d.engine.Diff(ctx, call.Request.Body)
	if err == nil {
		_, err = call.Accept(out, nil)
	}
	return err
}

// copying serves a copy: the client gets the driver's socket, then one line.
func (d *assembly) copying(out bool) server.StreamHandler {
	return func(ctx context.Context, call *server.StreamCall) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var stream *bus.Stream
		return d.engine.Copy(ctx, engine.Copy{
			Paths: d.paths(), Actor: call.Actor, Body: call.Request.Body, Out: out,
			Open: func(c query.Copying, file *os.File) error {
				var err error
				if stream, err = call.Accept(c, file); err == nil && file != nil {
					go endWith(stream, cancel)
				}
				return err
			},
			End: func(e query.CopyEnd) error { return json.NewEncoder(stream).Encode(e) },
		})
	}
}

func (d *assembly) stats(ctx context.Context, call *server.StreamCall) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return d.engine.Stats(ctx, call.Request.Body, func() (func(query.StatsSample) error, error) {
		stream, err := call.Accept(struct{}{}, nil)
		if err != nil {
			return nil, err
		}
		go endWith(stream, cancel)
		lines := json.NewEncoder(stream)
		return func(s query.StatsSample) error { return lines.Encode(s) }, nil
	})
}
