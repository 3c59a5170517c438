package bridge

import (
	"strings"
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
	host  *netlink.Handle
	alias string        // of ports given back
	after time.Duration // sweepAfter, but for tests

	mu      sync.Mutex // guards what follows
	waiting bool       // a sweep is to come
	stopped bool       // none is to come any more
}

func newSweeper(host *netlink.Handle, engineID string) *sweeper {
	return &sweeper{host: host, alias: detachedAlias(engineID), after: sweepAfter}
}

// soon asks for a sweep after a while; further calls until then are the same.
func (s *sweeper) soon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting || s.stopped {
		return
	}
	s.waiting = true
	time.AfterFunc(s.after, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiting = false
		if !s.stopped {
			s.now()
		}
	})
}

// stop waits for a running sweep and ends them all.
func (s *sweeper) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
}

// now, with mu held, deletes the ports that bear the mark. One that cannot be deleted is left
// for the next time: nothing behind it is heard on the network.
func (s *sweeper) now() {
	all, err := links(s.host)
	if err != nil {
		return
	}
	for _, l := range all {
		if strings.HasPrefix(l.Attrs().Name, portPrefix) && l.Attrs().Alias == s.alias {
			_ = s.host.LinkDel(l)
		}
	}
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
