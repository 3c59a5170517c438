package driverhost

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/errclass"
)

// watchdog looks after one step that an instance runs. At its deadline, or when
// the engine takes it back, the driver is told to end it; the step has ended
// when the driver answers, or when nothing is left of the instance. A driver
// that does not answer in time is ended as a whole: nothing else proves that
// the step is at rest.
type watchdog struct {
	length time.Duration // silence that is allowed for steps that tell progress; the whole duration of the others
	long   bool
	calmed chan struct{} // progress was told
	over   chan struct{} // the call has returned
	ended  chan struct{} // guard has

	mu    sync.Mutex
	cause error // why the step was cut; guarded by mu
}

// The reasons for which a step is cut.
var (
	errDeadline = errors.New("deadline")
	errHung     = errors.New("hung")
)

// again is how often a cancellation is repeated: it may come before its call.
const again = 100 * time.Millisecond

func newWatchdog(s bus.Step) *watchdog {
	w := &watchdog{
		length: time.Duration(s.Deadline), long: s.Verb == "layer.apply" || s.Verb == "image.load-archive",
		calmed: make(chan struct{}, 1), over: make(chan struct{}), ended: make(chan struct{}),
	}
	if w.length <= 0 {
		w.length = 2 * time.Minute
	}
	return w
}

// guard watches until stop. cut makes the call return.
func (w *watchdog) guard(ctx context.Context, d *hosted, p *process, call string, cut func()) {
	defer close(w.ended)
	timer := time.NewTimer(w.length)
	defer timer.Stop()
	asked, repeat := ctx.Done(), (<-chan time.Time)(nil)
	var late bool
	for {
		select {
		case <-w.over:
			return
		case <-p.launch.gone:
			cut()
			return
		case <-w.calmed:
			if !late {
				timer.Reset(w.length)
			}
			continue
		case <-timer.C:
			if late || d.host.ctx.Err() != nil {
				w.hung(d, p, call)
				continue
			}
			late = true
			w.note(errDeadline)
			timer.Reset(d.host.patience.grace)
		case <-asked:
			asked = nil
		case <-repeat:
		}
		ask, done := context.WithTimeout(d.host.ctx, time.Second)
		if err := p.remote.Cancel(ask, call); errdefs.IsNotImplemented(err) {
			d.log.Debug("the driver cannot cancel", "step", call)
		}
		done()
		repeat = time.After(again)
	}
}

// hung ends an instance that does not end a step.
func (w *watchdog) hung(d *hosted, p *process, call string) {
	w.note(errHung)
	d.log.Warn("a driver does not end a step: all of its processes are ended", "step", call, "pid", p.pid)
	_ = p.launch.Kill(d.host.ctx)
}

func (w *watchdog) note(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cause = cause
}

// calm notes progress.
func (w *watchdog) calm() {
	if w.long {
		select {
		case w.calmed <- struct{}{}:
		default: // one is noted already
		}
	}
}

// explain ends the watch and says why the step was cut. When the instance has
// died it returns only after the last of its processes.
func (w *watchdog) explain(ctx context.Context, p *process, err error) error {
	close(w.over)
	<-w.ended
	if err == nil {
		return nil
	}
	died := p.diedOver(ctx, err)
	if died {
		<-p.launch.gone
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case errors.Is(w.cause, errHung):
		return errclass.Errorf(errdefs.ErrAborted, "no end within %v, nor when the driver was told to end it: the driver was ended", w.length)
	case died:
		return errclass.Errorf(errdefs.ErrUnavailable, "the driver died while it ran the step (%s)", p.launch.how())
	case errors.Is(w.cause, errDeadline):
		return errclass.Errorf(errdefs.ErrAborted, "no end within %v", w.length)
	}
	return err
}
