package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/gantryd/gantry/core"
)

// story has clients send their commands while all kinds of things go wrong.
func (s *sim) story() {
	s.opening()
	for s.clients.jobs < s.o.Commands {
		switch n := s.r.IntN(100); {
		case n < 80:
			s.clients.say(s.clients.command())
		case n < 86:
			s.clients.repeat()
		default:
			s.mischief()
		}
		gap := s.between(0, 20*time.Millisecond)
		switch {
		case s.chance(30):
			gap = 0 // several in one batch
		case s.chance(8):
			gap = s.between(20*time.Millisecond, 3*time.Second)
		case s.chance(1):
			gap = s.between(3*time.Second, time.Minute)
		}
		s.until(s.now + gap)
		for s.e == nil && s.r.IntN(4) > 0 { // most wait for the engine
			s.step()
		}
	}
}

// opening makes images and the first containers, before anything goes wrong.
func (s *sim) opening() {
	s.calm = true
	s.clients.say(&core.LoadImage{Archive: "/archives/abc"})
	s.until(s.now + 300*time.Millisecond)
	for n := range leastContainers {
		c := s.clients.create()
		c.Spec.Security = core.Security{UserNS: pick(s.r, "", "", "", "private")}
		c.Name, c.Image, c.Spec.Network.Network = containerName(n), reference("a"), pick(s.r, "", "none")
		s.clients.say(c)
	}
	s.until(s.now + s.between(2*time.Millisecond, 100*time.Millisecond))
	s.calm = false
}

// mischief is one thing that goes wrong.
func (s *sim) mischief() {
	switch n := s.r.IntN(100); {
	case n < 40:
		s.planCrash()
	case n < 52:
		s.disk.trouble = pick(s.r, DiskFaults()[:3]...)
	case n < 57:
		s.disk.full(int64(s.r.IntN(40 << 10)))
		s.after(s.between(10*time.Millisecond, 2*time.Second), func() { s.disk.calm() })
	case n < 70:
		if s.host != nil {
			s.host.drivers[pick(s.r, driverNames()...)].crash()
		}
	case n < 75:
		s.loseHost()
	case n < 83:
		s.snapshot()
	case n < 87:
		s.cover.see("world", "engine ends in order")
		s.retire(s.r.IntN(3) == 0)
	case n < 92:
		s.take()
	case n < 95:
		s.loseNetwork()
	default:
		s.put()
	}
}

// loseHost ends the driver host while the engine goes on, as if it were on another
// machine; another one starts in its place.
func (s *sim) loseHost() {
	if s.host == nil || s.e == nil {
		return
	}
	s.cover.see("world", "host lost")
	s.trace("the driver host dies")
	s.host.die()
	s.host = nil
	life := s.lives
	s.after(s.between(time.Millisecond, time.Second), func() {
		if s.lives == life && s.e != nil && s.host == nil {
			s.host = newHost(s)
			s.host.need(sortedKeys(s.e.Holders()))
		}
	})
}

// take has somebody take away what a driver holds: nothing that is in use, or being
// made.
func (s *sim) take() {
	var free []string
	for _, k := range sortedKeys(s.machine.held) {
		if kind, _, _ := strings.Cut(k, " "); !slices.Contains([]string{"process", "exec", "frozen", "watch", "log"}, kind) && !s.inUse(k) {
			free = append(free, k)
		}
	}
	if len(free) == 0 {
		return
	}
	s.cover.see("world", "something is taken")
	s.pull(pick(s.r, free...))
}

// pull takes something away.
func (s *sim) pull(k string) {
	s.trace("somebody takes %s", k)
	delete(s.machine.held, k)
	s.spoilt[k], s.taken[k] = true, true
}

// loseNetwork has a network vanish together with its driver's process, just before
// somebody wants a container on it.
func (s *sim) loseNetwork() {
	var free []string
	for _, k := range sortedKeys(s.machine.held) {
		if strings.HasPrefix(k, "network ") && !s.inUse(k) {
			free = append(free, k)
		}
	}
	if s.host == nil || len(free) == 0 {
		return
	}
	k := pick(s.r, free...)
	s.cover.see("world", "network is lost with its driver")
	s.host.drivers[s.machine.owner(k)].crash()
	s.pull(k)
	c := s.clients.create()
	c.Name, c.Image, c.Want = "on-"+string(c.ID), reference("a"), core.Running
	c.Spec.Network.Network = strings.TrimPrefix(k, "network ")
	s.clients.say(c)
}

// lostNetworks is what somebody has taken from a driver and a start waits for. It does not
// wait for a layer to be unpacked again: it says that it is not there.
func (s *sim) lostNetworks(driver string) []string {
	var all []string
	for _, k := range sortedKeys(s.spoilt) {
		if strings.HasPrefix(k, "network ") && s.machine.owner(k) == driver {
			all = append(all, k)
		}
	}
	return all
}

// misses notes that a driver has told that it lacks those keys that are still not there.
func (s *sim) misses(keys []string) {
	for _, k := range keys {
		if s.spoilt[k] {
			s.missed[k] = true
		}
	}
}

// inUse reports whether a process or a running step has to do with a key.
func (s *sim) inUse(k string) bool {
	for _, slot := range sortedKeys(s.machine.busy) {
		st := s.machine.busy[slot].st
		for _, with := range [][]string{makes(st), needs(st), releases(st)} {
			for _, other := range with {
				if other == k {
					return true
				}
			}
		}
	}
	for _, p := range s.machine.procs {
		if strings.Contains(k, string(p.container)) {
			return true
		}
	}
	return false
}

// put has somebody put something on the machine that the log does not know.
func (s *sim) put() {
	id := s.clients.name("d")
	var k string
	switch s.r.IntN(5) {
	case 0:
		k = layerKey(core.LayerID("sha256:" + id))
	case 1:
		k = imageKey(core.ImageID("sha256:" + id))
	case 2:
		k = endpointKey(core.NetworkID(id), core.ContainerID(id), 1)
	case 3:
		k = rootfsKey(core.ContainerID(id))
	default:
		k = processKey(core.ContainerID(id), 1)
		s.machine.procs[k] = &proc{key: k, container: core.ContainerID(id), run: 1}
	}
	s.cover.see("world", "something is put there")
	s.trace("somebody puts %s there", k)
	s.machine.held[k] = true
	s.strays = append(s.strays, k)
}
