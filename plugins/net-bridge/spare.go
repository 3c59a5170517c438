package bridge

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// spare is a pair of links, one end in a namespace, the other on the machine,
// switched off and on no bridge: what is the same for every endpoint and takes
// most of the time to make. It lives as long as its descriptors do: whoever
// has them and dies leaves nothing.
type spare struct {
	ns     int   // the namespace
	inside *rtnl // a socket in it
	port   int   // index of the machine's end
	inner  int   // index of the other end
}

// makeSpare makes a pair whose peer is called so in the namespace behind ns.
// It owns ns, also when it fails.
func makeSpare(host *rtnl, engineID string, ns int, peer string) (*spare, error) {
	inside, err := openRTNLIn(ns)
	if err != nil {
		_ = unix.Close(ns)
		return nil, err
	}
	s := &spare{ns: ns, inside: inside}
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails
	name := pairPrefix + hex.EncodeToString(random[:])
	port, err := host.run(makePair{Name: name, Peer: peer, NS: ns},
		setLink{Name: name, Alias: spareAlias(engineID)}, plainLink{Name: name}, askLink{Name: name})
	if err != nil {
		s.close()
		return nil, fmt.Errorf("make a pair of links: %w", err)
	}
	s.port, s.inner = port.Index, port.Peer
	return s, nil
}

// close gives the descriptors back. The kernel takes the namespace and the pair
// away if nobody else has it.
func (s *spare) close() {
	_ = s.inside.close()
	_ = unix.Close(s.ns)
}

const (
	// poolSize is how many spares are kept. Each costs the kernel some 100 kB.
	poolSize = 4
	// quietFor is how long nothing is asked before a spare is made: making one
	// takes locks in the kernel that the start of a container needs.
	quietFor = 15 * time.Millisecond
	// dryFor is the same when none is left: the next attach would make it, and
	// its caller wait.
	dryFor = 2 * time.Millisecond
	// quietMost is how long that is waited for.
	quietMost = 200 * time.Millisecond
)

// errNoSpares says that no more spares are wanted.
var errNoSpares = errors.New("no spare is wanted")

// pool keeps spares, and makes them in the background once one was asked for.
// They belong to this process alone and are no endpoints: with its end, however
// that comes, they are gone.
type pool struct {
	make func() (*spare, error)
	size int

	making sync.Mutex // held while one is made; taken before mu

	mu     sync.Mutex // guards what follows
	ready  []*spare
	timer  *time.Timer // nil: nothing is to be made
	short  time.Time   // since when one is missing
	closed bool
}

// take returns a spare, or nil if there is none.
func (p *pool) take() *spare {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.ready)
	if p.timer == nil && !p.closed && p.size > 0 {
		p.short = time.Now()
		p.timer = time.AfterFunc(quietFor, p.fill)
	}
	if n == 0 {
		return nil
	}
	s := p.ready[n-1]
	p.ready = p.ready[:n-1]
	return s
}

// quiet is how long nothing is asked before the next one is made.
func (p *pool) quiet() time.Duration {
	if len(p.ready) == 0 {
		return dryFor
	}
	return quietFor
}

// busy puts off making spares: something was asked.
func (p *pool) busy() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil && time.Since(p.short) < quietMost && p.timer.Stop() {
		p.timer.Reset(p.quiet())
	}
}

// fill makes one spare and comes again while more are missing.
func (p *pool) fill() {
	p.making.Lock()
	defer p.making.Unlock()
	s, err := p.one()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.ready = append(p.ready, s)
	}
	if err != nil || p.closed || len(p.ready) >= p.size {
		p.timer = nil // after an error: until one is asked for again
		return
	}
	p.timer = time.AfterFunc(p.quiet(), p.fill)
}

func (p *pool) one() (*spare, error) {
	p.mu.Lock()
	wanted := p.timer != nil && !p.closed && len(p.ready) < p.size
	p.mu.Unlock()
	if !wanted {
		return nil, errNoSpares
	}
	return p.make()
}

// empty gives all spares back, and the one that is being made. More are made
// when one is asked for.
func (p *pool) empty() { p.shut(false) }

// stop gives all spares back for good.
func (p *pool) stop() { p.shut(true) }

func (p *pool) shut(forever bool) {
	p.mu.Lock()
	before := p.closed
	p.closed = true
	p.mu.Unlock()
	p.making.Lock() // the one being made is in ready now, and it was the last
	defer p.making.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	for _, s := range p.ready {
		s.close()
	}
	p.ready = nil
	p.closed = before || forever
}
