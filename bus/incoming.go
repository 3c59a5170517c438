package bus

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/gantryd/gantry/bus/internal/wire"
	"github.com/gantryd/gantry/internal/errclass"

	"github.com/containerd/errdefs"
)

// Incoming is a message as it came in.
type Incoming struct {
	Subject string
	Reply   string // where an answer is wanted, or empty
	Data    []byte
}

// Listen calls f with each message on the subject, which may have wildcards, in
// order. f must not block. The two kinds of messages that JetStream could be made to
// send here in somebody's stead are dropped: their own subject is another
// one, or their reply is JetStream's.
func (c *Client) Listen(subject string, f func(Incoming)) error {
	_, err := c.conn.Subscribe(subject, func(m *wire.Msg) {
		if genuine(subject, m) {
			f(Incoming{Subject: m.Subject, Reply: m.Reply, Data: m.Data})
		}
	})
	return err
}

// genuine says whether m was published on a subject of the subscription, by
// somebody who is not JetStream.
func genuine(pattern string, m *wire.Msg) bool {
	return matches(pattern, m.Subject) && !strings.HasPrefix(m.Reply, "$JS.")
}

// matches says whether the subject is one of the pattern's.
func matches(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, part := range p {
		if part == ">" {
			return len(s) > i
		}
		if i >= len(s) || part != "*" && part != s[i] {
			return false
		}
	}
	return len(p) == len(s)
}

// Answer sends body, or the error, to where an answer is wanted.
func (c *Client) Answer(reply string, body any, err error) error {
	a := Answer{Error: NewError(err)}
	if err == nil && body != nil {
		if a.Body, err = json.Marshal(body); err != nil {
			a.Error = NewError(errclass.Errorf(errdefs.ErrInternal, "write the answer: %w", err))
		}
	}
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	err = c.conn.Publish(reply, "", nil, data)
	if err != nil && errdefs.IsResourceExhausted(err) {
		return c.Answer(reply, nil, err) // too long for the bus: say that instead
	}
	return err
}

// Flush returns when the server has everything that was sent.
func (c *Client) Flush(ctx context.Context) error { return c.conn.Flush(ctx) }

// InboxOwner is the connection whose inbox the reply subject is.
func InboxOwner(reply string) (conn string, ok bool) {
	rest, ok := strings.CutPrefix(reply, "_INBOX.")
	if !ok {
		return "", false
	}
	conn, rest, ok = strings.Cut(rest, ".")
	return untoken(conn), ok && rest != ""
}
