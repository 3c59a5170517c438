package bridge

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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

// dial connects from a namespace and returns what the other side calls us, and whether
// the way there was open from the first packet on.
func dial(t *testing.T, ns netdriver.Namespace, addr string, wait time.Duration) (got string, atOnce bool, failed error) {
	t.Helper()
	in(t, ns, func() error {
		c, err := net.DialTimeout("tcp4", addr+":80", wait)
		if err != nil {
			failed = err
			return nil
		}
		defer func() { _ = c.Close() }()
		atOnce, err = noneLost(c.(*net.TCPConn))
		text, errRead := io.ReadAll(c)
		got, failed = string(text), errors.Join(err, errRead)
		return nil
	})
	return got, atOnce, failed
}

// noneLost reports whether a connection was made without a packet that was lost: one is
// sent again after a second. It is the kernel that tells, however slow the machine is.
func noneLost(c *net.TCPConn) (bool, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false, err
	}
	var info *unix.TCPInfo
	var failed error
	err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err = errors.Join(err, failed); err != nil {
		return false, err
	}
	return info.Total_retrans == 0 && info.Rtt < 900_000, nil // microseconds
}

// patience is for what must happen, on whatever machine.
const patience = 30 * time.Second

func mustReach(t *testing.T, ns netdriver.Namespace, addr, seenAs string) {
	t.Helper()
	got, atOnce, err := dial(t, ns, addr, patience)
	if err != nil || got != seenAs {
		t.Fatalf("%s from %s: seen as %q, %v; want %q", addr, ns.Path, got, err, seenAs)
	}
	if !atOnce {
		t.Errorf("%s from %s answered only when a packet was sent again", addr, ns.Path)
	}
}

