package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/ask"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
	"github.com/google/uuid"
)

// linkMode is S_IFLNK, and typeMode the bits of a file's type (stat(2)).
const (
	linkMode = 0o120000
	typeMode = 0o170000
)

// preparePoll is how often one looks whether a root filesystem is there.
const preparePoll = 2 * time.Millisecond

// Copy is one copy between a container's files and a client.
type Copy struct {
	Paths Paths
	Actor bus.Actor // who asks: a container that was never started gets its root filesystem in its name
	Body  []byte    // query.CopyIn
	Out   bool      // from the container to the client; else the other way round
	// Open answers the client: with what is copied, and the descriptor on which the
	// bytes go (nil if there are none).
	Open func(query.Copying, *os.File) error
	// End tells the client how it ended, after Open has passed a descriptor.
	End func(query.CopyEnd) error
}

// Copy copies files. The bytes go between driver and client, past the engine.
func (e *Engine) Copy(ctx context.Context, k Copy) error {
	in, err := read[query.CopyIn](k.Body)
	if err != nil {
		return err
	}
	if !path.IsAbs(in.Path) {
		in.Path = "/" + in.Path
	}
	question, t, err := e.copyOf(ctx, k, in)
	if err != nil {
		return err
	}
	stat, err := e.statPath(ctx, t, &question, in)
	if err != nil && (k.Out || !errdefs.IsNotFound(err)) {
		return err
	}
	out := query.Copying{Container: question.Container, Stat: stat}
	if k.Out && in.StatOnly {
		return k.Open(out, nil)
	}
	return e.carry(ctx, t, question, k, out)
}

// statPath tells what is at the path. With Follow a last link stands for what it
// leads to, but for its name: the question is then about that.
func (e *Engine) statPath(ctx context.Context, t target, q *ask.Copy, in query.CopyIn) (*query.PathStat, error) {
	if in.WholeRoot {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var stat query.PathStat
	if err := e.asks.ask(ctx, t, ask.ExecStatPath, *q, &stat); err != nil {
		return nil, err
	}
	if !in.Follow || stat.Mode&typeMode != linkMode || stat.Link == "" {
		return &stat, nil
	}
	led := *q
	led.Path = stat.Link
	var behind query.PathStat
	if err := e.asks.ask(ctx, t, ask.ExecStatPath, led, &behind); err != nil {
		return nil, err
	}
	q.Path, behind.Name = led.Path, stat.Name
	return &behind, nil
}

// copyOf is the question to the driver. A container without a root filesystem
// gets one first.
func (e *Engine) copyOf(ctx context.Context, k Copy, in query.CopyIn) (ask.Copy, target, error) {
	c, t, err := e.lookFor(in.Ref, execTarget)
	if err == nil && !c.up && !c.rootfs {
		if err = e.prepare(ctx, k.Actor, c); err == nil {
			c, t, err = e.lookFor(string(c.id), execTarget)
		}
	}
	if err != nil {
		return ask.Copy{}, t, err
	}
	q := ask.Copy{
		Container: c.id, Path: in.Path, WholeRoot: in.WholeRoot, KeepIDs: in.KeepIDs, Overwrite: in.Overwrite,
	}
	if c.up {
		q.Run = c.run
		return q, t, nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	full := e.durable.Containers[c.id]
	if full == nil || full.Rootfs.State != core.Held {
		return q, t, errclass.Errorf(errdefs.ErrFailedPrecondition, "container %s has no root filesystem now", c.name)
	}
	q.Rootfs = full.Rootfs.Mounts
	if full.IDMap != nil {
		q.IDMap = *full.IDMap
	}
	for _, m := range full.Spec.Mounts {
		if m.Type == "bind" { // a tmpfs is there only while the container runs
			q.Mounts = append(q.Mounts, m)
		}
	}
	return q, t, nil
}

// carry has the driver copy, and gives the client its descriptor.
func (e *Engine) carry(ctx context.Context, t target, q ask.Copy, k Copy, out query.Copying) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var name [8]byte
	_, _ = rand.Read(name[:]) // never fails (crypto/rand)
	q.Socket = hex.EncodeToString(name[:])
	verb := ask.ExecCopyIn
	if k.Out {
		verb = ask.ExecCopyOut
	}
	ended := make(chan error, 1)
	go func() { ended <- e.asks.ask(ctx, t, verb, q, nil) }()
	file, err := dialUntil(ctx, k.Paths.Copy(q.Socket), ended)
	if err != nil {
		return err
	}
	err = k.Open(out, file)
	// The client has its own: ours would keep the driver from seeing its end.
	err = firstError(err, file.Close())
	if err != nil {
		return err
	}
	var end query.CopyEnd
	if err := <-ended; err != nil {
		end.Error = &query.CopyError{Class: errclass.Name(err), Message: err.Error()}
	}
	return k.End(end)
}

// dialUntil connects to a socket that a driver is about to make, unless what it
// is made for ends before.
func dialUntil(ctx context.Context, socket string, ended <-chan error) (*os.File, error) {
	for wait := attachPoll; ; wait = min(2*wait, attachSlow) {
		if f, err := dialFile(ctx, socket); err == nil {
			return f, nil
		}
		select {
		case err := <-ended:
			if err == nil {
				err = errclass.Errorf(errdefs.ErrInternal, "the driver has ended the copy before it began")
			}
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// prepare wants the root filesystem of a container that does not run, and waits
// for it.
func (e *Engine) prepare(ctx context.Context, actor bus.Actor, c running) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make a job id: %w", err)
	}
	job := id.String()
	body, err := json.Marshal(core.PrepareContainer{ID: c.id})
	if err != nil {
		return fmt.Errorf("prepare container %s: %w", c.name, err)
	}
	answered := make(chan error, 1)
	e.Command(actor, bus.Command{Job: job, Name: core.CommandName(&core.PrepareContainer{}), Body: body, Client: "engine", Reason: "copy"},
		func(_ bus.Receipt, err error) { answered <- err })
	select {
	case err = <-answered:
	case <-ctx.Done():
		err = ctx.Err()
	}
	for err == nil {
		j := e.job(core.JobID(job))
		switch {
		case j == nil || j.State == core.JobDone:
			return nil
		case !j.Open() && j.Fault != nil:
			return errclass.Errorf(errclass.ByName(j.Fault.Class), "%s", j.Fault.Message)
		case !j.Open():
			return errclass.Errorf(errdefs.ErrAborted, "container %s was wanted otherwise before its root filesystem was there", c.name)
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(preparePoll):
		}
	}
	return err
}
