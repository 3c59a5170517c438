package driver

import (
	"sync"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
)

// ProgressSender makes a Progress that hands what it is told to send, from a
// goroutine of its own, so that a slow peer never blocks the work: only the
// newest word waits, older ones are dropped. stop ends it and returns once
// send is called no more; the caller may then use the stream itself.
func ProgressSender(send func(*driverv1.Progress) error) (p Progress, stop func()) {
	s := &progressSender{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go s.run(send)
	return s.tell, sync.OnceFunc(s.stop)
}

// progressSender holds the newest word that was not sent yet.
type progressSender struct {
	wake chan struct{} // one token: there may be something to send
	done chan struct{} // closed when run has returned

	mu     sync.Mutex // guards the two below
	latest *driverv1.Progress
	ended  bool
}

func (s *progressSender) tell(done, total int64, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return // a driver's stray goroutine after its method has returned
	}
	s.latest = &driverv1.Progress{Done: done, Total: total, What: what}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *progressSender) stop() {
	s.mu.Lock()
	s.ended = true
	close(s.wake)
	s.mu.Unlock()
	<-s.done
}

func (s *progressSender) run(send func(*driverv1.Progress) error) {
	defer close(s.done)
	for range s.wake {
		s.mu.Lock()
		p := s.latest
		s.latest = nil
		s.mu.Unlock()
		if p != nil && send(p) != nil {
			return // the peer is gone; the method learns it from its context
		}
	}
}
