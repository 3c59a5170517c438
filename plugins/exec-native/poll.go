package execnative

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// poller waits for many descriptors on behalf of those who have nothing else to
// do: a goroutine that waits for each of them would cost a stack of 8 kB.
type poller struct {
	epoll *os.File
	fd    int

	mu    sync.Mutex
	ready map[int32]func() // by descriptor; guarded by mu
}

// pollBatch is how many events are taken at once.
const pollBatch = 32

// newPoller begins to wait.
func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that the runtime waits for it, and no thread
		unix.Close(fd)
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	p := &poller{epoll: os.NewFile(uintptr(fd), "epoll"), fd: fd, ready: map[int32]func(){}}
	go p.loop()
	return p, nil
}

// loop starts what became ready, until the epoll is closed.
func (p *poller) loop() {
	conn, err := p.epoll.SyscallConn()
	if err != nil {
		return // closed
	}
	var events [pollBatch]unix.EpollEvent
	for {
		n := 0
		err := conn.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events[:], 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			p.mu.Lock()
			f := p.ready[e.Fd]
			delete(p.ready, e.Fd)
			p.mu.Unlock()
			if f != nil {
				go f()
			}
		}
	}
}

// once runs f in a goroutine of its own when something can be read from fd, or
// its other end is closed. Whoever closes fd before forgets it first.
func (p *poller) once(fd int, f func()) error { return p.when(fd, unix.POLLIN, f) }

// when is once for other events of poll(2).
func (p *poller) when(fd int, events int16, f func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := unix.EpollEvent{Events: uint32(events) | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)}
	err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &e)
	if err == unix.EEXIST {
		err = unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &e)
	}
	if err != nil {
		return fmt.Errorf("wait for descriptor %d: %w", fd, err)
	}
	p.ready[int32(fd)] = f
	return nil
}

// forget lets go of a descriptor that is about to be closed.
func (p *poller) forget(fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ready, int32(fd))
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) // it may be gone
}

// close ends the loop.
func (p *poller) close() { p.epoll.Close() }
