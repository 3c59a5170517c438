package engine

import (
	"context"
	"os"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// onlookerBuffer bounds the events that a client has not taken yet. The one that
// is too slow is told nothing more, and reads the log.
const onlookerBuffer = 64

// onlooker is told of events as they become durable.
type onlooker struct {
	names  map[string]bool // of a container's events; a job's end is always told
	events chan []byte     // their JSON; closed when one did not fit, by whoever has Engine.mu
	over   bool            // closed; guarded by Engine.mu
}

// Carry is a command on a stream of its own (query.OpCommand).
type Carry struct {
	Paths Paths
	Actor bus.Actor
	Body  []byte // query.CommandIn
	// Open answers with the receipt. The context that it gives ends with the client.
	Open func(bus.Receipt) (context.Context, error)
	// Say sends one line, and passes the file if it is not nil. The file stays the caller's.
	Say func(query.Said, *os.File) error
}

// Carry takes a command and tells what becomes of it, as far as the client wants
// to know.
func (e *Engine) Carry(ctx context.Context, c Carry) error {
	in, err := read[query.CommandIn](c.Body)
	if err != nil {
		return err
	}
	r, err := e.newRequest(c.Actor, bus.Command{Job: in.Job, Name: in.Name, Body: in.Body, Client: in.Client, Reason: in.Reason})
	if err != nil {
		return err
	}
	to := startedBy(r.command)
	w := e.watch(in, core.ContainerID(to.Ref))
	defer e.unwatch(w)
	receipt, err := e.accepted(ctx, r)
	if err != nil {
		return err
	}
	if ctx, err = c.Open(receipt); err != nil {
		return err
	}
	if in.Attach {
		if err := e.handOver(ctx, c, to); err != nil {
			return err
		}
	}
	if e.toldBefore(w, in) {
		return nil
	}
	return told(ctx, w, in, c.Say)
}

// toldBefore reports whether all that the client waits for has happened before it
// began to watch: its command was a repeated one, whose job has ended.
func (e *Engine) toldBefore(w *onlooker, in query.CommandIn) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	j := e.durable.Jobs[core.JobID(in.Job)]
	return len(in.Events) == 0 && len(w.events) == 0 && (j == nil || !j.Open())
}

// accepted queues a request and waits for its receipt.
func (e *Engine) accepted(ctx context.Context, r request) (bus.Receipt, error) {
	type answer struct {
		receipt bus.Receipt
		err     error
	}
	done := make(chan answer, 1)
	r.reply = func(receipt bus.Receipt, err error) { done <- answer{receipt, err} }
	if err := e.queue.putCommand(r); err != nil {
		return bus.Receipt{}, err
	}
	select {
	case a := <-done:
		return a.receipt, a.err
	case <-ctx.Done():
		return bus.Receipt{}, ctx.Err()
	}
}

// startedBy is what a command starts, if it starts something.
func startedBy(c core.Command) query.AttachIn {
	if x, ok := c.(*core.ExecContainer); ok {
		return query.AttachIn{Ref: string(x.ID), Exec: x.Exec}
	}
	if id := containerOf(c); id != nil {
		return query.AttachIn{Ref: string(*id)}
	}
	if create, ok := c.(*core.CreateContainer); ok {
		return query.AttachIn{Ref: string(create.ID)}
	}
	return query.AttachIn{}
}

// handOver passes the client the connection to what its command has started, or
// says why there is none.
func (e *Engine) handOver(ctx context.Context, c Carry, to query.AttachIn) error {
	out, file, err := e.attach(ctx, c.Paths, to)
	if err != nil {
		return c.Say(query.Said{Refused: &query.Refusal{Class: errclass.Name(err), Message: err.Error(), Hint: errclass.Hint(err)}}, nil)
	}
	defer file.Close()
	return c.Say(query.Said{Attached: &out}, file)
}

// told passes events on until there is nothing more to tell.
func told(ctx context.Context, w *onlooker, in query.CommandIn, say func(query.Said, *os.File) error) error {
	for in.Wait || len(in.Events) > 0 {
		select {
		case line, ok := <-w.events:
			if !ok {
				return nil
			}
			if err := say(query.Said{Event: line}, nil); err != nil {
				return err
			}
			if len(in.Events) == 0 {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// watch is told from now on of the job's end and the container's events, as in wants them.
func (e *Engine) watch(in query.CommandIn, id core.ContainerID) *onlooker {
	w := &onlooker{events: make(chan []byte, onlookerBuffer), names: make(map[string]bool, len(in.Events))}
	for _, name := range in.Events {
		w.names[name] = true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if in.Wait {
		n := core.Noun{Kind: core.KindJob, ID: in.Job}
		e.onlookers[n] = append(e.onlookers[n], w)
	}
	if len(in.Events) > 0 && id != "" {
		n := core.Noun{Kind: core.KindContainer, ID: string(id)}
		e.onlookers[n] = append(e.onlookers[n], w)
	}
	return w
}

func (e *Engine) unwatch(w *onlooker) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for n, all := range e.onlookers {
		for i, one := range all {
			if one == w {
				all = append(all[:i:i], all[i+1:]...)
				break
			}
		}
		if e.onlookers[n] = all; len(all) == 0 {
			delete(e.onlookers, n)
		}
	}
}

// tell tells the onlookers of an event that is durable, in the log's own bytes. Whoever
// calls it has e.mu.
func (e *Engine) tell(event core.Event, line []byte) {
	_, end := event.(*core.JobEnded)
	for _, w := range e.onlookers[event.Head().Of()] {
		if w.over || !end && !w.names[event.Head().Name] {
			continue
		}
		select {
		case w.events <- line:
		default:
			w.over = true
			close(w.events)
		}
	}
}

// containerOf is the container that a command is for, where clients may say its
// name or the beginning of its id.
func containerOf(c core.Command) *core.ContainerID {
	switch c := c.(type) {
	case *core.StartContainer:
		return &c.ID
	case *core.StopContainer:
		return &c.ID
	case *core.RestartContainer:
		return &c.ID
	case *core.KillContainer:
		return &c.ID
	case *core.PauseContainer:
		return &c.ID
	case *core.UnpauseContainer:
		return &c.ID
	case *core.UpdateContainer:
		return &c.ID
	case *core.RenameContainer:
		return &c.ID
	case *core.RemoveContainer:
		return &c.ID
	case *core.ExecContainer:
		return &c.ID
	}
	return nil
}

// fullID is the length of an id that is no part of one.
const fullID = 64

// settleName puts the id of a container in the place of what its command calls it.
// A full id is left to the decision: its container may not be durable yet; and so
// is a command that is sent again: it gets its first receipt.
func (e *Engine) settleName(c core.Command, job core.JobID) error {
	id := containerOf(c)
	if id == nil || len(*id) == fullID {
		return nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.durable.Jobs[job] != nil {
		return nil
	}
	found, err := findContainer(e.durable, string(*id))
	if err == nil {
		*id = found.ID
	}
	return err
}
