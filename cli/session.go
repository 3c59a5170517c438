package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/stdio"
)

const (
	// factsWithin is how long a failed attachment waits for the event that says why.
	factsWithin = 2 * time.Second
	// recordWithin is how long one waits for the log to have the start, or the end,
	// that the output has told already: what is asked next should know it.
	recordWithin = 2 * time.Second
	// recordPause is the time between two questions for the start.
	recordPause = 5 * time.Millisecond
	// engineWithin is how long a lost engine may take to come back.
	engineWithin = time.Minute
	// patience is how many SIGINT or SIGTERM one sends until run leaves.
	patience = 3
)

// session is one command that stays with a container's run. One goroutine, that
// of attached and started, has all of it; others send to its channels.
type session struct {
	a  *app
	id core.ContainerID

	talk       conversation
	proxy      bool // hand signals on
	autoRemove bool
	job        core.JobID // that started it; empty if we only joined

	signals chan os.Signal
	kept    chan unix.Signal // that came too late to take the start back, and are not handed on
	handed  chan handed      // what came with the command; closed without if nothing did
	facts   chan fact
	output  chan outputEnd
	moves   chan struct{}
	stop    context.CancelFunc

	// What is known of the run.
	running  bool        // its program runs, or has run
	trailer  *stdio.Exit // the last frame of its output
	quiet    bool        // no output comes any more
	broken   error       // why, if not by the trailer
	exit     *core.Exit  // the event
	fault    *core.Fault // its start failed
	turned   string      // the event by which its start was taken back
	removed  bool
	lost     error // no events come any more
	asked    int   // how often one has asked to end
	deadline <-chan time.Time
	record   <-chan time.Time // when the end is waited for no longer
	recorded bool             // the log has the end, or need not be waited for
}

// fact is an event about the container, or that no more can be had.
type fact struct {
	event bus.Event
	err   error
}

// handed is the connection to the shim, or why there is none.
type handed struct {
	file *os.File
	err  error
}

// outputEnd is how the output ended: by the trailer, or by an error.
type outputEnd struct {
	exit *stdio.Exit
	err  error
}

// newSession wants all output, and waits for it.
func newSession(a *app, id core.ContainerID) *session {
	s := &session{
		a: a, id: id, talk: conversation{
			a: a, in: query.AttachIn{Ref: string(id)}, hello: stdio.Hello{Stdout: true, Stderr: true, Lossless: true},
		}, signals: make(chan os.Signal, 16), kept: make(chan unix.Signal, patience), handed: make(chan handed, 1), facts: make(chan fact, 16),
		output: make(chan outputEnd, 1), moves: make(chan struct{}, 4), stop: func() {},
	}
	return s
}

// takeSignals: from here on none ends the command by itself. Each signal that is
// asked for costs a few switches of threads: it is done when there is nothing to do
// but to wait for the engine.
func (s *session) takeSignals() { signal.Notify(s.signals, unix.SIGINT, unix.SIGTERM) }

// notifyHangUp asks for SIGHUP unless it is ignored: nohup is to be obeyed, and
// os/signal would take its handler's place.
func notifyHangUp(to chan<- os.Signal) {
	if !signal.Ignored(unix.SIGHUP) {
		signal.Notify(to, unix.SIGHUP)
	}
}

// end lets everything go. The container stays as it is.
func (s *session) end() { s.stop() }

// sessionEvents are those that a session learns from.
func sessionEvents() []string {
	return []string{
		"container.start-failed", "container.start-cancelled", "container.stop-wanted", "container.remove-wanted",
		"container.exited", "container.removed",
	}
}

// attached shows the output of the run that was asked for, until its end.
func (s *session) attached(ctx context.Context, accepted sent) error {
	if accepted.stream != nil {
		s.talk.handed = s.takeHanded
	}
	ctx = s.begin(ctx, accepted)
	s.takeSignals()
	signal.Notify(s.signals, unix.SIGQUIT)
	notifyHangUp(s.signals)
	if s.proxy {
		signal.Notify(s.signals, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT, unix.SIGTSTP)
	}
	go func() {
		exit, err := s.talk.converse(ctx, func() { s.moves <- struct{}{} })
		s.output <- outputEnd{exit, err}
	}()
	return s.stay(ctx, s.verdict)
}

// started waits until the program runs.
func (s *session) started(ctx context.Context, accepted sent) error {
	return s.stay(s.begin(ctx, accepted), func() (bool, error) {
		if s.running {
			return true, nil
		}
		return s.notStarted()
	})
}

func (s *session) begin(ctx context.Context, accepted sent) context.Context {
	ctx, s.stop = context.WithCancel(ctx)
	s.job = accepted.job
	go s.watch(ctx, accepted)
	return ctx
}

