package stdio

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Conn is a client's end of an attach socket. One goroutine may read while
// others write.
type Conn struct {
	c   net.Conn
	r   *bufio.Reader
	buf []byte
	mu  sync.Mutex // frames are written whole: guards writes to c
}

// Dial attaches to the shim that listens at path and waits for its first
// State. A connection refused means that the shim is gone, or that the run is
// already closed: its exit record tells the rest.
func Dial(ctx context.Context, path string, h Hello) (*Conn, State, error) {
	c, err := DialSocket(ctx, path)
	if err != nil {
		return nil, State{}, err
	}
	conn, state, err := Attach(ctx, c, h)
	if err != nil {
		c.Close()
		return nil, State{}, fmt.Errorf("attach at %s: %w", path, err)
	}
	return conn, state, nil
}

// Attach says hello on a connection that somebody has made, and waits for the
// answer. On error the connection stays the caller's.
func Attach(ctx context.Context, c net.Conn, h Hello) (*Conn, State, error) {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := &Conn{c: c, r: bufio.NewReaderSize(c, MaxFrame+frameHeader), buf: make([]byte, MaxFrame)}
	if err := conn.write(h.Frame()); err != nil {
		return nil, State{}, err
	}
	f, err := conn.Next()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, State{}, err
	}
	if f.Type != FrameState {
		return nil, State{}, fmt.Errorf("answer to hello of type %d", f.Type)
	}
	s, err := ParseState(f.Payload)
	return conn, s, err
}

// Next reads the next frame, whose payload is valid until the next call.
// io.EOF: the shim is gone; without an Exit before it, by force.
func (c *Conn) Next() (Frame, error) { return ReadFrame(c.r, c.buf) }

func (c *Conn) write(f Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return WriteFrame(c.c, f)
}

// Write sends input to the program; it blocks while that does not read.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := WriteStdin(c.c, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseInput ends the program's input.
func (c *Conn) CloseInput() error { return c.write(Frame{Type: FrameStdinEOF}) }

// Resize tells the terminal's size.
func (c *Conn) Resize(s Size) error { return c.write(s.Frame()) }

// Detach leaves the program as it is, its input open.
func (c *Conn) Detach() error { return c.write(Frame{Type: FrameDetach}) }

// Close lets the connection go; with StdinOnce the program's input ends.
func (c *Conn) Close() error { return c.c.Close() }
