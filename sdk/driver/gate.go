package driver

import (
	"context"
	"strings"
	"sync"

	"google.golang.org/grpc"

	"github.com/containerd/errdefs"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
)

// gate counts the calls of a driver's kind that are in flight, and refuses new
// ones once it is shut. go-plugin's own shutdown cuts calls; this waits for
// them.
type gate struct {
	mu       sync.Mutex // guards all below
	inFlight int
	watches  map[*context.CancelFunc]struct{} // calls that end only when told to
	shut     bool
	empty    chan struct{} // closed when shut and nothing is in flight
}

func newGate() *gate {
	return &gate{watches: map[*context.CancelFunc]struct{}{}, empty: make(chan struct{})}
}

// enter lets a call in, or refuses it.
func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return ToStatus(Errorf(errdefs.ErrUnavailable, "the driver is draining and takes no new calls"))
	}
	g.inFlight++
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	if g.shut && g.inFlight == 0 {
		close(g.empty)
	}
}

// watch marks the call of ctx as one without an end of its own.
func (g *gate) watch(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watches[&cancel] = struct{}{}
	if g.shut {
		cancel()
	}
	return ctx, func() {
		cancel()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.watches, &cancel)
	}
}

// drain shuts the gate, ends the watches and waits for the rest.
func (g *gate) drain(ctx context.Context) error {
	g.mu.Lock()
	if !g.shut {
		g.shut = true
		for cancel := range g.watches {
			(*cancel)()
		}
		if g.inFlight == 0 {
			close(g.empty)
		}
	}
	g.mu.Unlock()
	select {
	case <-g.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// guarded reports whether a method passes the gate: those of a kind do, those
// of the common service, of health checks and of go-plugin itself do not.
func guarded(method string) bool {
	return strings.HasPrefix(method, "/gantry.driver.") &&
		!strings.HasPrefix(method, "/"+driverv1.Driver_ServiceDesc.ServiceName+"/")
}

// endless reports whether a method's stream ends only when it is told to.
func endless(method string) bool {
	return method == driverv1.ExecDriver_Exits_FullMethodName || method == driverv1.ExecDriver_OOMs_FullMethodName
}

func (g *gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if !guarded(info.FullMethod) {
		return next(ctx, req)
	}
	if err := g.enter(); err != nil {
		return nil, err
	}
	defer g.leave()
	return next(ctx, req)
}

func (g *gate) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if !guarded(info.FullMethod) {
		return next(srv, s)
	}
	if err := g.enter(); err != nil {
		return err
	}
	defer g.leave()
	if !endless(info.FullMethod) {
		return next(srv, s)
	}
	ctx, done := g.watch(s.Context())
	defer done()
	return next(srv, &watchStream{ServerStream: s, ctx: func() context.Context { return ctx }})
}

// watchStream is a stream whose context also ends when the driver drains.
type watchStream struct {
	grpc.ServerStream
	ctx func() context.Context
}

// Context is the call's context.
func (s *watchStream) Context() context.Context { return s.ctx() }
