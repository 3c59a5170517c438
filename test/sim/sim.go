package sim

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/eventlog"
)

// Options say which story is told.
type Options struct {
	Seed     uint64
	Commands int                              // how many commands the clients send at least
	Trace    func(format string, args ...any) // told of everything; nil for nobody
}

// sim is one story.
type sim struct {
	o     Options
	r     *rand.Rand
	cover *Coverage

	now    time.Duration // since the beginning, by the clock that never jumps
	jump   time.Duration // of the wall clock; changes only while no engine runs
	agenda agenda
	flying int                      // messages on their way
	fifo   map[string]time.Duration // when the last message of an ordered way arrives
	calm   bool                     // nothing goes wrong any more

	disk    *disk
	keys    *keys
	machine *machine
	host    *host // nil while it is down
	clients *clients
	limits  engine.Limits

	e       *engine.Engine // nil while it is down
	log     *eventlog.Journal
	turnAt  time.Duration // when the engine looks at what is queued; negative: not set
	boot    int
	lives   int // of the engine
	hosts   int // instances of drivers so far
	plan    crashPlan
	created int         // containers
	folded  *core.State // the log's fold as far as it was looked at

	flights map[string]core.StepID      // by slot: handed out by this engine and not ended
	done    map[core.StepID]bool        // successes that the engine took
	records map[uint64]eventlog.Hash    // of each record that was told as durable, by its first sequence
	told    uint64                      // the last sequence that was told as durable
	spoilt  map[string]bool             // what somebody took from the machine and is not there again
	taken   map[string]bool             // what somebody ever took from it
	missed  map[string]bool             // networks that are spoilt, as their driver has told the engine
	strays  []string                    // what somebody put there
	secrets map[core.ContainerID]string // what clients gave
	ended   map[string]uint64           // by container: its last end; by "engine": its last start. One planned run may follow
	planned map[string]uint64           // by container: the event that planned its last run

	execSecrets map[core.ExecID]string
}

// violation is something that must never happen.
type violation struct{ what string }

// crashed ends the engine's process at a point.
type crashed struct {
	point string
	power bool
}

func (s *sim) fail(format string, args ...any) {
	panic(violation{fmt.Sprintf(format, args...)})
}

func (s *sim) trace(format string, args ...any) {
	if s.o.Trace != nil {
		s.o.Trace("%12v  "+format, append([]any{s.now}, args...)...)
	}
}

// Run tells the story of a seed and adds to cover what occurred. The error says
// what must never happen and did.
func Run(o Options, cover *Coverage) (err error) {
	s := newSim(o)
	defer func() {
		switch v := recover().(type) {
		case nil:
		case violation:
			err = fmt.Errorf("at %v, in the engine's life %d: %s", s.now, s.lives, v.what)
		default:
			err = fmt.Errorf("at %v, in the engine's life %d: panic: %v\n%s", s.now, s.lives, v, debug.Stack())
		}
		if err == nil {
			cover.add(s.cover)
		}
	}()
	s.reopen()
	s.story()
	s.ending()
	return nil
}

func newSim(o Options) *sim {
	s := &sim{
		o: o, r: rand.New(rand.NewPCG(o.Seed, 1)), cover: NewCoverage(), turnAt: -1, boot: 1, folded: core.NewState(),
		fifo: make(map[string]time.Duration), flights: make(map[string]core.StepID),
		done: make(map[core.StepID]bool), records: make(map[uint64]eventlog.Hash),
		spoilt: make(map[string]bool), taken: make(map[string]bool), missed: make(map[string]bool), secrets: make(map[core.ContainerID]string), ended: make(map[string]uint64), planned: make(map[string]uint64), execSecrets: make(map[core.ExecID]string),
	}
	s.disk = newDisk(s)
	s.keys = &keys{s: s, kept: make(map[core.ContainerID][]byte)}
	s.machine = newMachine(s)
	s.clients = newClients(s)
	if s.r.IntN(2) == 0 {
		s.limits = engine.Limits{Batch: 1 + s.r.IntN(8), PerDriver: 1 + s.r.IntN(3)}
	}
	return s
}

// chance is true in percent of all cases, never when all is calm.
func (s *sim) chance(percent float64) bool {
	return s.r.Float64()*100 < percent && !s.calm
}

func (s *sim) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.r.Int64N(int64(most-least)+1))
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// epochOfTime is where the simulated clocks begin.
func epochOfTime() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func (s *sim) clock() time.Time { return epochOfTime().Add(s.now + s.jump) }

// after does f later.
func (s *sim) after(d time.Duration, f func()) { s.agenda.add(s.now+d, f) }

// never is later than any story.
const never = time.Duration(1<<63 - 1)

// engineAt is when the engine has something to do of its own accord.
func (s *sim) engineAt() time.Duration {
	if s.e == nil {
		return never
	}
	if s.e.Queued() > 0 {
		if s.turnAt < 0 {
			s.turnAt = s.now + s.between(0, time.Millisecond)
		}
		return s.turnAt
	}
	s.turnAt = -1
	wake := s.e.Wake().Sub(epochOfTime().Add(s.jump))
	return max(wake, s.now)
}

// step does the next thing there is to do, and says when it was.
func (s *sim) step() {
	at, engineAt := s.agenda.next(), s.engineAt()
	if at == never && engineAt == never {
		s.fail("nothing will ever happen any more")
	}
	if engineAt < at {
		s.now, s.turnAt = engineAt, -1
		s.inEngine(s.e.Turn)
		return
	}
	s.now = at
	s.agenda.pop()()
}

// until takes steps until the time has come.
func (s *sim) until(at time.Duration) {
	for min(s.agenda.next(), s.engineAt()) <= at {
		s.step()
	}
	s.now = at
}

// inEngine calls into the engine's process, which may end by that.
func (s *sim) inEngine(f func() error) {
	crash, err := s.guard(f)
	switch {
	case crash != nil:
		s.trace("CRASH before %s, power lost: %v", crash.point, crash.power)
		s.down(crash.power)
	case err != nil:
		if !s.disk.excuse() {
			s.fail("the engine ends by itself: %v", err)
		}
		s.trace("the engine ends: %v", err)
		s.down(s.r.IntN(2) == 0)
	}
}

// guard calls f and catches the crash that is planned.
func (s *sim) guard(f func() error) (crash *crashed, err error) {
	defer func() {
		if v := recover(); v != nil {
			c, ok := v.(crashed)
			if !ok {
				panic(v)
			}
			crash = &c
		}
	}()
	return nil, f()
}