func mustNotReach(t *testing.T, ns netdriver.Namespace, addr string) {
	t.Helper()
	if got, _, err := dial(t, ns, addr, 300*time.Millisecond); err == nil {
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

// Router advertisements of a container must reach neither the machine nor its
// neighbours.
func TestNobodySpeaksIPv6(t *testing.T) {
	e := newEngine(t, "six")
	n := e.network("aa11", "10.83.1.0/24", nil)
	c := e.attach(n, "c1", 2, nil)
	six := func(link string) (found []string) {
		l, err := net.InterfaceByName(link)
		if err != nil {
			return []string{err.Error()}
		}
		addrs, err := l.Addrs()
		if err != nil {
			return []string{err.Error()}
		}
		for _, a := range addrs {
			if strings.Contains(a.String(), ":") {
				found = append(found, a.String())
			}
		}
		return found
	}
	if got := six(bridgeName("six", n.ID)); got != nil {
		t.Errorf("the bridge has %v", got)
	}
	port, err := e.host.LinkByName(portName(e.cfg.EngineID, netdriver.EndpointKey{Network: n.ID, Container: "c1", Run: 1}))
	if err != nil {
		t.Fatal(err)
	}
	if got := six(port.Attrs().Name); got != nil {
		t.Errorf("the port has %v", got)
	}
	in(t, c.Namespace, func() error {
		if got := six("eth0"); got != nil {
			t.Errorf("eth0 has %v", got)
		}
		if got := six("lo"); len(got) != 1 {
			t.Errorf("loopback has %v", got)
		}
		return nil
	})
	path := ipv6Switch(bridgeName("six", n.ID))
	if err := os.WriteFile(path, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	if err := e.CreateNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "1\n" {
		t.Errorf("switched on by somebody, asked again: %q, %v", got, err)
	}
}

func TestTheWayOut(t *testing.T) {
	if err := os.WriteFile(forwardSwitch, []byte("0"), 0); err != nil && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	e := newEngine(t, "out")
	learn, there := outside(t, e)
	n := e.network("aa11", "10.71.1.0/24", nil)
	c := e.attach(n, "c1", 2, nil)
	mustReach(t, c.Namespace, "198.51.100.2", "198.51.100.1") // masqueraded
	info, err := e.Info(t.Context())
	if err != nil || !strings.Contains(strings.Join(info.Warnings, "\n"), "has been switched on") {
		t.Errorf("forwarding was switched on without a word: %q, %v", info.Warnings, err)
	}

	plain := e.network("bb22", "10.71.2.0/24", func(n *netdriver.Network) {
		n.Options = map[string]string{optionMasq: "false", optionMTU: "1300"}
	})
	p := e.attach(plain, "c2", 2, nil)
	mustNotReach(t, p.Namespace, "198.51.100.2") // no route back to 10.71.2.2
	in(t, p.Namespace, func() error {
		l, err := net.InterfaceByName("eth0")
		if err == nil && l.MTU != 1300 {
			err = fmt.Errorf("MTU %d inside, 1300 asked for", l.MTU)
		}
		return err
	})

	shut := e.network("cc33", "10.71.3.0/24", func(n *netdriver.Network) { n.Internal = true })
	s := e.attach(shut, "c3", 2, nil)
	s2 := e.attach(shut, "c4", 3, nil)
	listen(t, s2.Namespace)
	mustReach(t, s.Namespace, "10.71.3.3", "10.71.3.2")
	mustNotReach(t, s.Namespace, "198.51.100.2")
	mustNotReach(t, c.Namespace, "10.71.3.3")
	learn(shut.Subnet) // so that nothing else keeps it in
	if !hears(t, there, c.Namespace, patience) {
		t.Error("a packet of an ordinary network does not arrive")
	}
	if hears(t, there, s.Namespace, 300*time.Millisecond) {
		t.Error("a packet of an internal network gets out")
	}

	// Somebody flushes the table and deletes a bridge: asking again restores.
	if err := (ruleset{Table: tableName("out")}).apply(); err != nil {
		t.Fatal(err)
	}
	mustNotReach(t, c.Namespace, "198.51.100.2")
	if err := e.CreateNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	mustReach(t, c.Namespace, "198.51.100.2", "198.51.100.1")
	mustNotReach(t, s.Namespace, "198.51.100.2")
	if err := deleteLink(e.host, bridgeName("out", plain.ID)); err != nil {
		t.Fatal(err)
	}
	if err := e.CreateNetwork(t.Context(), plain); err != nil {
		t.Fatal(err)
	}
	again := e.attach(plain, "c2", 2, nil) // its port went with the bridge
	if again.Namespace.Inode != p.Namespace.Inode {
		t.Errorf("the endpoint has another namespace: %+v, had %+v", again, p)
	}
	fifth := e.attach(plain, "c5", 5, nil)
	listen(t, again.Namespace)
	mustReach(t, fifth.Namespace, "10.71.2.2", "10.71.2.5")
}

func TestEnginesSideBySide(t *testing.T) {
	a, b := newEngine(t, "left"), newEngine(t, "right")
	b.beside = true
	na := a.network("aa11", "10.72.1.0/24", nil)
	na2 := a.network("aa22", "10.72.2.0/24", nil)
	nb := b.network("aa11", "10.72.3.0/24", nil) // the same id, another engine
	one, other := a.attach(na, "c1", 2, nil), a.attach(na2, "c2", 2, nil)
	theirs := b.attach(nb, "c1", 2, nil)
	for _, ep := range []netdriver.Endpoint{one, other, theirs} {
		listen(t, ep.Namespace)
	}
	mustNotReach(t, one.Namespace, "10.72.2.2") // networks of one engine are apart
	mustNotReach(t, other.Namespace, "10.72.1.2")
	items, err := a.List(t.Context())
	if err != nil || len(items) != 4 {
		t.Fatalf("list: %+v, %v", items, err)
	}
	overlapping := netdriver.Network{ID: "dd44", Name: "dd", Subnet: netip.MustParsePrefix("10.72.0.0/16"), Gateway: netip.MustParseAddr("10.72.0.1")}
	if err := a.CreateNetwork(t.Context(), overlapping); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("overlapping subnet: %v", err)
	}
	b.end()
	mustReach(t, one.Namespace, "10.72.1.2", "10.72.1.2") // untouched by the other's end
	if items, err = a.List(t.Context()); err != nil || len(items) != 4 {
		t.Fatalf("list after the other engine's end: %+v, %v", items, err)
	}
	b.open(b.cfg)
}

// TestNetworkKeepsItsMTU: a bridge follows its ports' unless it was told a number of
// its own, and falls back to 1500 when the last one has left.
func TestNetworkKeepsItsMTU(t *testing.T) {
	e := newEngine(t, "mtu")
	for i, want := range []int{1300, 9000} {
		n := e.network(fmt.Sprintf("aa1%d", i), fmt.Sprintf("10.92.%d.0/24", i), func(n *netdriver.Network) {
			n.Options = map[string]string{optionMTU: fmt.Sprint(want)}
		})
		for _, container := range []string{"c1", "c2"} {
			ep := e.attach(n, container, 2, nil)
			in(t, ep.Namespace, func() error {
				l, err := net.InterfaceByName("eth0")
				if err == nil && l.MTU != want {
					err = fmt.Errorf("%s has MTU %d inside, %d asked for", container, l.MTU, want)
				}
				return err
			})
			e.detach(n, container, 1)
			waitFor(t, "the port to go", func() bool {
				_, err := e.links.run(askLink{Name: portName(e.cfg.EngineID, request4(n, container, 2).EndpointKey)})
				return err != nil
			})
		}
	}
}

// TestFurtherAddressOfABridge: somebody gives a bridge one more address, in its subnet
// or around it. Networks are made and removed all the same.
func TestFurtherAddressOfABridge(t *testing.T) {
	e := newEngine(t, "further")
	n := e.network("aa11", "10.93.1.0/24", nil)
	bridge, err := e.host.LinkByName(bridgeName("further", n.ID))
	if err != nil {
		t.Fatal(err)
	}
	for i, further := range []string{"10.93.1.77/24", "10.93.1.129/25", "10.93.1.1/32", "10.93.0.5/16"} {
		addr := &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(further))}
		if err := e.host.AddrAdd(bridge, addr); err != nil {
			t.Fatal(err)
		}
		other := e.network(fmt.Sprintf("bb%d", i), fmt.Sprintf("10.94.%d.0/24", i), nil)
		if err := e.RemoveNetwork(t.Context(), other.ID); err != nil {
			t.Errorf("with %s on another bridge: %v", further, err)
		}
		if err := e.host.AddrDel(bridge, addr); err != nil {
			t.Fatal(err)
		}
	}
}
