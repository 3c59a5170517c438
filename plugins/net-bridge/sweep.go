package bridge

import (
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

// sweepAfter is longer than the kernel takes to clean a namespace away (about
// 34 ms, more when many end at once): whatever is left then is held by a
// process that nobody waits for.
const sweepAfter = 500 * time.Millisecond

// sweeper deletes ports that were given back and are still there a while
// later. One goroutine at most.
type sweeper struct {
	host   *netlink.Handle
	links  *rtnl
	engine string        // its id
	after  time.Duration // sweepAfter, but for tests

	sweeping sync.Mutex // held while ports are deleted; taken before mu

	mu      sync.Mutex // guards what follows
	given   []litter   // since the last sweep
	waiting bool       // a sweep is to come
	stopped bool       // none is to come any more
}

// litter is a port that is to go as long as it bears this mark.
type litter struct {
	Name, Alias string
	Index       int // of that link alone, not of one made anew by its name; 0: of any
}

func newSweeper(host *netlink.Handle, links *rtnl, engineID string) *sweeper {
	return &sweeper{host: host, links: links, engine: engineID, after: sweepAfter}
}

// detached asks for a sweep of a port that was given back.
func (s *sweeper) detached(port string) {
	s.soon(litter{Name: port, Alias: detachedAlias(s.engine)})
}

// soon asks for a sweep after a while: of these ports, and of those of the
// calls until then.
func (s *sweeper) soon(ports ...litter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = append(s.given, ports...)
	if s.waiting || s.stopped {
		return
	}
	s.waiting = true
	time.AfterFunc(s.after, s.now)
}

// stop waits for a running sweep and ends them all.
func (s *sweeper) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.sweeping.Lock() // none runs any more
	defer s.sweeping.Unlock()
}

// now deletes those ports that are still there and bear the mark. One that
// cannot be deleted stays: nothing behind it is heard on the network. The next
// driver finds it.
func (s *sweeper) now() {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	s.mu.Lock()
	given, stopped := s.given, s.stopped
	s.given, s.waiting = nil, false
	s.mu.Unlock()
	if stopped {
		return
	}
	for _, g := range given {
		l, err := s.links.run(askLink{Name: g.Name})
		if err == nil && l.Alias == g.Alias && (g.Index == 0 || g.Index == l.Index) {
			_ = deleteLink(s.host, l.Name)
		}
	}
}

// found asks for a sweep of what a driver before this one gave back, and of what it
// had half made in a namespace that lives on: its other spares are gone by then.
func (s *sweeper) found() error {
	all, err := links(s.host)
	if err != nil {
		return err
	}
	var ports []litter
	for _, l := range all {
		if a := l.Attrs(); a.Alias == detachedAlias(s.engine) || a.Alias == spareAlias(s.engine) {
			ports = append(ports, litter{a.Name, a.Alias, a.Index})
		}
	}
	if len(ports) > 0 {
		s.soon(ports...)
	}
	return nil
}

// keyed is a lock for each key.
type keyed struct {
	mu   sync.Mutex // guards held
	held map[string]*keyLock
}

type keyLock struct {
	sync.Mutex
	users int // calls that have it or wait for it
}

// lock takes a key's lock and returns what gives it back.
func (k *keyed) lock(key string) func() {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*keyLock{}
	}
	l := k.held[key]
	if l == nil {
		l = &keyLock{}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, key)
		}
	}
}
