package main

import (
	"context"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/server"
	"github.com/gantryd/gantry/engine/answer"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// streams are the operations of the stream sockets. A query waits for no start:
// it is answered from what is known, and the bus lets readers ask.
func (d *assembly) streams() map[string]server.StreamHandler {
	all := answer.Streams(d.engine, d.paths())
	for op, f := range all {
		if op != query.OpQuery {
			all[op] = d.afterStart(control(f))
		}
	}
	all[bus.OpUpload] = d.afterStart(server.Spool(d.root("spool"), uploadLimit))
	return all
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
