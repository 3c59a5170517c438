package bridge

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gantryd/gantry/sdk/netdriver"
)

// listen answers each connection with the address it came from. The listening
// socket stays in the namespace it was made in.
func listen(t *testing.T, ns netdriver.Namespace) {
	t.Helper()
	var l net.Listener
	in(t, ns, func() (err error) {
		l, err = net.Listen("tcp4", ":80")
		return err
	})
	t.Cleanup(func() { _ = l.Close() })
	go serve(l)
}

func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		_, _ = io.WriteString(c, host)
		_ = c.Close()
	}
}

// dial connects from a namespace and returns what the other side calls us.
func dial(t *testing.T, ns netdriver.Namespace, addr string, patience time.Duration) (string, error) {
	t.Helper()
	var got []byte
	var failed error
	in(t, ns, func() error {
		c, err := net.DialTimeout("tcp4", addr+":80", patience)
		if err != nil {
			failed = err
			return nil
		}
		defer func() { _ = c.Close() }()
		got, failed = io.ReadAll(c)
		return nil
	})
	return string(got), failed
}

func mustReach(t *testing.T, ns netdriver.Namespace, addr, seenAs string) {
	t.Helper()
	if got, err := dial(t, ns, addr, 2*time.Second); err != nil || got != seenAs {
		t.Fatalf("%s from %s: seen as %q, %v; want %q", addr, ns.Path, got, err, seenAs)
	}
}

func mustNotReach(t *testing.T, ns netdriver.Namespace, addr string) {
	t.Helper()
	if got, err := dial(t, ns, addr, 300*time.Millisecond); err == nil {
		t.Fatalf("%s from %s was reached, seen as %q", addr, ns.Path, got)
	}
}

func TestTwoContainersTalk(t *testing.T) {
	e := newEngine(t, "talk")
	n := e.network("aa11", "10.71.1.0/24", nil)
	one := e.attach(n, "c1", 2, nil)
	two := e.attach(n, "c2", 3, nil)
	listen(t, two.Namespace)
	mustReach(t, one.Namespace, "10.71.1.3", "10.71.1.2")
	in(t, one.Namespace, func() error {
		l, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if got := l.HardwareAddr.String(); got != "02:42:0a:47:01:02" {
			return fmt.Errorf("hardware address %s", got)
		}
		if lo, err := net.InterfaceByName("lo"); err != nil || lo.Flags&net.FlagUp == 0 {
			return fmt.Errorf("loopback: %+v, %v", lo, err)
		}
		return nil
	})
}
