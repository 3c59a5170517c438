package server

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
)

// maxQueries bounds the queries that run at once.
const maxQueries = 64

// Call says who asks.
type Call struct {
	Conn  string // number of the connection
	Role  bus.Role
	Actor bus.Actor
}

// Reply answers a command, a result or a report. It may be called from any
// goroutine, once; later calls do nothing.
type Reply func(bus.Receipt, error)

// Handlers are the engine's answers.
type Handlers struct {
	// Command, Finish and Report must not block: they put what came into a bounded
	// queue, or reply with ResourceExhausted. Commands come on one goroutine, in the
	// order of arrival; Finish and Report also on those of hosts in this process.
	Command func(Call, bus.Command, Reply)
	Finish  func(Call, bus.Finish, Reply)
	Report  func(Call, bus.Report, Reply)
	// Query is called on goroutines of its own, a bounded number at once. What
	// it returns is sent as JSON.
	Query func(context.Context, Call, bus.Query) (any, error)
}

// engineEnd answers what comes in.
type engineEnd struct {
	server   *Server
	handlers Handlers
	client   *bus.Client
	slots    chan struct{} // one for each query that runs
	running  sync.WaitGroup
}

// Serve gives what comes in to h, then opens the sockets and, if it is wanted,
// the address for stock NATS clients (which needs OpenStream before). It returns at once.
func (s *Server) Serve(h Handlers) error {
	ctx, cancel := context.WithCancel(context.Background())
	client, err := s.Dial(ctx, bus.RoleEngine, "engine")
	if err != nil {
		cancel()
		return err
	}
	e := &engineEnd{server: s, handlers: h, client: client, slots: make(chan struct{}, maxQueries)}
	s.onClose(func() {
		cancel()
		_ = client.Close() // nobody is left to be answered
		e.running.Wait()
	})
	for subject, take := range map[string]func(bus.Incoming){
		s.subjects.Commands(): e.command,
		s.subjects.Queries():  func(in bus.Incoming) { e.query(ctx, in) },
		s.subjects.Finishes(): e.finish,
		s.subjects.Reports():  e.report,
	} {
		if err := client.Listen(subject, take); err != nil {
			return err
		}
	}
	s.shorten(h)
	// The server must know the subscriptions before the first client comes.
	if err := client.Flush(ctx); err != nil {
		return err
	}
	if err := s.openSockets(); err != nil {
		return err
	}
	return s.openEvents(ctx)
}

// shorten gives h what comes by the short way.
func (s *Server) shorten(h Handlers) {
	call := Call{Role: bus.RoleHost, Actor: ownActor()}
	finish := func(_ bus.Finish, reply func(bus.Receipt, error)) { reply(bus.Receipt{}, unserved("results")) }
	if h.Finish != nil {
		finish = func(f bus.Finish, reply func(bus.Receipt, error)) { h.Finish(call, f, reply) }
	}
	report := func(_ bus.Report, reply func(bus.Receipt, error)) { reply(bus.Receipt{}, unserved("reports")) }
	if h.Report != nil {
		report = func(r bus.Report, reply func(bus.Receipt, error)) { h.Report(call, r, reply) }
	}
	s.inside.Take(finish, report)
}

// caller finds out who asks, and whether an answer may go where it is wanted.
// A message of an unknown connection, or one whose reply is not its own, is dropped: to
// answer it would be to write where the asker may not.
func (e *engineEnd) caller(conn, reply string) (Call, bool) {
	p, ok := e.server.registry.find(conn)
	if !ok || p.account != accountEngine {
		return Call{}, false
	}
	if !e.server.cfg.unguarded && !mayAnswer(conn, reply) {
		e.server.log.Warn("a request was dropped: its reply is not the asker's own",
			"conn", conn, "uid", p.actor.UID, "pid", p.actor.PID, "reply", reply)
		return Call{}, false
	}
	return Call{Conn: conn, Role: p.role, Actor: p.actor}, true
}

