// Package answer answers what comes over the bus with an engine.
package answer

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

// Messages answers commands, results, reports and queries that come as messages.
func Messages(e *engine.Engine) server.Handlers {
	return server.Handlers{
		Command: func(c server.Call, cmd bus.Command, reply server.Reply) { e.Command(c.Actor, cmd, reply) },
		Finish:  func(_ server.Call, f bus.Finish, reply server.Reply) { e.Finish(f, reply) },
		Report:  func(_ server.Call, r bus.Report, reply server.Reply) { e.Report(r, reply) },
		Query:   func(ctx context.Context, _ server.Call, q bus.Query) (any, error) { return e.Query(ctx, q) },
	}
}

// Streams are the operations that come each on a stream of its own. Who may ask
// for them is the caller's to say.
func Streams(e *engine.Engine, paths engine.Paths) map[string]server.StreamHandler {
	s := served{engine: e, paths: paths}
	return map[string]server.StreamHandler{
		query.OpQuery:   s.query,
		query.OpCommand: s.command,
		query.OpAttach:  s.attach,
		query.OpLogs:    s.logs,
		query.OpTop:     only(e.Top),
		query.OpStats:   s.stats,
		query.OpDiff:    only(e.Diff),
		query.OpCopyOut: s.copying(true),
		query.OpCopyIn:  s.copying(false),
	}
}

// served is an engine, and where its exec driver's things are.
type served struct {
	engine *engine.Engine
	paths  engine.Paths
}

// query answers from what is known.
func (s served) query(ctx context.Context, call *server.StreamCall) error {
	var in query.QueryIn
	if err := json.Unmarshal(call.Request.Body, &in); err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "read the query: %w", err)
	}
	out, err := s.engine.Query(ctx, bus.Query{Name: in.Name, Body: in.Body})
	if err == nil {
		_, err = call.Accept(out, nil)
	}
	return err
}

// command takes a command; what becomes of it goes out line by line.
func (s served) command(ctx context.Context, call *server.StreamCall) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stream *bus.Stream
	return s.engine.Carry(ctx, engine.Carry{
		Paths: s.paths, Actor: call.Actor, Body: call.Request.Body,
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

func (s served) attach(ctx context.Context, call *server.StreamCall) error {
	out, file, err := s.engine.Attach(ctx, s.paths, call.Request.Body)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = call.Accept(out, file)
	return err
}

func (s served) logs(ctx context.Context, call *server.StreamCall) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return s.engine.Logs(ctx, s.paths, call.Request.Body, func(l query.Logs) (io.Writer, error) {
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

// only serves a stream that has nothing but its answer.
func only[T any](f func(context.Context, []byte) (T, error)) server.StreamHandler {
	return func(ctx context.Context, call *server.StreamCall) error {
		out, err := f(ctx, call.Request.Body)
		if err == nil {
			_, err = call.Accept(out, nil)
		}
		return err
	}
}

// copying serves a copy: the client gets the driver's socket, then one line.
func (s served) copying(out bool) server.StreamHandler {
	return func(ctx context.Context, call *server.StreamCall) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var stream *bus.Stream
		return s.engine.Copy(ctx, engine.Copy{
			Paths: s.paths, Actor: call.Actor, Body: call.Request.Body, Out: out,
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

func (s served) stats(ctx context.Context, call *server.StreamCall) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return s.engine.Stats(ctx, call.Request.Body, func() (func(query.StatsSample) error, error) {
		stream, err := call.Accept(struct{}{}, nil)
		if err != nil {
			return nil, err
		}
		go endWith(stream, cancel)
		lines := json.NewEncoder(stream)
		return func(sample query.StatsSample) error { return lines.Encode(sample) }, nil
	})
}
