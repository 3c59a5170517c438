// Package wire is a small client of the NATS protocol, for one connection
// that is already there (a unix socket, a pipe into the embedded server).
//
// The CLI links it in place of nats.go, whose package initialisation alone costs
// more than all of a short command's own work. It knows what the bus needs: INFO, CONNECT,
// PUB, HPUB, SUB, UNSUB, MSG, HMSG, PING, PONG, -ERR. It has no reconnection:
// who loses the connection dials again.
//
// Protocol: docs.nats.io, "Client Protocol"; headers as in ADR-4 of NATS.
package wire

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
)

// maxLine bounds a line of the protocol: INFO is the longest.
const maxLine = 64 << 10

// Info is what the server says of itself and of this connection.
type Info struct {
	ServerName string `json:"server_name"`
	ClientID   uint64 `json:"client_id"`
	MaxPayload int    `json:"max_payload"`
	Headers    bool   `json:"headers"`
}

// Msg is one message. Its bytes belong to the receiver.
type Msg struct {
	Subject string // where it was published
	Reply   string // where an answer goes, or empty
	Status  int    // 503: nobody is subscribed; 0 for a plain message
	Header  Header
	Data    []byte
}

// Conn is one connection. Its methods may be called from several goroutines.
type Conn struct {
	nc     net.Conn
	info   Info
	prefix string // of this connection's inboxes, with the dot at its end

	wmu sync.Mutex // guards w
	w   *bufio.Writer

	mu      sync.Mutex // guards what follows
	nextSID uint64
	subs    map[uint64]*Sub
	waiting map[string]*pending // by reply subject
	pongs   []chan struct{}
	err     error // why the connection is over

	done chan struct{} // closed when it is over
}

// pending is a request that has no answer yet.
type pending struct {
	subject string
	answer  chan *Msg // capacity 1
	refused chan error
}

// Sub is a subscription.
type Sub struct {
	conn *Conn
	sid  uint64
	f    func(*Msg)
}

// New begins the protocol on nc: it reads INFO and sends CONNECT with name. The
// inboxes of the connection are _INBOX.<client id>.<secret>.>, to which
// it is subscribed. What the server thinks of that shows with the first answer.
func New(ctx context.Context, nc net.Conn, name string) (*Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := nc.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	r := bufio.NewReaderSize(nc, maxLine)
	info, err := readInfo(r)
	if err != nil {
		return nil, errclass.Errorf(errdefs.ErrUnavailable, "begin with the bus: %w", err)
	}
	c := &Conn{
		nc: nc, info: info, w: bufio.NewWriterSize(nc, 32<<10),
		prefix:  InboxPrefix(strconv.FormatUint(info.ClientID, 10)) + rand.Text() + ".",
		subs:    map[uint64]*Sub{},
		waiting: map[string]*pending{},
		done:    make(chan struct{}),
	}
	if err := c.connect(name); err != nil {
		return nil, errclass.Errorf(errdefs.ErrUnavailable, "begin with the bus: %w", err)
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	go c.read(r)
	return c, nil
}

// InboxPrefix is what the inboxes of a connection begin with.
func InboxPrefix(conn string) string { return "_INBOX." + conn + "." }

func readInfo(r *bufio.Reader) (Info, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return Info{}, fmt.Errorf("read INFO: %w", err)
	}
	op, arg := splitOp(line)
	if op != "INFO" {
		return Info{}, fmt.Errorf("got %q where INFO should be", op)
	}
	var info Info
	if err := json.Unmarshal(arg, &info); err != nil {
		return Info{}, fmt.Errorf("read INFO: %w", err)
	}
	if !info.Headers {
		return Info{}, fmt.Errorf("the server knows no headers")
	}
	return info, nil
}

// connect sends CONNECT and the subscription to the inboxes. It does not wait:
// the two go out with the first request.
func (c *Conn) connect(name string) error {
	options, err := json.Marshal(map[string]any{
		"name": name, "lang": "gantry", "version": "1", "protocol": 1,
		"headers": true, "no_responders": true, "verbose": false, "pedantic": false, "echo": false,
	})
	if err != nil {
		return err
	}
	c.nextSID = 1
	_, err = fmt.Fprintf(c.w, "CONNECT %s\r\nSUB %s* 1\r\n", options, c.prefix)
	return err
}

// Info is what the server said at the beginning.
func (c *Conn) Info() Info { return c.info }

// Done is closed when the connection is over; Err says why.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection is over, or nil.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.finish(errclass.Errorf(errdefs.ErrUnavailable, "the connection to the bus is closed"))
	return nil
}

