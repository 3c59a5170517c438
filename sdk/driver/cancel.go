package driver

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
)

// callKey is the metadata that names a call.
const callKey = "gantry-call"

// WithCall names the call that is made with the context, so that Cancel can
// end it. To end the context instead would give the caller back at once, while
// the driver may still be at work.
func WithCall(ctx context.Context, name string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, callKey, name)
}

// Cancel tells the call of that name to end soon. No such call is fine. The
// call's own answer says that it has ended.
func (c *Client) Cancel(ctx context.Context, call string) error {
	_, err := c.rpc.Cancel(ctx, &driverv1.CancelRequest{Call: call})
	return FromStatus(err)
}

func (s *commonServer) Cancel(_ context.Context, r *driverv1.CancelRequest) (*driverv1.CancelResponse, error) {
	s.calls.cancel(r.GetCall())
	return &driverv1.CancelResponse{}, nil
}

// calls holds the named calls in flight.
type calls struct {
	mu      sync.Mutex
	running map[string]*context.CancelFunc // guarded by mu
}

func newCalls() *calls { return &calls{running: map[string]*context.CancelFunc{}} }

// begin lets the call of ctx be cancelled by its name, until done is called.
func (c *calls) begin(ctx context.Context) (_ context.Context, done func()) {
	names := metadata.ValueFromIncomingContext(ctx, callKey)
	if len(names) == 0 {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[names[0]] = &cancel
	return ctx, func() {
		cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running[names[0]] == &cancel {
			delete(c.running, names[0])
		}
	}
}

func (c *calls) cancel(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.running[name]; cancel != nil {
		(*cancel)()
	}
}

func (c *calls) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, done := c.begin(ctx)
	defer done()
	return next(ctx, req)
}

func (c *calls) stream(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, done := c.begin(s.Context())
	defer done()
	return next(srv, &watchStream{ServerStream: s, ctx: func() context.Context { return ctx }})
}
