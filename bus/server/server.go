package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/nats-io/nats-server/v2/server"
)

const (
	// maxPayload bounds a message in bytes: an event of the log is at most MaxEvent,
	// and a message of the stream has headers beside it.
	maxPayload = 8<<20 + 64<<10
	// maxPending is how far a connection may be behind, in bytes, before the server
	// lets go of it.
	maxPending = 64 << 20
	// startWithin bounds the server's start.
	startWithin = 10 * time.Second
)

// Config says where the bus lives.
type Config struct {
	Node  string // id of the engine
	Store string // directory of the stream
	Run   string // directory of the sockets

	// ControlGID may open gantry.sock, ReadGID read.sock, beside root. Nil:
	// nobody else.
	ControlGID, ReadGID *int

	// Events is the loopback address for stock NATS clients, e.g.
	// "127.0.0.1:4222"; empty: none. Credentials is the file they need; it is made
	// if it is not there.
	Events, Credentials string

	// CopyLate is how late the stream's copy of the events may be; 0: as soon as possible.
	// JetStream reads and keeps up to 8 MB to add an event, for 10 s: without readers it
	// is asked seldom.
	CopyLate time.Duration
	// Copied, if there is one, is called whenever some events have gone into the stream.
	Copied func()

	Log *slog.Logger // nil: discarded

	// unguarded leaves out the protection against forged replies, for the test
	// that shows the attack.
	unguarded bool
	// auth is how long a connection may take to say CONNECT; 0: authTimeout.
	auth time.Duration
}

// Server is the embedded bus.
type Server struct {
	cfg      Config
	log      *slog.Logger
	subjects bus.Subjects
	nats     *server.Server
	registry *registry
	splicer  *splicer
	inside   *bus.Inside

	mu      sync.Mutex // guards what follows
	doors   []*door
	closers []func()
	closed  bool
	stream  string  // name of the current stream
	journal Journal // nil until Show or OpenStream

	eventsAddr net.Addr // nil unless stock clients are let in
}

// authTimeout is how long a connection may take to say CONNECT. The server's own
// 2 s were once too short on a machine under load.
const authTimeout = time.Minute

// Start starts the server. It can be reached from within the process; the
// sockets open with Serve.
func Start(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Node == "" || cfg.Store == "" || cfg.Run == "" {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "start the bus: node, store and run directory are needed")
	}
	if cfg.auth == 0 {
		cfg.auth = authTimeout
	}
	s := &Server{cfg: cfg, log: cfg.Log, subjects: bus.Subjects{Node: cfg.Node}, inside: bus.NewInside()}
	s.registry = &registry{
		subjects: s.subjects, peers: map[uint64]peer{}, stream: s.currentStream,
		accounts: map[account]*server.Account{},
	}
	opts := &server.Options{
		ServerName: cfg.Node,
		// Never together with a cluster: routes would not start and Shutdown hangs.
		DontListen: true, NoSigs: true, NoLog: false,
		JetStream: true, StoreDir: cfg.Store, DisableJetStreamBanner: true,
		MaxPayload: maxPayload, MaxPending: maxPending, WriteDeadline: 10 * time.Second,
		// A subject is seldom used twice, and there are few subscriptions: a cache of what
		// matches costs more than to look.
		NoSublistCache:             true,
		AlwaysEnableNonce:          true,
		AuthTimeout:                cfg.auth.Seconds(),
		CustomClientAuthentication: s.registry,
		Accounts: []*server.Account{
			server.NewAccount("ENGINE"), server.NewAccount("STREAM"), server.NewAccount("READERS"),
		},
	}
	ns, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("start the bus: %w", err)
	}
	ns.SetLoggerV2(natsLog{cfg.Log}, false, false, false)
	if err := s.registry.findAccounts(ns); err != nil {
		return nil, fmt.Errorf("start the bus: %w", err)
	}
	s.nats = ns
	s.splicer = &splicer{inner: ns.InProcessConn, registry: s.registry, log: cfg.Log}
	go ns.Start()
	if !ns.ReadyForConnections(startWithin) {
		ns.Shutdown()
		return nil, errclass.Errorf(errdefs.ErrUnavailable, "start the bus: not ready after %s", startWithin)
	}
	return s, nil
}

// Dial connects from within the process, as the process itself. Steps, their results
// and reports go by the short way.
func (s *Server) Dial(ctx context.Context, role bus.Role, name string) (*bus.Client, error) {
	c, err := s.DialAs(ctx, role, ownActor(), name)
	if err != nil {
		return nil, err
	}
	c.Shorten(s.inside, role)
	// A client says CONNECT with its first message. By the short way that may never
	// come, and the server lets go of who has not said it after authTimeout.
	if err := c.Flush(ctx); err != nil {
		_ = c.Close() // the first error is the one that matters
		return nil, err
	}
	return c, nil
}