func (c *Conn) finish(why error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = why
	c.mu.Unlock()
	_ = c.nc.Close() // nothing of ours is lost: what was written is the peer's
	close(c.done)
}

// Publish sends a message. The header may be nil, reply empty.
func (c *Conn) Publish(subject, reply string, h Header, data []byte) error {
	if err := c.Buffer(subject, reply, h, data); err != nil {
		return err
	}
	return c.Send()
}

// Buffer is Publish without sending yet: the next Send, Publish, Request or Flush
// does it, or a full buffer.
func (c *Conn) Buffer(subject, reply string, h Header, data []byte) error {
	if err := checkSubject(subject); err != nil {
		return err
	}
	if reply != "" {
		if err := checkSubject(reply); err != nil {
			return err
		}
		reply += " "
	}
	head, err := h.encode()
	if err != nil {
		return err
	}
	if size := len(head) + len(data); size > c.info.MaxPayload {
		return errclass.Errorf(errdefs.ErrResourceExhausted, "a message of %d bytes: the bus carries %d", size, c.info.MaxPayload)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	line := c.w.AvailableBuffer()
	if len(head) > 0 {
		line = append(append(append(line, "HPUB "...), subject...), ' ')
		line = strconv.AppendInt(append(line, reply...), int64(len(head)), 10)
		line = append(line, ' ')
	} else {
		line = append(append(append(line, "PUB "...), subject...), ' ')
		line = append(line, reply...)
	}
	line = strconv.AppendInt(line, int64(len(head)+len(data)), 10)
	c.w.Write(append(line, "\r\n"...))
	c.w.Write(head)
	c.w.Write(data)
	if _, err := c.w.WriteString("\r\n"); err != nil { // bufio remembers the first error
		return c.lost(err)
	}
	return nil
}

// Send sends what Buffer has left.
func (c *Conn) Send() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.w.Flush(); err != nil {
		return c.lost(err)
	}
	return nil
}

// lost is the error of a write: the reason why the connection ended, if known.
func (c *Conn) lost(err error) error {
	if why := c.Err(); why != nil {
		return why
	}
	return errclass.Errorf(errdefs.ErrUnavailable, "write to the bus: %w", err)
}

func (c *Conn) send(format string, args ...any) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	fmt.Fprintf(c.w, format, args...)
	if err := c.w.Flush(); err != nil {
		return c.lost(err)
	}
	return nil
}

// Subscribe calls f with each message on the subject, in order, on the
// connection's one reading goroutine: f must not block.
func (c *Conn) Subscribe(subject string, f func(*Msg)) (*Sub, error) {
	if err := checkSubject(subject); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.nextSID++
	s := &Sub{conn: c, sid: c.nextSID, f: f}
	c.subs[s.sid] = s
	c.mu.Unlock()
	if err := c.send("SUB %s %d\r\n", subject, s.sid); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends the subscription. A message that is being delivered still comes.
func (s *Sub) Close() error {
	s.conn.mu.Lock()
	delete(s.conn.subs, s.sid)
	s.conn.mu.Unlock()
	return s.conn.send("UNSUB %d\r\n", s.sid)
}

// NewInbox is a reply subject that nobody else can guess, for answers of which
// there may be several: subscribe with OnInbox.
func (c *Conn) NewInbox() string { return c.prefix + rand.Text() }

// Request sends a message and waits for one answer. A refusal of the server for
// want of rights is PermissionDenied; a subject that nobody serves is Unavailable.
func (c *Conn) Request(ctx context.Context, subject string, h Header, data []byte) (*Msg, error) {
	reply := c.NewInbox()
	p := &pending{subject: subject, answer: make(chan *Msg, 1), refused: make(chan error, 1)}
	c.mu.Lock()
	c.waiting[reply] = p
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, reply)
		c.mu.Unlock()
	}()
	if err := c.Publish(subject, reply, h, data); err != nil {
		return nil, err
	}
	select {
	case m := <-p.answer:
		if m.Status == 503 {
			return nil, errclass.Errorf(errdefs.ErrUnavailable, "nobody serves %s", subject)
		}
		return m, nil
	case err := <-p.refused:
		return nil, err
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Flush returns when the server has read all that was sent before.
func (c *Conn) Flush(ctx context.Context) error {
	pong := make(chan struct{})
	c.wmu.Lock()
	// The order of pongs is that of pings, so both are queued under one lock.
	c.mu.Lock()
	c.pongs = append(c.pongs, pong)
	c.mu.Unlock()
	c.w.WriteString("PING\r\n")
	err := c.w.Flush()
	c.wmu.Unlock()
	if err != nil {
		return c.lost(err)
	}
	select {
	case <-pong:
		return nil
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
