package bus

import (
	"context"
	"encoding/json"
	"net"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus/internal/wire"
	"github.com/gantryd/gantry/internal/errclass"
)

// QueryHistory is the query that the bus itself answers: old events.
const QueryHistory = "bus.history"

// DefaultHost is where the engine listens if nobody says otherwise.
const DefaultHost = "unix:///run/gantry/gantry.sock"

// repeatAfter is how long Command waits for a receipt before it sends the
// same command again.
const repeatAfter = 5 * time.Second

// Options say how to reach the engine.
type Options struct {
	Host string // "unix:///run/gantry/gantry.sock"; empty: DefaultHost
	Name string // what the client says it is, e.g. "gantry/0.1"
}

// Client is a connection to the engine. Its methods may be called from several
// goroutines. It does not reconnect: when it is lost, dial again.
type Client struct {
	conn     *wire.Conn
	name     string
	path     string // of the socket; empty within the engine's process
	id       string // of the connection
	subjects Subjects
	hosts    *Inside // the short way to hosts of this process; nil: there is none
	engine   *Inside // the short way to the engine of this process; nil: there is none
}

// Dial connects to the engine. An engine that is not there is Unavailable.
func Dial(ctx context.Context, o Options) (*Client, error) {
	path, err := socketOf(o.Host)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, dialError(path, err)
	}
	c, err := New(ctx, nc, o.Name)
	if err != nil {
		_ = nc.Close() // the first error is the one that matters
		return nil, err
	}
	c.path = path
	return c, nil
}

// New makes a client of a connection to the bus that is already there.
func New(ctx context.Context, nc net.Conn, name string) (*Client, error) {
	conn, err := wire.New(ctx, nc, name)
	if err != nil {
		return nil, err
	}
	return &Client{
		conn: conn, name: name, id: strconv.FormatUint(conn.Info().ClientID, 10),
		subjects: Subjects{Node: conn.Info().ServerName},
	}, nil
}

// Node is the id of the engine.
func (c *Client) Node() string { return c.subjects.Node }

// ID is the connection's own id.
func (c *Client) ID() string { return c.id }

// Subjects are those of the engine.
func (c *Client) Subjects() Subjects { return c.subjects }

// Done is closed when the connection is over.
func (c *Client) Done() <-chan struct{} { return c.conn.Done() }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Command sends a command and waits for its receipt. Without an answer it sends
// the same again, under the same job id: the engine runs it once.
func (c *Client) Command(ctx context.Context, cmd Command) (Receipt, error) {
	if cmd.Client == "" {
		cmd.Client = c.name
	}
	var r Receipt
	subject := c.subjects.Command(c.id, cmd.Name)
	data, err := json.Marshal(cmd)
	if err != nil {
		return r, errclass.Errorf(errdefs.ErrInvalidArgument, "send %s: %w", cmd.Name, err)
	}
	for {
		try, cancel := context.WithTimeout(ctx, repeatAfter)
		err := c.request(try, subject, data, &r)
		again := try.Err() != nil && ctx.Err() == nil && c.conn.Err() == nil && errdefs.IsDeadlineExceeded(err)
		cancel()
		if !again {
			return r, err
		}
	}
}

// Query asks the engine and decodes its answer into out. in may be nil.
func (c *Client) Query(ctx context.Context, name string, in, out any) error {
	var data []byte
	if in != nil {
		var err error
		if data, err = json.Marshal(in); err != nil {
			return errclass.Errorf(errdefs.ErrInvalidArgument, "ask %s: %w", name, err)
		}
	}
	return c.request(ctx, c.subjects.Query(c.id, name), data, out)
}

// request sends data, and decodes the answer's body into out.
func (c *Client) request(ctx context.Context, subject string, data []byte, out any) error {
	m, err := c.conn.Request(ctx, subject, nil, data)
	if err != nil {
		return err
	}
	var a Answer
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return errclass.Errorf(errdefs.ErrInternal, "read the engine's answer: %w", err)
	}
	if a.Error != nil {
		return a.Error.Err()
	}
	if out == nil || len(a.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(a.Body, out); err != nil {
		return errclass.Errorf(errdefs.ErrInternal, "read the engine's answer: %w", err)
	}
	return nil
}
