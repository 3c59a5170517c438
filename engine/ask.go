package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/ask"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// Asker asks a driver what is no step; *bus.Client has it.
type Asker interface {
	Ask(ctx context.Context, a bus.Ask, out any) error
}

// answerWithin bounds a question whose answer is at hand; a copy takes as long as
// its bytes do.
const answerWithin = 10 * time.Second

// asker asks for one engine process.
type asker struct {
	to    Asker
	epoch atomic.Uint64 // of the engine; 0 before it has started
	last  atomic.Uint64 // makes ids
}

// ask asks the driver, "kind/name", that the target names.
func (a *asker) ask(ctx context.Context, t target, verb string, in, out any) error {
	if a.to == nil {
		return errclass.Errorf(errdefs.ErrUnavailable, "this engine has no drivers to ask")
	}
	epoch := a.epoch.Load()
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("ask %s: %w", verb, err)
	}
	return a.to.Ask(ctx, bus.Ask{
		Epoch: epoch, ID: fmt.Sprintf("ask/%d/%d", epoch, a.last.Add(1)), Kind: t.kind, Driver: t.name, Path: t.path,
		Verb: verb, Body: body,
	}, out)
}

// target is a driver that can be asked.
type target struct{ kind, name, path string }

// targetOf is the driver in the state's words.
func targetOf(s *core.State, kind, name string) target {
	t := target{kind: kind, name: name}
	if d := s.Drivers[kind+"/"+name]; d != nil {
		t.path = d.Path
	}
	return t
}

func execTarget(s *core.State) target  { return targetOf(s, "exec", s.Engine.Drivers.Exec) }
func graphTarget(s *core.State) target { return targetOf(s, "graphdriver", s.Engine.Drivers.Graph) }

// Top lists the processes of a running container.
func (e *Engine) Top(ctx context.Context, body []byte) (query.Top, error) {
	in, err := read[query.RefIn](body)
	if err != nil {
		return query.Top{}, err
	}
	c, t, err := e.lookFor(in.Ref, execTarget)
	if err != nil {
		return query.Top{}, err
	}
	if !c.up {
		return query.Top{}, notRunning(c)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	out := query.Top{Container: c.id}
	var tasks ask.Tasks
	err = e.asks.ask(ctx, t, ask.ExecProcesses, ask.Run{Container: c.id, Run: c.run}, &tasks)
	if out.Tasks = tasks.Tasks; out.Tasks == nil {
		out.Tasks = []query.Task{}
	}
	return out, err
}

// Diff lists what a container has changed in its root filesystem.
func (e *Engine) Diff(ctx context.Context, body []byte) (query.Changes, error) {
	in, err := read[query.RefIn](body)
	if err != nil {
		return query.Changes{}, err
	}
	c, t, err := e.lookFor(in.Ref, graphTarget)
	if err != nil {
		return query.Changes{}, err
	}
	out := query.Changes{Container: c.id, Changes: []query.Change{}}
	if !c.rootfs { // it has never been started, nor written to
		return out, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*answerWithin) // the driver walks through it
	defer cancel()
	var found ask.Changes
	if err := e.asks.ask(ctx, t, ask.RootfsChanges, ask.Rootfs{Container: c.id}, &found); err != nil {
		return out, err
	}
	if found.Changes != nil {
		out.Changes = found.Changes
	}
	return out, nil
}

// lookFor finds a container, and a driver to ask about it.
func (e *Engine) lookFor(ref string, of func(*core.State) target) (running, target, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	c, err := findContainer(e.durable, ref)
	if err != nil {
		return running{}, target{}, err
	}
	return runningOf(c), of(e.durable), nil
}
