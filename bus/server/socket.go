package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/peercred"
)

const (
	// maxConns bounds the connections of one door.
	maxConns = 1024
	// maxInfo bounds the server's first line, in bytes.
	maxInfo = 32 << 10
	// spliceBuffer is one direction's buffer, in bytes.
	spliceBuffer = 32 << 10
)

// door is a listening socket.
type door struct {
	listener net.Listener
	path     string                                // of a unix socket, to be removed
	lead     func(context.Context, net.Conn) error // what is done with who comes in
	log      *slog.Logger
	end      context.CancelFunc // of lead's context

	wg    sync.WaitGroup
	mu    sync.Mutex // guards conns and shut
	conns map[net.Conn]bool
	shut  bool
}

// splicer leads connections into the server.
type splicer struct {
	inner    func() (net.Conn, error)
	registry *registry
	log      *slog.Logger
}

// listenUnix makes the socket at path, with the mode and, if gid is not
// negative, the group. A socket that is left over is replaced: the engine's
// lock on its directory says that nobody listens there.
func listenUnix(path string, mode os.FileMode, gid int) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("take away the old socket: %w", err)
	}
	// It comes into being under a name nobody knows to look for, and gets its own
	// when its mode is set.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + ".new", Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := openUp(path, mode, gid); err != nil {
		_ = l.Close() // the first error is the one that matters
		return nil, err
	}
	return l, nil
}

func openUp(path string, mode os.FileMode, gid int) error {
	if gid >= 0 {
		if err := os.Chown(path+".new", -1, gid); err != nil {
			return err
		}
	}
	if err := os.Chmod(path+".new", mode); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (d *door) serve(ctx context.Context) {
	defer d.wg.Done()
	for {
		c, err := d.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: they come back
			d.log.Warn("accept", "socket", d.listener.Addr().String(), "error", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if !d.keep(c) {
			_ = c.Close() // refused: nothing was said yet
			continue
		}
		go func() {
			defer d.forget(c)
			if err := d.lead(ctx, c); err != nil {
				d.log.Debug("connection", "socket", d.listener.Addr().String(), "error", err)
			}
		}()
	}
}

func (d *door) keep(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut || len(d.conns) >= maxConns {
		return false
	}
	d.conns[c] = true
	d.wg.Add(1)
	return true
}

func (d *door) forget(c net.Conn) {
	_ = c.Close() // both directions are over
	d.mu.Lock()
	delete(d.conns, c)
	d.mu.Unlock()
	d.wg.Done()
}

// close shuts the door: nobody comes in, and who is inside leaves.
func (d *door) close() {
	_ = d.listener.Close() // it was open: there is nothing to be learned from it
	d.end()
	d.mu.Lock()
	d.shut = true
	for c := range d.conns {
		_ = c.Close() // ends its splice
	}
	d.mu.Unlock()
	if d.path != "" {
		_ = os.Remove(d.path) // what is left over is replaced at the next start
	}
	d.wg.Wait()
}

// splice leads c into the server and copies until one side ends.
func (s *splicer) splice(c net.Conn, role bus.Role, a account) error {
	p := peer{role: role, account: a}
	if u, ok := c.(*net.UnixConn); ok {
		cred, err := peercred.Of(u)
		if err != nil {
			return err
		}
		p.actor = bus.Actor{UID: cred.UID, GID: cred.GID, PID: cred.PID, Start: cred.Start}
	}
	in, id, first, err := s.enter(p)
	if err != nil {
		return err
	}
	defer s.registry.remove(id)
	defer in.Close()
	if _, err := c.Write(first); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		pump(in, c)
		_ = in.Close() // the client has ended: so does the server's side
	}()
	pump(c, in)
	_ = c.Close() // the server has ended: wakes the other direction
	<-done
	return nil
}

// pump copies with a buffer of its own: io.Copy would let a socket allocate for
// splice(2), which cannot be with a pipe in memory.
func pump(dst io.Writer, src io.Reader) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, spliceBuffer)) // an end is an end
}

// enter opens a connection into the server, reads the server's first line, by
// which it is known from now on, and gives back that line for the client.
func (s *splicer) enter(p peer) (net.Conn, uint64, []byte, error) {
	in, err := s.inner()
	if err != nil {
		return nil, 0, nil, err
	}
	r := bufio.NewReaderSize(in, maxInfo)
	line, err := r.ReadSlice('\n')
	if err == nil && r.Buffered() > 0 {
		err = fmt.Errorf("the server says more than INFO before CONNECT")
	}
	var info struct {
		ID uint64 `json:"client_id"`
	}
	if err == nil {
		err = json.Unmarshal(bytes.TrimPrefix(line, []byte("INFO ")), &info)
	}
	if err == nil && info.ID == 0 {
		err = fmt.Errorf("the server gives the connection no number")
	}
	if err != nil {
		_ = in.Close() // the first error is the one that matters
		return nil, 0, nil, fmt.Errorf("begin with the server: %w", err)
	}
	s.registry.add(info.ID, p)
	return in, info.ID, line, nil
}

// inside is a connection from within the process: its first line has been read.
type inside struct {
	net.Conn
	first  io.Reader
	forget func()
	once   sync.Once
}

func (i *inside) Read(b []byte) (int, error) {
	if n, err := i.first.Read(b); err == nil {
		return n, nil
	}
	return i.Conn.Read(b)
}

// Close ends the connection and forgets who it was.
func (i *inside) Close() error {
	i.once.Do(i.forget)
	return i.Conn.Close()
}

// dial opens a connection from within the process.
func (s *splicer) dial(p peer) (net.Conn, error) {
	in, id, first, err := s.enter(p)
	if err != nil {
		return nil, err
	}
	return &inside{Conn: in, first: bytes.NewReader(first), forget: func() { s.registry.remove(id) }}, nil
}
