package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
	"github.com/gantryd/gantry/internal/linux"
)

// MaxMessage bounds a gRPC message in either direction, in bytes. Go-plugin
// alone would accept 2 GiB.
const MaxMessage = 16 << 20

// Handshake is what host and driver must agree on. The cookie keeps people
// from starting a driver by hand; it protects nothing.
func Handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{
		ProtocolVersion:  1,
		MagicCookieKey:   "GANTRY_DRIVER",
		MagicCookieValue: "1",
	}
}

// Service is one driver as it is served: what all kinds share, and the
// registration of its kind's methods.
type Service struct {
	Common   Common
	Register func(grpc.ServiceRegistrar)
}

// NewServer makes a gRPC server for s with the limits and checks that every
// driver's server has: bounded messages, peers of our own uid only, a gate for
// draining.
func NewServer(s Service, opts ...grpc.ServerOption) *grpc.Server {
	g, c := newGate(), newCalls()
	server := grpc.NewServer(append(opts,
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		grpc.InitialWindowSize(window),
		grpc.InitialConnWindowSize(window),
		grpc.ReadBufferSize(buffer),
		grpc.WriteBufferSize(buffer),
		grpc.NumStreamWorkers(workers),
		grpc.Creds(PeerCredentials()),
		grpc.ChainUnaryInterceptor(g.unary, c.unary),
		grpc.ChainStreamInterceptor(g.stream, c.stream),
	)...)
	driverv1.RegisterDriverServer(server, &commonServer{driver: s.Common, gate: g, calls: c})
	s.Register(server)
	return server
}

// Both ends of a connection between host and driver.
const (
	// window is how much of a message may be under way, in bytes. A fixed one keeps
	// gRPC from measuring the connection: it sends a PING with each message for that
	// (internal/transport/bdp_estimator.go), which wakes both sides once more.
	window = 1 << 20
	// buffer is that of a connection's reader and writer each, in bytes. Messages are
	// a few kilobytes.
	buffer = 8 << 10
	// workers wait for calls with the stack that the last one needed; further calls
	// get goroutines of their own.
	workers = 4
)

// DialOptions are those with which every host connects to a driver.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(PeerCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(MaxMessage),
			grpc.MaxCallSendMsgSize(MaxMessage),
		),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
		grpc.WithReadBufferSize(buffer),
		grpc.WithWriteBufferSize(buffer),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	}
}

// ClientConfig is how a host starts the driver program cmd of a kind, whose
// plugin is p (graphdriver.Plugin{} and so on). Its environment must hold
// Config.Environ and, in PLUGIN_UNIX_SOCKET_DIR, a directory of mode 0700; it
// gets nothing of the host's own.
func ClientConfig(kind string, p plugin.Plugin, cmd *exec.Cmd, log hclog.Logger) *plugin.ClientConfig {
	return &plugin.ClientConfig{
		HandshakeConfig:  Handshake(),
		Plugins:          plugin.PluginSet{kind: p},
		Cmd:              cmd,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		GRPCDialOptions:  DialOptions(),
		SkipHostEnv:      true,
		StartTimeout:     30 * time.Second,
		Logger:           log,
	}
}

// A driver that has been quiet for settleAfter gives back the memory that its start
// needed, or a burst of at least settleCalls calls.
const (
	settleAfter = time.Second
	settleCalls = 64
)

// Serve is the whole life of a driver process: read the environment, open the
// driver, serve it until the host says to end. It returns the exit status.
// The Main functions of the kinds call it. If the driver is an io.Closer it is
// closed at the end; nothing may rest on that, since drivers are killed.
func Serve(kind string, open func(Config) (Service, error)) int {
	stderr := os.Stderr // go-plugin puts another file there
	surviveDeadHost()
	if os.Getenv(Handshake().MagicCookieKey) != Handshake().MagicCookieValue {
		fmt.Fprintf(stderr, "gantry: this is a %s driver; the engine starts it. To check it: gantry-conform %s\n", kind, os.Args[0])
		return 2
	}
	log := NewLogger(stderr, os.Getenv(EnvLogLevel))
	if err := linux.CalmTimers(); err != nil {
		log.Debug("calm timers", "error", err.Error()) // those of whoever has started us
	}
	s, err := prepare(open, log)
	if err != nil {
		log.Error("open the driver", "kind", kind, "error", err.Error())
		return 1
	}
	settler := linux.NewSettler(settleAfter, settleCalls, func() {
		runtime.GC() // what lies in pools (sync.Pool) needs two collections
		if err := linux.Settle(); err != nil {
			log.Warn("give back memory", "error", err.Error())
		}
	})
	worked := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		settler.Worked(1)
		return next(ctx, req)
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: Handshake(),
		Plugins:         plugin.PluginSet{kind: &servedPlugin{}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return NewServer(s, append(opts, grpc.ChainUnaryInterceptor(worked))...)
		},
		Logger: hclog.New(&hclog.LoggerOptions{Output: stderr, Level: hclog.Error, JSONFormat: true}),
	})
	if c, ok := s.Common.(io.Closer); ok {
		if err := c.Close(); err != nil {
			log.Error("close the driver", "error", err.Error())
			return 1
		}
	}
	return 0
}

// prepare reads the environment, makes the socket directory safe and opens the
// driver.
func prepare(open func(Config) (Service, error), log *slog.Logger) (Service, error) {
	c, err := ConfigFrom(os.Getenv)
	if err != nil {
		return Service{}, err
	}
	c.Log = log
	if err := socketDir(c); err != nil {
		return Service{}, err
	}
	return open(c)
}

// socketDir sees to it that go-plugin's socket is made in a directory that
// nobody else can enter: the one the host has named, else one below Run.
func socketDir(c Config) error {
	dir := os.Getenv(EnvSocketDir)
	if dir == "" {
		dir = filepath.Join(c.Run, "sock")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the socket directory: %w", err)
		}
		if err := os.Setenv(EnvSocketDir, dir); err != nil {
			return err
		}
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(dir, &st); err != nil {
		return fmt.Errorf("look at the socket directory %s: %w", dir, err)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR || st.Mode&0o077 != 0 || int(st.Uid) != os.Getuid() {
		return fmt.Errorf("the socket directory %s has mode %#o and uid %d: want a directory of mode 0700 and uid %d",
			dir, st.Mode, st.Uid, os.Getuid())
	}
	return nil
}

// surviveDeadHost keeps a write to the stderr of a dead host from killing the
// driver in the middle of a step: with a handler for SIGPIPE the write fails
// with EPIPE instead (os/signal, "SIGPIPE"). A handler, unlike ignoring the
// signal, is not inherited by the programs that a driver executes.
func surviveDeadHost() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// NewLogger writes lines of JSON with the keys by which go-plugin's host reads
// level, time and message (hclog's JSON format).
func NewLogger(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level: l,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) > 0 {
				return a
			}
			switch a.Key {
			case slog.TimeKey:
				return slog.String("@timestamp", a.Value.Time().Format("2006-01-02T15:04:05.000000Z07:00"))
			case slog.LevelKey:
				return slog.String("@level", strings.ToLower(a.Value.String()))
			case slog.MessageKey:
				return slog.String("@message", a.Value.String())
			}
			return a
		},
	}))
}

// servedPlugin names the kind to go-plugin; NewServer has registered its
// methods.
type servedPlugin struct{ plugin.NetRPCUnsupportedPlugin }

// GRPCServer has nothing left to do.
func (*servedPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return nil }

// GRPCClient is the host's side, which the Plugin types of the kinds have.
func (*servedPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this side of the plugin only serves")
}