func (e *engineEnd) command(in bus.Incoming) {
	conn, name, ok := e.server.subjects.ParseCommand(in.Subject)
	if !ok {
		return
	}
	call, ok := e.caller(conn, in.Reply)
	if !ok {
		return
	}
	reply := e.replier(in.Reply)
	var cmd bus.Command
	if err := json.Unmarshal(in.Data, &cmd); err != nil {
		reply(bus.Receipt{}, errclass.Errorf(errdefs.ErrInvalidArgument, "read command %s: %w", name, err))
		return
	}
	if cmd.Name != name {
		reply(bus.Receipt{}, errclass.Errorf(errdefs.ErrInvalidArgument, "command %q came as %q", cmd.Name, name))
		return
	}
	if e.handlers.Command == nil {
		reply(bus.Receipt{}, unserved("commands"))
		return
	}
	e.handlers.Command(call, cmd, reply)
}

func (e *engineEnd) query(ctx context.Context, in bus.Incoming) {
	conn, name, ok := e.server.subjects.ParseQuery(in.Subject)
	if !ok {
		return
	}
	call, ok := e.caller(conn, in.Reply)
	if !ok {
		return
	}
	select {
	case e.slots <- struct{}{}:
	default:
		e.answer(in.Reply, nil, errclass.Errorf(errdefs.ErrResourceExhausted, "%d queries run already", maxQueries))
		return
	}
	e.running.Go(func() {
		defer func() { <-e.slots }()
		out, err := e.ask(ctx, call, bus.Query{Name: name, Body: in.Data})
		e.answer(in.Reply, out, err)
	})
}

// ask answers what the bus itself knows, and gives the rest to the engine.
func (e *engineEnd) ask(ctx context.Context, call Call, q bus.Query) (any, error) {
	if q.Name == bus.QueryHistory {
		return e.server.history(ctx, q.Body)
	}
	if e.handlers.Query == nil {
		return nil, unserved("queries")
	}
	return e.handlers.Query(ctx, call, q)
}

func (e *engineEnd) finish(in bus.Incoming) {
	kind, driver, ok := e.server.subjects.ParseFinish(in.Subject)
	if !ok {
		return
	}
	call, ok := e.host(in.Reply)
	if !ok {
		return
	}
	reply := e.replier(in.Reply)
	var f bus.Finish
	if err := json.Unmarshal(in.Data, &f); err != nil || f.Kind != kind || f.Driver != driver {
		reply(bus.Receipt{}, errclass.Errorf(errdefs.ErrInvalidArgument, "a result for %s %s cannot be read (%v)", kind, driver, err))
		return
	}
	if e.handlers.Finish == nil {
		reply(bus.Receipt{}, unserved("results"))
		return
	}
	e.handlers.Finish(call, f, reply)
}

func (e *engineEnd) report(in bus.Incoming) {
	kind, driver, ok := e.server.subjects.ParseReport(in.Subject)
	if !ok {
		return
	}
	call, ok := e.host(in.Reply)
	if !ok {
		return
	}
	reply := e.replier(in.Reply)
	var r bus.Report
	if err := json.Unmarshal(in.Data, &r); err != nil || r.Kind != kind || r.Driver != driver {
		reply(bus.Receipt{}, errclass.Errorf(errdefs.ErrInvalidArgument, "a report for %s %s cannot be read (%v)", kind, driver, err))
		return
	}
	if e.handlers.Report == nil {
		reply(bus.Receipt{}, unserved("reports"))
		return
	}
	e.handlers.Report(call, r, reply)
}

// host is who sends a result or a report. Their subjects do not name the
// connection; its inbox does, and it must be a host's.
func (e *engineEnd) host(reply string) (Call, bool) {
	conn, ok := bus.InboxOwner(reply)
	if !ok {
		return Call{}, false
	}
	call, ok := e.caller(conn, reply)
	return call, ok && call.Role == bus.RoleHost
}

// replier answers once.
func (e *engineEnd) replier(reply string) Reply {
	var once sync.Once
	return func(r bus.Receipt, err error) {
		once.Do(func() { e.answer(reply, r, err) })
	}
}

// answer sends an answer. It fails only with the engine's own connection, that
// is with the server; who asked will ask again.
func (e *engineEnd) answer(reply string, body any, err error) {
	if err := e.client.Answer(reply, body, err); err != nil {
		e.server.log.Debug("answer", "reply", reply, "error", err)
	}
}

func unserved(what string) error {
	return errclass.Errorf(errdefs.ErrUnavailable, "the engine takes no %s yet", what)
}
