package main

import (
	"context"
	"io"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/server"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// streams are the operations of the stream sockets.
func (d *daemon) streams() map[string]server.StreamHandler {
	return map[string]server.StreamHandler{
		bus.OpUpload:   server.Spool(d.root("spool"), uploadLimit),
		query.OpAttach: control(d.attach),
		query.OpLogs:   control(d.logs),
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

func (d *daemon) attach(ctx context.Context, call *server.StreamCall) error {
	out, file, err := d.engine.Attach(ctx, d.paths(), call.Request.Body)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = call.Accept(out, file)
	return err
}

func (d *daemon) logs(ctx context.Context, call *server.StreamCall) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return d.engine.Logs(ctx, d.paths(), call.Request.Body, func(l query.Logs) (io.Writer, error) {
		stream, err := call.Accept(l, nil)
		if err != nil {
			return nil, err
		}
		go func() {
			// A client says nothing: what comes is its end.
			_, _ = io.Copy(io.Discard, stream.Conn)
			cancel()
		}()
		return stream, nil
	})
}
