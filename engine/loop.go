package engine

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/errclass"
)

const (
	// eventSchema numbers the form of events in the log's records.
	eventSchema = 1
	// maxFrame bounds the events of one decision in bytes, below the log's own bound.
	maxFrame = eventlog.MaxRecord - 4096
	// maxBatchBytes bounds one write; what does not fit waits for the next.
	maxBatchBytes = 16 << 20
	// askForgetEvery is how often finished jobs are looked through.
	askForgetEvery = 5 * time.Minute
	// forgetSlack is how many finished jobs may be remembered beyond the bound
	// before they are looked through at once.
	forgetSlack = 500
)

// Run takes turns until ctx ends or the log cannot be written; then nothing may
// be acted on any more and the process must end.
func (e *Engine) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.queue.wake:
		case <-timer.C:
		}
		if err := e.Turn(); err != nil {
			return err
		}
		timer.Reset(max(0, e.Wake().Sub(e.o.Now())))
	}
}

// Refuse takes no further commands from clients; those that wait are refused. It
// records that the engine is about to end, and what follows from that is still
// handed out. Results and reports are taken as before.
func (e *Engine) Refuse() {
	for _, r := range e.queue.close() {
		r.reply(bus.Receipt{}, errclass.Errorf(errdefs.ErrUnavailable, "the engine is stopping"))
	}
	stop := request{command: &core.StopEngine{}, actor: core.Actor{Engine: true}, essential: true, reply: func(bus.Receipt, error) {}}
	if err := e.queue.putReport(stop); err != nil {
		e.log.Debug("stop", "error", err) // nothing is lost but the note
	}
}

// Halt hands out nothing any more and records no failure: drivers are being
// ended, and what is owed stays owed.
func (e *Engine) Halt() { e.stopping.Store(true) }

// Idle reports whether nothing is queued and no driver has anything to do.
func (e *Engine) Idle() bool {
	return e.queue.length() == 0 && !e.turning.Load() && e.dispatch.idle(e.o.Now())
}

// Busy reports how many steps drivers have in flight.
func (e *Engine) Busy() int { return e.dispatch.busy() }

// Queued reports how many requests wait for a turn.
func (e *Engine) Queued() int { return e.queue.length() }

// Wake is when Turn has something to do of its own, if nothing is sent before.
func (e *Engine) Wake() time.Time {
	wake := e.asked.Add(askForgetEvery)
	if at, some := e.queue.ready(); some && at.Before(wake) {
		wake = at
	}
	if at := e.dispatch.wake(); at.Before(wake) {
		wake = at
	}
	return wake
}

// Turn decides on one batch of what is queued, makes it durable and acts on it.
// An error means that the log takes nothing more.
func (e *Engine) Turn() error {
	e.turning.Store(true)
	defer e.turning.Store(false)
	now := e.o.Now()
	e.handOut(e.durable, e.take(), now)
	batch := append(e.due(now), e.queue.take(e.o.Limits.Batch, now)...)
	if len(batch) == 0 {
		return nil
	}
	return e.commit(batch)
}

// take gives the nouns that were touched and not asked yet what they owe.
func (e *Engine) take() []core.Noun {
	nouns := append(e.pending, e.dispatch.asked()...)
	e.pending = nil
	return nouns
}

// due is what the engine's own clocks ask for: waits that have ended, jobs to
// be forgotten.
func (e *Engine) due(now time.Time) []request {
	own := core.Actor{Engine: true}
	ignore := func(bus.Receipt, error) {}
	var batch []request
	for _, id := range e.dispatch.tick(now, e.send) {
		batch = append(batch, request{command: &core.FinishStep{Step: id}, actor: own, essential: true, reply: ignore})
	}
	if now.Sub(e.asked) >= askForgetEvery || len(e.head.Ended) > core.JobsKept+forgetSlack {
		e.asked = now
		batch = append(batch, request{command: &core.ForgetJobs{}, actor: own, essential: true, reply: ignore})
	}
	return batch
}

// tryAgain reports whether a failure is not recorded: the step is handed out again
// later, if it is still owed. One that was cancelled for taking too long says so.
func (e *Engine) tryAgain(r request, now time.Time) bool {
	f, ok := r.command.(*core.FinishStep)
	if !ok || f.Fault == nil {
		return false
	}
	if e.stopping.Load() || e.dispatch.overtaken(f.Step, r.try()) {
		return true
	}
	if limit, late := e.dispatch.isLate(f.Step, r.try()); late && f.Fault.Class != "deadline-exceeded" {
		f.Fault = &core.Fault{Class: "deadline-exceeded", Message: "it did not end within " + limit.String() + ": " + f.Fault.Message}
	}
	if !e.dispatch.retry(f.Step, r.try(), f.Fault, r.fence != nil, now) {
		return false
	}
	e.log.Info("step failed; it is tried again if it is still owed", "step", f.Step, "class", f.Fault.Class, "error", f.Fault.Message)
	return true
}

// verdict is what became of a request.
type verdict struct {
	request
	events  []core.Event
	frame   eventlog.Frame
	receipt bus.Receipt
	err     error
	again   bool // a failure that is not recorded: the step is tried again
}