// DialAs connects from within the process, for somebody else: a gateway has
// asked the kernel who its own client is.
func (s *Server) DialAs(ctx context.Context, role bus.Role, actor bus.Actor, name string) (*bus.Client, error) {
	nc, err := s.splicer.dial(peer{role: role, account: accountEngine, actor: actor})
	if err != nil {
		return nil, err
	}
	c, err := bus.New(ctx, nc, name)
	if err != nil {
		_ = nc.Close() // the first error is the one that matters
		return nil, err
	}
	return c, nil
}

func ownActor() bus.Actor {
	return bus.Actor{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid())}
}

// Subjects are those of this node.
func (s *Server) Subjects() bus.Subjects { return s.subjects }

// ControlSocket is where control is had.
func (s *Server) ControlSocket() string { return filepath.Join(s.cfg.Run, bus.ControlSocket) }

// ReadSocket is where one can only read.
func (s *Server) ReadSocket() string { return filepath.Join(s.cfg.Run, bus.ReadSocket) }

// openSockets opens the two sockets, and the loopback address if one is wanted.
func (s *Server) openSockets() error {
	for _, k := range []struct {
		path string
		role bus.Role
		gid  *int
	}{
		{s.ControlSocket(), bus.RoleControl, s.cfg.ControlGID},
		{s.ReadSocket(), bus.RoleRead, s.cfg.ReadGID},
	} {
		l, err := listenFor(k.path, k.gid)
		if err != nil {
			return fmt.Errorf("open %s: %w", k.path, err)
		}
		s.openDoor(l, k.path, k.role, accountEngine)
	}
	return nil
}

// listenFor listens at path for root and, if there is one, a group.
func listenFor(path string, gid *int) (*net.UnixListener, error) {
	if gid == nil {
		return listenUnix(path, 0o600, -1)
	}
	return listenUnix(path, 0o660, *gid)
}

func (s *Server) openDoor(l net.Listener, path string, role bus.Role, a account) {
	d := &door{listener: l, path: path, log: s.log, conns: map[net.Conn]bool{}}
	d.lead = func(_ context.Context, c net.Conn) error { return s.splicer.splice(c, role, a) }
	s.open(d)
}

// open lets people in at the door until Close.
func (s *Server) open(d *door) {
	ctx, cancel := context.WithCancel(context.Background())
	d.end = cancel
	d.wg.Add(1)
	go d.serve(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doors = append(s.doors, d)
}

// onClose has f called by Close, after the doors are shut; the last one first.
func (s *Server) onClose(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closers = append(s.closers, f)
}

func (s *Server) currentStream() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream
}

// Close shuts the doors, lets everybody go and ends the server. It may be
// called again.
func (s *Server) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	doors, closers := s.doors, s.closers
	s.mu.Unlock()
	for _, d := range doors {
		d.close()
	}
	for i := len(closers) - 1; i >= 0; i-- {
		closers[i]()
	}
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

// natsLog gives the server's words to our logger. Refusals of clients are
// theirs, not ours: they are for debugging.
type natsLog struct{ log *slog.Logger }

func (l natsLog) say(level slog.Level, format string, args []any) {
	l.log.Log(context.Background(), level, "bus: "+strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// Noticef is for debugging: the server announces much.
func (l natsLog) Noticef(format string, args ...any) { l.say(slog.LevelDebug, format, args) }

// Warnf is a warning, but for the one about maxPayload: we know.
func (l natsLog) Warnf(format string, args ...any) {
	if strings.HasPrefix(format, "Maximum payloads") {
		return
	}
	l.say(slog.LevelWarn, format, args)
}

// Fatalf is an error: the server does not end the process, it has no right to.
func (l natsLog) Fatalf(format string, args ...any) { l.say(slog.LevelError, format, args) }

// Errorf is an error, but for what a client was refused: that is for debugging.
func (l natsLog) Errorf(format string, args ...any) {
	level := slog.LevelError
	if strings.Contains(format, "iolation") || strings.Contains(format, "authentication error") {
		level = slog.LevelDebug
	}
	l.say(level, format, args)
}

// Debugf is for debugging.
func (l natsLog) Debugf(format string, args ...any) { l.say(slog.LevelDebug, format, args) }

// Tracef is for debugging.
func (l natsLog) Tracef(format string, args ...any) { l.say(slog.LevelDebug, format, args) }
