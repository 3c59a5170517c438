package wire

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
)

// read is the connection's one reader. It ends with the connection.
func (c *Conn) read(r *bufio.Reader) {
	for {
		if err := c.readOne(r); err != nil {
			c.finish(errclass.Errorf(errdefs.ErrUnavailable, "the connection to the bus is lost: %w", err))
			return
		}
	}
}

func (c *Conn) readOne(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	op, arg := splitOp(line)
	switch op {
	case "MSG", "HMSG":
		sid, m, err := c.readMsg(r, op == "HMSG", string(arg))
		if err != nil {
			return err
		}
		c.deliver(sid, m)
		return nil
	case "PING":
		return c.send("PONG\r\n")
	case "PONG":
		c.pong()
		return nil
	case "+OK", "INFO":
		return nil
	case "-ERR":
		return c.refused(strings.Trim(string(arg), "' "))
	}
	return fmt.Errorf("the server says %q", op)
}

// splitOp takes a line apart into its word and the rest.
func splitOp(line []byte) (string, []byte) {
	line = bytes.TrimRight(line, "\r\n")
	op, arg, _ := bytes.Cut(line, []byte(" "))
	return strings.ToUpper(string(op)), bytes.TrimSpace(arg)
}

// readMsg reads the body of a message whose line was
// "subject sid [reply] [header bytes] total bytes".
func (c *Conn) readMsg(r *bufio.Reader, hasHeader bool, arg string) (uint64, *Msg, error) {
	f, sizes := strings.Fields(arg), 1
	if hasHeader {
		sizes = 2
	}
	if len(f) != 2+sizes && len(f) != 3+sizes {
		return 0, nil, fmt.Errorf("message line %q cannot be", arg)
	}
	sid, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return 0, nil, fmt.Errorf("message line %q: %w", arg, err)
	}
	m := &Msg{Subject: f[0]}
	if len(f) == 3+sizes {
		m.Reply = f[2]
	}
	total, err := c.size(f[len(f)-1], c.info.MaxPayload)
	if err != nil {
		return 0, nil, err
	}
	head := 0
	if hasHeader {
		if head, err = c.size(f[len(f)-2], total); err != nil {
			return 0, nil, err
		}
	}
	b := make([]byte, total+2)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, nil, err
	}
	if string(b[total:]) != "\r\n" {
		return 0, nil, fmt.Errorf("message on %s does not end where it should", m.Subject)
	}
	if hasHeader {
		if m.Header, m.Status, err = decodeHeader(b[:head]); err != nil {
			return 0, nil, fmt.Errorf("message on %s: %w", m.Subject, err)
		}
	}
	m.Data = b[head:total:total]
	return sid, m, nil
}

func (c *Conn) size(s string, limit int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("message of %s bytes: the limit is %d", s, limit)
	}
	return n, nil
}

func (c *Conn) deliver(sid uint64, m *Msg) {
	c.mu.Lock()
	if sid == 1 { // an inbox
		p := c.waiting[m.Subject]
		delete(c.waiting, m.Subject)
		c.mu.Unlock()
		if p != nil {
			p.answer <- m
		}
		return
	}
	s := c.subs[sid]
	c.mu.Unlock()
	if s != nil {
		s.f(m)
	}
}

func (c *Conn) pong() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pongs) > 0 {
		close(c.pongs[0])
		c.pongs = c.pongs[1:]
	}
}

// refused deals with -ERR. A violation of permissions refuses what was asked
// and leaves the connection; anything else ends it (nats-server closes it).
func (c *Conn) refused(text string) error {
	lower := strings.ToLower(text)
	if !strings.HasPrefix(lower, "permissions violation") {
		return fmt.Errorf("the server says: %s", text)
	}
	subject := ""
	if _, rest, ok := strings.Cut(text, `"`); ok {
		subject, _, _ = strings.Cut(rest, `"`)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.waiting {
		if p.subject == subject {
			select {
			case p.refused <- errclass.Errorf(errdefs.ErrPermissionDenied, "this connection may not send to %s", subject):
			default:
			}
		}
	}
	return nil
}