// startedBy is started for a command whose job ends when the program runs. What
// else there may be is found in the log.
func (s *session) startedBy(ctx context.Context, accepted sent) error {
	ctx, s.stop = context.WithCancel(ctx)
	s.job = accepted.job
	type answer struct {
		end *core.JobEnded
		err error
	}
	ended := make(chan answer, 1)
	go func() {
		end, err := s.a.jobEnd(ctx, accepted)
		ended <- answer{end, err}
	}()
	for {
		select {
		case sig := <-s.signals:
			if err := s.signal(ctx, sig.(unix.Signal)); err != nil {
				return err
			}
		case a := <-ended:
			if a.err == nil && a.end.Outcome == core.JobDone {
				return nil
			}
			s.stop()
			return s.started(context.WithoutCancel(ctx), sent{job: accepted.job, seq: accepted.seq})
		}
	}
}

// takeHanded waits for what came with the command.
func (s *session) takeHanded(ctx context.Context) (*os.File, error) {
	select {
	case h := <-s.handed:
		return h.file, h.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// listen takes in what the engine tells of the command, as long as it does, and
// says from which sequence on the rest is to be read.
func (s *session) listen(ctx context.Context, accepted sent) uint64 {
	defer accepted.drop()
	defer close(s.handed)
	from := accepted.seq
	for {
		said, err := accepted.next()
		switch {
		case err != nil:
			return from
		case said.Event != nil:
			e, err := bus.EventOf(said.Event)
			if err != nil {
				return from
			}
			from = e.Seq + 1
			s.tell(ctx, fact{event: e})
		default:
			file, err := attached(said, accepted.stream)
			s.handed <- handed{file, err}
		}
	}
}

// stay takes in what happens until verdict says that it is over.
func (s *session) stay(ctx context.Context, verdict func() (bool, error)) error {
	for {
		if over, err := verdict(); over {
			return err
		}
		select {
		case sig := <-s.signals:
			select {
			case <-s.moves: // it has come before the signal
				s.running = true
			default:
			}
			if err := s.signal(ctx, sig.(unix.Signal)); err != nil {
				return err
			}
		case sig := <-s.kept:
			return &statusError{code: 128 + int(sig)}
		case f := <-s.facts:
			if err := s.learn(f); err != nil {
				return err
			}
		case <-s.moves:
			s.running = true
		case end := <-s.output:
			if errors.As(end.err, new(outputError)) || errors.As(end.err, &detachedError{}) {
				return end.err
			}
			s.quiet, s.trailer, s.broken = true, end.exit, end.err
			if s.trailer == nil && s.deadline == nil && !s.running {
				s.deadline = time.After(factsWithin)
			}
			s.record = time.After(recordWithin)
		case <-s.record:
			s.recorded = true
		case <-s.deadline:
			// The program is held until somebody attaches: nobody will.
			_, _ = s.a.send(ctx, &core.CancelJob{Target: s.job}) // the first error is the one that matters
			return s.broken
		}
	}
}

// verdict says whether the run is over, and how the command ends then.
func (s *session) verdict() (bool, error) {
	if over, err := s.notStarted(); over {
		return true, err
	}
	code := 0
	switch {
	case s.trailer != nil && !s.trailer.Failed:
		code = s.trailer.Code
	case s.quiet && s.exit != nil:
		code = s.exit.Code
		if s.running && s.trailer == nil {
			s.a.complain("the connection to the container's output was lost", "what is missing is in: gantry logs "+string(s.id[:12]))
			s.trailer = &stdio.Exit{Code: code} // said once
		}
	default:
		return s.noEngine(s.quiet)
	}
	if s.autoRemove && !s.removed {
		return s.noEngine(true)
	}
	if !s.recorded && s.lost == nil {
		return false, nil
	}
	if code == 0 {
		return true, nil
	}
	return true, &statusError{code: code}
}

// notStarted says whether the start has come to nothing, and what then to say.
func (s *session) notStarted() (bool, error) {
	if s.running || s.fault == nil && s.turned == "" && !s.removed {
		return s.noEngine(s.lost != nil && !s.running)
	}
	if s.autoRemove && !s.removed {
		return s.noEngine(true)
	}
	switch {
	case s.fault != nil:
		return true, faultError(s.fault)
	case s.asked > 0:
		return true, &statusError{code: exitInterrupted}
	}
	return true, &statusError{code: exitEngine, text: "the container was taken back before its program ran: somebody else has stopped or removed it",
		hint: "gantry log --container " + string(s.id[:12]) + " tells who"}
}

// noEngine ends the command if something is still needed of an engine that is gone.
func (s *session) noEngine(needed bool) (bool, error) {
	if needed && s.lost != nil {
		return true, s.lost
	}
	return false, nil
}

// learn takes in an event.
func (s *session) learn(f fact) error {
	if f.err != nil {
		s.lost = f.err
		return nil
	}
	switch f.event.Name {
	case "container.started":
		s.running = true
	case "container.start-failed":
		var e core.StartFailed
		if err := decode(f.event, &e); err != nil {
			return err
		}
		s.fault = &e.Fault
	case "container.start-cancelled", "container.stop-wanted", "container.remove-wanted":
		if !s.running {
			s.turned = f.event.Name
		}
	case "container.exited":
		var e core.ProcessExited
		if err := decode(f.event, &e); err != nil {
			return err
		}
		s.exit, s.running, s.recorded = &e.Exit, true, true
	case "container.removed":
		s.removed = true
	}
	return nil
}

func decode(e bus.Event, into any) error {
	if err := json.Unmarshal(e.Line, into); err != nil {
		return fmt.Errorf("read event %d: %w", e.Seq, err)
	}
	return nil
}

// watch tells the events about the container from a sequence on. When the engine
// is lost it waits for the next one: the container lives on.
func (s *session) watch(ctx context.Context, accepted sent) {
	from := accepted.seq
	if accepted.stream != nil {
		stop := context.AfterFunc(ctx, func() { _ = accepted.stream.Conn.Close() }) // wakes whoever reads
		from = s.listen(ctx, accepted)
		if !stop() {
			return
		}
	}
	client, err := s.a.dial(ctx)
	for {
		if err == nil {
			from, err = s.watchOn(ctx, client, from)
		}
		if ctx.Err() != nil {
			return
		}
		if client, err = s.a.comeBack(ctx, client, err); err != nil {
			s.tell(ctx, fact{err: err})
			return
		}
	}
}

// watchOn is watch on one connection; it returns the sequence to go on with.
func (s *session) watchOn(ctx context.Context, client *bus.Client, from uint64) (uint64, error) {
	events, err := client.Events(ctx, max(from, 1), bus.Filter{Noun: core.KindContainer, ID: string(s.id)})
	if err != nil {
		return from, err
	}
	defer events.Close()
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return from, err
		}
		s.tell(ctx, fact{event: e})
		from = e.Seq + 1
	}
}

