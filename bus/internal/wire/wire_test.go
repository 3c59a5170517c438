package wire

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

const infoLine = `INFO {"server_name":"n","client_id":7,"max_payload":1024,"headers":true}` + "\r\n"

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// fake gives a connection, and the server's end of it behind CONNECT and SUB.
func fake(t *testing.T) (*Conn, net.Conn, *bufio.Reader) {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { server.Close() })
	go server.Write([]byte(infoLine))
	c, err := New(within(t), client, `na"me`)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r := bufio.NewReader(server)
	go c.Publish("begin", "", nil, nil)
	for i, want := range []string{`CONNECT {`, "SUB _INBOX.7.", "PUB begin 0", ""} {
		line, err := r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) {
			t.Fatalf("line %d is %q, %v", i, line, err)
		}
		if i == 0 && !strings.Contains(line, `"name":"na\"me"`) {
			t.Errorf("the name is lost: %s", line)
		}
	}
	return c, server, r
}

func TestRequestAndAnswer(t *testing.T) {
	c, server, r := fake(t)
	go func() {
		line, _ := r.ReadString('\n')
		f := strings.Fields(line) // HPUB q reply head total
		r.Discard(len("NATS/1.0\r\nA: b\r\n\r\nhello\r\n"))
		fmt.Fprintf(server, "PING\r\n+OK\r\n")
		if pong, _ := r.ReadString('\n'); pong != "PONG\r\n" {
			t.Errorf("got %q for PING", pong)
		}
		fmt.Fprintf(server, "MSG nobody 99 1\r\nx\r\nHMSG %s 1 21 26\r\nNATS/1.0\r\nX:  y z\r\n\r\nworld\r\n", f[2])
	}()
	m, err := c.Request(within(t), "q", Header{{"A", "b"}}, []byte("hello"))
	if err != nil || string(m.Data) != "world" || m.Header.Get("X") != "y z" || m.Header.Get("none") != "" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestWaysToBeRefused(t *testing.T) {
	for answer, is := range map[string]func(error) bool{
		"-ERR 'Permissions Violation for Publish to \"q\"'\r\n": errdefs.IsPermissionDenied,
		"HMSG %s 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n":           errdefs.IsUnavailable,
		"-ERR 'Stale Connection'\r\n":                           errdefs.IsUnavailable,
		"MSG x\r\n":                                             errdefs.IsUnavailable,
		"MSG x 1 99999\r\n":                                     errdefs.IsUnavailable,
		"MSG x 1 -1\r\n":                                        errdefs.IsUnavailable,
		"MSG x 1 2\r\nabcd":                                     errdefs.IsUnavailable,
		"HMSG x 1 9 5\r\nabcdefghi\r\n":                         errdefs.IsUnavailable,
		"HMSG x 1 4 4\r\nabcd\r\n":                              errdefs.IsUnavailable,
		"HTTP/1.1 200 OK\r\n":                                   errdefs.IsUnavailable,
		strings.Repeat("x", 2*maxLine):                          errdefs.IsUnavailable,
	} {
		c, server, r := fake(t)
		go func() {
			line, _ := r.ReadString('\n')
			if strings.Contains(answer, "%s") {
				answer = fmt.Sprintf(answer, strings.Fields(line)[2])
			}
			server.Write([]byte(answer))
		}()
		if _, err := c.Request(within(t), "q", nil, nil); !is(err) {
			t.Errorf("%.40q: %v", answer, err)
		}
		c.Close()
	}
}

func TestWhatCannotBeSent(t *testing.T) {
	c, _, _ := fake(t)
	for name, err := range map[string]error{
		"a subject with a blank": c.Publish("a b", "", nil, nil),
		"no subject":             c.Publish("", "", nil, nil),
		"a second line":          c.Publish("a\r\nPUB x 0\r\n", "", nil, nil),
		"a reply with a blank":   c.Publish("a", "b c", nil, nil),
		"a header with a line":   c.Publish("a", "", Header{{"A", "b\r\nC: d"}}, nil),
		"a header's name":        c.Publish("a", "", Header{{"A:", "b"}}, nil),
	} {
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Publish("a", "", nil, make([]byte, 1025)); !errdefs.IsResourceExhausted(err) {
		t.Errorf("too much: %v", err)
	}
	if _, err := c.Subscribe("a b", nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("subscribe: %v", err)
	}
}

func TestTheEndWakesWhoeverWaits(t *testing.T) {
	c, server, r := fake(t)
	go func() {
		r.ReadString('\n')
		server.Close()
	}()
	if err := c.Flush(within(t)); !errdefs.IsUnavailable(err) {
		t.Errorf("flush: %v", err)
	}
	<-c.Done()
	if _, err := c.Request(within(t), "q", nil, nil); !errdefs.IsUnavailable(err) {
		t.Errorf("request: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c2, server2, r2 := fake(t)
	go r2.ReadString(0)
	if _, err := c2.Request(ctx, "q", nil, nil); err != context.Canceled {
		t.Errorf("a cancelled request: %v", err)
	}
	server2.Close()
}

func TestNoServerAtAll(t *testing.T) {
	for _, first := range []string{"", "SSH-2.0\r\n", "INFO {\r\n", `INFO {"headers":false}` + "\r\n"} {
		client, server := net.Pipe()
		go func() { server.Write([]byte(first)); server.Close() }()
		if _, err := New(within(t), client, "x"); !errdefs.IsUnavailable(err) {
			t.Errorf("%q: %v", first, err)
		}
		client.Close()
	}
	// One that says nothing.
	client, server := net.Pipe()
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := New(ctx, client, "x"); !errdefs.IsUnavailable(err) {
		t.Errorf("silence: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("MSG a 1 2\r\nhi\r\n"))
	f.Add([]byte("HMSG a 1 r 21 26\r\nNATS/1.0\r\nX:  y z\r\n\r\nworld\r\nPING\r\n-ERR 'Permissions Violation for \"x\"'\r\n"))
	f.Add([]byte("HMSG a 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		go func() { _, _ = bufio.NewReader(server).WriteTo(discard{}) }()
		c := &Conn{nc: client, info: Info{MaxPayload: 1024}, w: bufio.NewWriter(client), subs: map[uint64]*Sub{},
			waiting: map[string]*pending{}, done: make(chan struct{})}
		c.subs[2] = &Sub{conn: c, sid: 2, f: func(m *Msg) {
			if len(m.Data) > 1024 {
				t.Errorf("%d bytes", len(m.Data))
			}
		}}
		c.read(bufio.NewReaderSize(bytes.NewReader(b), maxLine))
		if c.Err() == nil {
			t.Error("it ends without a reason")
		}
	})
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
