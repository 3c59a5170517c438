package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/eventlog"
)

// small makes segments roll, reserves be eaten and snapshots be taken within a
// short story.
func small() eventlog.Options {
	return eventlog.Options{SegmentSize: 96 << 10, Reserve: 24 << 10, Chunk: 16 << 10}
}

// reader gives the seed's random bytes.
type reader struct{ r *rand.Rand }

// Read fills p.
func (r reader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.r.Uint32())
	}
	return len(p), nil
}

// reopen starts the engine's process, again and again until it runs.
func (s *sim) reopen() {
	if s.e != nil {
		return
	}
	var log *eventlog.Journal
	var e *engine.Engine
	s.lives++
	life := s.lives
	crash, err := s.guard(func() error {
		var err error
		if log, err = eventlog.OpenFS(s.disk, small()); err != nil {
			return fmt.Errorf("open the log: %w", err)
		}
		s.log = log
		s.acknowledged(log)
		e, err = engine.Open(s.options(log, life))
		return err
	})
	switch {
	case crash != nil:
		s.trace("CRASH while it starts, before %s, power lost: %v", crash.point, crash.power)
		s.down(crash.power)
		return
	case err != nil:
		if !s.disk.excuse() {
			s.fail("the engine does not start: %v", err)
		}
		s.trace("the engine does not start: %v", err)
		s.disk.calm()
		s.down(false)
		return
	}
	s.e, s.turnAt = e, -1
	s.trace("engine started, life %d, epoch %d", life, e.Epoch())
	s.host = newHost(s)
	s.host.need(sortedKeys(e.Holders()))
}

func (s *sim) options(log eventlog.Log, life int) engine.Options {
	return engine.Options{
		Log: log, Hosts: hands{s, life}, Keys: s.keys, Version: "sim", BootID: fmt.Sprint("boot-", s.boot),
		Begin: engine.Begin{
			Name: "sim", Drivers: core.Choice{Graph: "overlay", Exec: "native", Image: "oci"},
			Pool: netip.MustParsePrefix("10.9.0.0/24"), PoolBits: 28,
		},
		Committed: s.committed,
		Ended:     func(core.Noun) { s.point("ended") },
		Needed: func(id, _ string) {
			if s.host != nil {
				s.host.need([]string{id})
			}
		},
		Now:    s.clock,
		Random: reader{s.r},
		Limits: s.limits,
	}
}

// committed notes what is told as durable.
func (s *sim) committed(records []eventlog.Record) {
	s.point("committed")
	for _, r := range records {
		s.note(r)
	}
}

func (s *sim) note(r eventlog.Record) {
	if was, ok := s.records[r.First]; ok && was != r.Hash {
		s.fail("record %d was told as durable, and is another one now", r.First)
	}
	s.records[r.First] = r.Hash
	s.told = max(s.told, r.Last())
	if s.o.Trace != nil {
		_ = r.Lines(func(_ uint64, line []byte) error {
			s.trace("event %s", line)
			return nil
		})
	}
}

// acknowledged compares the log with all that was told to be in it.
func (s *sim) acknowledged(log eventlog.Log) {
	if head := log.Head().Seq; head < s.told || head < s.clients.last {
		s.fail("the log ends at %d; events to %d were told as durable, jobs to %d were acknowledged", head, s.told, s.clients.last)
	}
	found := 0
	err := log.Read(1, func(r eventlog.Record) error {
		if was, ok := s.records[r.First]; ok {
			found++
			if was != r.Hash {
				s.fail("record %d was told as durable, and is another one now", r.First)
			}
		}
		s.records[r.First] = r.Hash
		return nil
	})
	if err != nil {
		s.fail("read the log: %v", err)
	}
	s.told = log.Head().Seq
}

// down ends the engine's process, and the driver host in it; without power the
// machine as well. It starts again after a while.
func (s *sim) down(power bool) {
	if s.e != nil || s.log != nil {
		s.e, s.log = nil, nil
	}
	s.plan = crashPlan{}
	clear(s.flights)
	if s.host != nil {
		s.host.die()
		s.host = nil
	}
	if power {
		s.disk.use(s.disk.files.Crash())
		s.reboot()
	} else {
		s.disk.use(s.disk.files.Kill())
	}
	s.startLater()
}

func (s *sim) startLater() {
	if s.chance(12) {
		s.jump += pick(s.r, -time.Hour, -time.Second, time.Minute, 25*time.Hour)
	}
	if s.chance(15) {
		s.planCrash() // it may end before it has begun
	}
	most := 200 * time.Millisecond
	if s.chance(20) {
		most = 3 * time.Second
	}
	s.after(s.between(time.Millisecond, most), s.reopen)
}

// reboot is the end of all that lives in memory.
func (s *sim) reboot() {
	s.boot++
	s.machine.reboot()
	s.trace("the machine restarts: boot %d", s.boot)
}

// planCrash has the engine's process end soon.
func (s *sim) planCrash() {
	s.plan = crashPlan{in: 1 + s.r.IntN(40), power: s.r.IntN(2) == 0}
	if s.r.IntN(2) == 0 {
		s.plan.in, s.plan.at = 1, pick(s.r, CrashPoints()...)
	}
}

// retire ends the engine's process in order: it records that it stops, what that
// owes may run for 5 s, then nothing is handed out any more and drivers end.
func (s *sim) retire(restartMachine bool) {
	e := s.e
	if e == nil {
		return
	}
	life := s.lives
	s.inEngine(func() error {
		e.Refuse()
		return nil
	})
	for at := s.now + 5*time.Second; s.e == e && !e.Idle() && s.now < at; {
		s.step()
	}
	if s.e != e {
		return
	}
	e.Halt()
	if s.host != nil {
		for _, id := range driverNames() {
			s.host.drivers[id].kill(true)
		}
	}
	s.until(s.now + s.between(0, 100*time.Millisecond))
	if s.e == nil || s.lives != life {
		return
	}
	s.trace("the engine ends in order")
	if err := s.log.Close(); err != nil {
		s.fail("close the log: %v", err)
	}
	s.e, s.log = nil, nil
	s.plan = crashPlan{}
	clear(s.flights)
	if s.host != nil {
		s.host.die()
		s.host = nil
	}
	s.disk.use(s.disk.files.Kill())
	if restartMachine {
		s.reboot()
	}
	s.startLater()
}

// snapshot keeps a state beside the log.
func (s *sim) snapshot() {
	if s.log == nil {
		return
	}
	s.inEngine(func() error {
		if _, err := engine.Snapshot(s.log); err != nil {
			s.trace("no snapshot: %v", err)
			if !s.disk.excuse() {
				s.fail("keep a snapshot: %v", err)
			}
		}
		return nil
	})
}

// receipt checks an answer of the engine to what was sent in an epoch; 0 is none.
func (s *sim) receipt(epoch uint64, what string, r bus.Receipt, err error) {
	s.point("reply")
	if err != nil {
		return
	}
	if head := s.log.Head().Seq; r.Seq > head {
		s.fail("%s: event %d is acknowledged while the log on the disk ends at %d", what, r.Seq, head)
	}
	if epoch != 0 && s.e != nil && epoch < s.e.Epoch() && !r.Stale {
		s.fail("%s of epoch %d is taken in epoch %d", what, epoch, s.e.Epoch())
	}
}