func (s *session) tell(ctx context.Context, f fact) {
	select {
	case s.facts <- f:
	case <-ctx.Done():
	}
}

// signal does what a signal to the command means: before the program runs it
// takes the start back, afterwards it is the program's.
func (s *session) signal(ctx context.Context, sig unix.Signal) error {
	toEnd := sig == unix.SIGINT || sig == unix.SIGTERM || sig == unix.SIGHUP || sig == unix.SIGQUIT
	if toEnd {
		if s.asked++; s.asked >= patience && sig != unix.SIGHUP && sig != unix.SIGQUIT {
			return &statusError{code: exitInterrupted, text: fmt.Sprintf("%d signals to end, and it has not ended: leaving it as it is", patience),
				hint: "gantry kill " + string(s.id[:12]) + " ends it"}
		}
	}
	if !s.running && toEnd {
		go s.takeBack(ctx, sig)
		return nil
	}
	if s.running && s.proxy && sig == unix.SIGHUP && s.talk.tty {
		// Our terminal is gone: there is nobody left to stay for, and the first
		// process of a container is not ended by a SIGHUP that it does not expect.
		s.forward(ctx, sig)
		return &statusError{code: 128 + int(sig)}
	}
	if s.running && s.proxy {
		go s.forward(ctx, sig)
	}
	if toEnd && s.running && !s.proxy {
		return &statusError{code: 128 + int(sig)}
	}
	return nil
}

// takeBack takes the start back. When it has come to its end by now, which we have
// not heard of, the signal is the program's, or ours alone.
func (s *session) takeBack(ctx context.Context, sig unix.Signal) {
	_, err := s.a.send(ctx, &core.CancelJob{Target: s.job})
	runs := errdefs.IsFailedPrecondition(err)
	if err == nil { // also if there was nothing to take back
		var d query.JobDetail
		err = s.a.query(ctx, query.JobInspect, query.RefIn{Ref: string(s.job)}, &d)
		runs = err == nil && d.Job.State == core.JobDone
	}
	switch {
	case runs && s.proxy:
		s.forward(ctx, sig)
	case runs:
		select {
		case s.kept <- sig:
		default: // one is enough
		}
	}
}

// forward gives a signal to the program. One that has ended needs none; that it runs
// its output may tell earlier than the log.
func (s *session) forward(ctx context.Context, sig unix.Signal) {
	_, err := s.a.send(ctx, &core.KillContainer{ID: s.id, Signal: int(sig)})
	for end := time.Now().Add(recordWithin); errdefs.IsFailedPrecondition(err) && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return
		case <-time.After(recordPause):
		}
		_, err = s.a.send(ctx, &core.KillContainer{ID: s.id, Signal: int(sig)})
	}
	if err != nil && ctx.Err() == nil && !errdefs.IsFailedPrecondition(err) && !errdefs.IsNotFound(err) {
		s.a.complain(fmt.Sprintf("hand on %s: %v", signalName(int(sig)), err), "")
	}
}