// commit decides on the batch, records it and lets everybody know.
func (e *Engine) commit(batch []request) error {
	verdicts, touched := e.decideAll(batch, false)
	if plantedDispatchBeforeFsync {
		e.handOut(e.head, touched, e.o.Now())
	}
	records, err := e.record(verdicts)
	if errdefs.IsResourceExhausted(err) && !eventlog.IsFatal(err) {
		e.log.Warn("the log has no room", "error", err)
		e.head = e.durable.Clone()
		verdicts = e.decideAgain(verdicts)
		if records, err = e.record(verdicts); err != nil && !eventlog.IsFatal(err) {
			full := err
			e.head, records, err = e.durable.Clone(), nil, nil
			refuseAll(verdicts, full)
		}
	}
	if err != nil {
		refuseAll(verdicts, errclass.Errorf(errdefs.ErrUnavailable, "the engine stops: %w", err))
		for _, v := range verdicts {
			v.reply(bus.Receipt{}, v.err)
		}
		return fmt.Errorf("record events: %w", err)
	}
	e.settle(verdicts, records)
	return nil
}

// decideAgain decides anew on the requests of a batch for which the log had no
// room.
func (e *Engine) decideAgain(verdicts []verdict) []verdict {
	var settled []verdict
	var batch []request
	for _, v := range verdicts {
		if v.again {
			settled = append(settled, v)
		} else {
			batch = append(batch, v.request)
		}
	}
	verdicts, _ = e.decideAll(batch, true)
	return append(settled, verdicts...)
}

// refuseAll: nothing of the batch is durable. That also goes for what nothing
// follows from: a repeat of a command or of a result, whose receipt would vouch for
// what another request of the batch has lost.
func refuseAll(verdicts []verdict, err error) {
	for i := range verdicts {
		if v := &verdicts[i]; v.err == nil && !v.again {
			v.events, v.receipt, v.err = nil, bus.Receipt{}, err
		}
	}
}

