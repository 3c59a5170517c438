package sim

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/engine"
)

// wire carries a message, or loses it, or carries it twice. Messages with the
// same way arrive in the order in which they were sent; "" is no way.
func (s *sim) wire(kind, way string, arrive func()) {
	if s.chance(4) {
		s.cover.see("wire", kind+" lost")
		return
	}
	copies := 1
	if s.chance(4) {
		s.cover.see("wire", kind+" doubled")
		copies = 2
	}
	var at time.Duration
	for n := range copies {
		if n == 0 || kind != "report" { // see the package's comment on reports
			at = s.now + s.between(20*time.Microsecond, time.Millisecond)
		}
		if (n == 0 || kind != "report") && s.chance(5) {
			s.cover.see("wire", kind+" delayed")
			at += s.between(time.Millisecond, 3*time.Second)
		}
		if way != "" {
			at = max(at, s.fifo[way])
			s.fifo[way] = at
		}
		s.flying++
		s.agenda.add(at, func() {
			s.flying--
			arrive()
		})
	}
}

// toEngine has f called with the engine, if there is one then.
func (s *sim) toEngine(kind, way string, f func(*engine.Engine)) {
	s.wire(kind, way, func() {
		if e := s.e; e != nil {
			s.inEngine(func() error {
				f(e)
				return nil
			})
		}
	})
}

// onTheWay says whether an answer may be another one the next time.
func onTheWay(err error) bool {
	return errdefs.IsUnavailable(err) || errdefs.IsDeadlineExceeded(err) || errdefs.IsResourceExhausted(err)
}

// hands is how one life of the engine reaches driver hosts. It implements
// engine.Hosts.
type hands struct {
	s    *sim
	life int
}

// Send checks what must hold before a step goes out, and sends it.
func (h hands) Send(step bus.Step) error {
	s := h.s
	s.point("send")
	id := core.StepID(step.ID)
	if turn, head := id.Turn(), s.log.Head().Seq; turn > head {
		s.fail("step %s is sent while the log on the disk ends at %d: its cause is not durable", id, head)
	}
	if other, ok := s.flights[id.Slot()]; ok && other != id {
		s.fail("step %s is handed out while %s is in flight for the same slot", id, other)
	}
	s.flights[id.Slot()] = id
	s.trace("send %s try %d", id, step.Try)
	s.wire("step", "slot "+id.Slot(), func() {
		err := errNoHost()
		if s.host != nil {
			err = s.host.take(step)
		}
		h.acknowledge(id, step.Try, false, err)
	})
	return nil
}

// Cancel takes a step back.
func (h hands) Cancel(c bus.Cancel) error {
	s := h.s
	s.point("cancel")
	id := core.StepID(c.ID)
	s.trace("cancel %s", id)
	s.wire("cancel", "slot "+id.Slot(), func() {
		err := errNoHost()
		if s.host != nil {
			err = s.host.cancel(c)
		}
		if err == nil || errdefs.IsNotFound(err) {
			h.acknowledge(id, 0, true, err)
		}
	})
	return nil
}

func errNoHost() error { return fmt.Errorf("nobody serves the driver: %w", errdefs.ErrUnavailable) }

// acknowledge carries a host's answer back to the life of the engine that asked.
func (h hands) acknowledge(id core.StepID, try int, cancelled bool, err error) {
	s := h.s
	s.toEngine("acknowledgement", "", func(e *engine.Engine) {
		switch {
		case s.lives != h.life:
		case err != nil:
			s.trace("refused %s try %d, cancelled %v: %v", id, try, cancelled, err)
			if s.flights[id.Slot()] == id {
				delete(s.flights, id.Slot())
			}
			e.Refused(string(id), try, cancelled, err)
		case !cancelled:
			e.Heard(string(id))
		}
	})
}
