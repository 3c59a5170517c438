package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/stdio"
)

// attach connects to the shim of the container's run, as soon as there is one. An
// engine that goes meanwhile is waited for: the next one has the same container.
func (s *session) attach(ctx context.Context) (*stdio.Conn, stdio.State, error) {
	end := time.Now().Add(engineWithin)
	for {
		conn, state, err := s.attachOnce(ctx)
		if err == nil || !errdefs.IsUnavailable(err) || time.Now().After(end) {
			return conn, state, err
		}
		select {
		case <-ctx.Done():
			return nil, state, ctx.Err()
		case <-time.After(attachAgain):
		}
	}
}

// attachAgain is how long attach waits for an engine that is gone until it asks again.
const attachAgain = 100 * time.Millisecond

// attachOnce attaches without losing a byte: rather the program is held up.
func (s *session) attachOnce(ctx context.Context) (*stdio.Conn, stdio.State, error) {
	st, err := s.a.stream(ctx, query.OpAttach, query.AttachIn{Ref: string(s.id)})
	if err != nil {
		return nil, stdio.State{}, err
	}
	defer st.Close()
	if st.File == nil {
		return nil, stdio.State{}, errclass.Errorf(errdefs.ErrInternal, "attach: the engine has passed no socket")
	}
	nc, err := net.FileConn(st.File)
	if err != nil {
		return nil, stdio.State{}, fmt.Errorf("attach: %w", err)
	}
	hello := stdio.Hello{Stdout: true, Stderr: true, Stdin: s.stdin, StdinOnce: s.stdin, Lossless: true}
	conn, state, err := stdio.Attach(ctx, nc, hello)
	if err != nil {
		_ = nc.Close() // the first error is the one that matters
		return nil, state, fmt.Errorf("attach: %w", err)
	}
	return conn, state, nil
}

// stream opens a stream of the engine's.
func (a *app) stream(ctx context.Context, op string, in any) (*bus.Stream, error) {
	client, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", op, err)
	}
	return client.Stream(ctx, bus.StreamRequest{Op: op, Body: body}, nil)
}