// decideAll decides on each request in turn, on head, and applies what follows
// to it. With essentialOnly, the log has no room: what would need some and is not
// essential is refused.
func (e *Engine) decideAll(batch []request, essentialOnly bool) ([]verdict, []core.Noun) {
	verdicts := make([]verdict, 0, len(batch))
	var touched []core.Noun
	for _, r := range batch {
		if _, ok := r.command.(*core.ReportExit); ok && plantedLoseExit {
			r.reply(bus.Receipt{Seq: e.head.Seq}, nil)
			continue
		}
		v := verdict{request: r}
		s := e.head
		if plantedStaleFold && r.job != "" {
			s = e.durable.Clone()
			s.Seq = e.head.Seq
		}
		e.decide(&v, s, essentialOnly)
		for _, event := range v.events {
			touched = append(touched, e.head.Apply(event)...)
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, touched
}

// decide finds out what follows from v's request.
func (e *Engine) decide(v *verdict, s *core.State, essentialOnly bool) {
	if v.err = e.checkFence(v.request, s); v.err != nil {
		return
	}
	if v.again = e.tryAgain(v.request, e.o.Now()); v.again {
		v.receipt.Seq = s.Seq
		return
	}
	if f, ok := v.command.(*core.FinishStep); ok && v.own != 0 {
		f.Untaken = e.dispatch.untaken(f.Step) // now: somebody may have come for it since
	}
	known := s.Jobs[v.job]
	if known == nil && !inUse(v.command, s) {
		if err := e.vault.seal(v.command, s); err != nil {
			v.err = errclass.Errorf(errdefs.ErrUnavailable, "seal values: %w", err)
			return
		}
	}
	e.follow(v, s)
	if f, ok := v.command.(*core.FinishStep); ok && v.err != nil && f.Fault == nil {
		// What it has brought cannot be recorded: it would be asked for for ever.
		f.Result, f.Fault = core.Result{}, &core.Fault{Class: errclass.Name(v.err), Message: v.err.Error()}
		e.follow(v, s)
	}
	if v.err == nil && len(v.events) > 0 && essentialOnly && !v.essential {
		v.err = errclass.Errorf(errdefs.ErrResourceExhausted, "the disk of the event log is full: make room, then send it again")
	}
	if v.err != nil {
		v.events = nil
		if err := e.vault.unseal(v.command, s); err != nil {
			e.log.Warn("destroy the key of a refused container", "error", err)
		}
	}
	v.receipt = receiptOf(v, s, known)
}

// follow asks the core what follows from v's request, and makes a frame of it.
func (e *Engine) follow(v *verdict, s *core.State) {
	now := e.o.Now().Round(0).UTC()
	v.events, v.err = core.Decide(s, core.Request{
		Command: v.command, Job: v.job, Digest: v.digest, Actor: v.actor, Client: v.client, Reason: v.reason, Time: now,
	})
	if v.err == nil && len(v.events) > 0 {
		v.frame, v.err = frameOf(v.events, now, v.essential)
	}
}

// inUse reports whether the command wants to make a container whose id is taken.
func inUse(c core.Command, s *core.State) bool {
	create, ok := c.(*core.CreateContainer)
	return ok && s.Containers[create.ID] != nil
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// receiptOf is the answer to a request that was not refused.
func receiptOf(v *verdict, s *core.State, known *core.Job) bus.Receipt {
	r := bus.Receipt{Job: string(v.job), Seq: s.Seq}
	switch {
	case len(v.events) > 0:
		r.Seq = v.events[0].Head().Seq
	case known != nil:
		r.Seq = known.Seq
	default:
		r.Stale = v.job == ""
	}
	return r
}

// frameOf is the decision as the log takes it.
func frameOf(events []core.Event, now time.Time, essential bool) (eventlog.Frame, error) {
	f := eventlog.Frame{
		First: events[0].Head().Seq, Count: uint32(len(events)), Time: now, Schema: eventSchema, Essential: essential,
	}
	lines, size := make([][]byte, len(events)), 0
	for i, event := range events {
		line, err := core.EncodeEvent(event)
		if err != nil {
			return f, errclass.Errorf(errdefs.ErrInvalidArgument, "encode event %s: %w", event.Head().Name, err)
		}
		if len(line) > bus.MaxEvent {
			return f, errclass.Errorf(errdefs.ErrInvalidArgument, "event %s is %d bytes long: at most %d can be told", event.Head().Name, len(line), bus.MaxEvent)
		}
		lines[i], size = line, size+len(line)+1
	}
	if size > maxFrame {
		return f, errclass.Errorf(errdefs.ErrInvalidArgument, "what follows from this is %d bytes long: the log takes at most %d at once", size, maxFrame)
	}
	f.Payload = make([]byte, 0, size)
	for _, line := range lines {
		f.Payload = append(append(f.Payload, line...), '\n')
	}
	return f, nil
}

// record makes the frames of verdicts durable: one write, one fdatasync, unless
// there is more than is written at once.
func (e *Engine) record(verdicts []verdict) ([]eventlog.Record, error) {
	var frames []eventlog.Frame
	for _, v := range verdicts {
		if len(v.events) > 0 {
			frames = append(frames, v.frame)
		}
	}
	if len(frames) == 0 {
		return nil, nil
	}
	return e.o.Log.Append(frames)
}

// settle acts on what is durable now: the fold that others see, replies, records
// for the stream, steps.
func (e *Engine) settle(verdicts []verdict, records []eventlog.Record) {
	now := e.o.Now()
	gone, enabled := e.fold(verdicts)
	for _, v := range verdicts {
		if f, ok := v.command.(*core.FinishStep); ok && v.err == nil && !v.again {
			e.dispatch.ended(f.Step, v.try(), f.Fault, now)
			e.pending = append(e.pending, f.Step.Noun())
		}
	}
	replyTo(verdicts, func(v *verdict) bool { return v.job == "" }) // a step's end before the next one of its slot
	if !e.opening.Load() {
		e.handOut(e.durable, e.take(), now)
	}
	replyTo(verdicts, func(v *verdict) bool { return v.job != "" }) // drivers are what a client waits for
	if e.o.Committed != nil && len(records) > 0 {
		e.o.Committed(records)
	}
	e.need(enabled)
	for _, n := range gone {
		// A container that was made in the same batch may have the id again.
		if id := core.ContainerID(n.ID); n.Kind == core.KindContainer && e.durable.Containers[id] == nil {
			if err := e.vault.destroy(id); err != nil {
				e.log.Error("destroy the key of a removed container", "container", id, "error", err)
			}
		}
		if e.o.Ended != nil {
			e.o.Ended(n)
		}
	}
}

// replyTo answers those requests that are meant.
func replyTo(verdicts []verdict, meant func(*verdict) bool) {
	for i := range verdicts {
		if v := &verdicts[i]; meant(v) {
			v.reply(v.receipt, v.err)
		}
	}
}

// need tells of the drivers among ids that hold something.
func (e *Engine) need(ids []string) {
	if e.o.Needed == nil || len(ids) == 0 {
		return
	}
	for id, path := range e.Holders() {
		if slices.Contains(ids, id) {
			e.o.Needed(id, path)
		}
	}
}

// fold applies the events to durable, and gives the nouns and jobs that ended, and
// the drivers that may be used again.
func (e *Engine) fold(verdicts []verdict) (gone []core.Noun, enabled []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, v := range verdicts {
		lines := v.frame.Payload
		for _, event := range v.events {
			line, rest, _ := bytes.Cut(lines, []byte{'\n'})
			lines = rest
			e.pending = append(e.pending, e.durable.Apply(event)...)
			e.tell(event, line)
			switch event.(type) {
			case *core.ContainerRemoved, *core.JobEnded:
				gone = append(gone, event.Head().Of())
			case *core.DriverEnabled:
				enabled = append(enabled, event.Head().ID)
			}
		}
	}
	return gone, enabled
}

func (r request) try() int {
	if r.fence == nil {
		return r.own
	}
	return r.fence.try
}
