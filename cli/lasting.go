package cli

import (
	"context"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
)

// goneAgain is how soon the loss of an engine is not told again: all who wait in
// one command lose it at once.
const goneAgain = 5 * time.Second

// lasting does something with the engine's bus until it is done. When the engine
// goes meanwhile, it is done again with the next one: jobs and containers live on.
func (a *app) lasting(ctx context.Context, do func(*bus.Client) error) error {
	client, err := a.dial(ctx)
	for {
		if err == nil {
			err = do(client)
		}
		if err == nil || ctx.Err() != nil || !errdefs.IsUnavailable(err) {
			return err
		}
		if client, err = a.comeBack(ctx, client, err); err != nil {
			return err
		}
	}
}

// comeBack dials until an engine answers again. lost is the client that is of no
// use any more, or nil.
func (a *app) comeBack(ctx context.Context, lost *bus.Client, why error) (*bus.Client, error) {
	a.tellGone(why)
	end := time.Now().Add(engineWithin)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		client, err := a.redial(ctx, lost)
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return client, err
		}
	}
}

// tellGone says that the engine is gone, once for one loss.
func (a *app) tellGone(why error) {
	a.mu.Lock()
	told := time.Since(a.lostAt) < goneAgain
	a.lostAt = time.Now()
	a.mu.Unlock()
	if !told {
		a.complain("the engine is gone: "+why.Error(), "waiting for it; containers live on")
	}
}

// redial lets a lost connection go and connects anew, unless somebody else has.
func (a *app) redial(ctx context.Context, lost *bus.Client) (*bus.Client, error) {
	a.mu.Lock()
	if a.client != nil && a.client == lost {
		_ = a.client.Close() // it is lost already
		a.client = nil
	}
	a.mu.Unlock()
	return a.dial(ctx)
}
