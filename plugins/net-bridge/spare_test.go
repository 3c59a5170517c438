package bridge

import (
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/netdriver"
)

// spares counts the links made ahead, of any engine in the test's namespace.
func spares(t testing.TB) int {
	t.Helper()
	all, err := whole(netlink.LinkList)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range all {
		if strings.HasPrefix(l.Attrs().Name, pairPrefix) && strings.HasSuffix(l.Attrs().Alias, " spare") {
			n++
		}
	}
	return n
}

// waitForPool waits until the pool is full and nothing is made any more.
func (e *engine) waitForPool() {
	e.t.Helper()
	waitFor(e.t, "the pool to be full", func() bool {
		e.pool.mu.Lock()
		defer e.pool.mu.Unlock()
		return len(e.pool.ready) == poolSize && e.pool.timer == nil
	})
}

// description is all that can be told about an endpoint from inside and from
// outside, without what is different for each (indices, names of pairs).
func description(t *testing.T, e *engine, r netdriver.Attach, ep netdriver.Endpoint) map[string]any {
	t.Helper()
	port, err := e.host.LinkByName(portName(e.cfg.EngineID, r.EndpointKey))
	if err != nil {
		t.Fatal(err)
	}
	d := map[string]any{"answer": ep.Interface, "files": len(ep.Files)}
	told := func(where string, l netlink.Link) {
		a := l.Attrs()
		d[where] = fmt.Sprintf("%s mtu %d txqlen %d queues %d/%d flags %s state %s master %v alias %q",
			l.Type(), a.MTU, a.TxQLen, a.NumTxQueues, a.NumRxQueues, a.Flags, a.OperState, a.MasterIndex > 0, a.Alias)
	}
	told("port", port)
	d["port's names"] = port.Attrs().AltNames
	waitFor(t, "the container's link to be up", func() (up bool) { // older kernels tell it late
		in(t, ep.Namespace, func() error {
			l, err := netlink.LinkByName(ep.Interface)
			up = err == nil && l.Attrs().OperState == netlink.OperUp
			return err
		})
		return up
	})
	in(t, ep.Namespace, func() error {
		all, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range all {
			// Asked for one by one: a list may tell an older state.
			one, err := netlink.LinkByName(l.Attrs().Name)
			if err != nil {
				return err
			}
			told("inside "+l.Attrs().Name, one)
			addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			for _, a := range addrs {
				d["address of "+l.Attrs().Name+" "+a.IPNet.String()] = fmt.Sprint(a.Broadcast, a.Scope, a.Flags, a.ValidLft)
			}
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, x := range routes {
			d["route "+fmt.Sprint(x.Dst, x.Gw, x.Table)] = fmt.Sprint(x.Src, x.Scope, x.Protocol, x.Type, x.Priority)
		}
		eth, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		d["hardware address"] = eth.HardwareAddr.String()
		for _, s := range []string{"all/disable_ipv6", "default/disable_ipv6", "eth0/disable_ipv6", "lo/disable_ipv6"} {
			text, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + s)
			d[s] = fmt.Sprint(strings.TrimSpace(string(text)), err)
		}
		return nil
	})
	return d
}

// Made ahead or not, an endpoint is the same one.
func TestFromThePoolOrNot(t *testing.T) {
	e := newEngine(t, "pool")
	for i, change := range []func(*netdriver.Network){nil, func(n *netdriver.Network) {
		n.Options = map[string]string{optionMTU: "1280"}
	}} {
		n := e.network(fmt.Sprintf("aa1%d", i), fmt.Sprintf("10.86.%d.0/24", i), change)
		peer := e.attach(n, "peer", 9, nil)
		listen(t, peer.Namespace)
		r := request4(n, "c1", 2)
		var told []map[string]any
		for _, ahead := range []bool{false, true} {
			e.pool.empty()
			if ahead {
				e.pool.take() // asks for some
				e.waitForPool()
			}
			ready := slices.Clone(e.pool.ready)
			ep, err := e.Attach(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			port, err := e.links.run(askLink{Name: portName("id-of-pool", r.EndpointKey)})
			if err != nil {
				t.Fatal(err)
			}
			took := slices.ContainsFunc(ready, func(s *spare) bool { return s.port == port.Index })
			if took != ahead {
				t.Errorf("of %d made ahead one was taken: %v", len(ready), took)
			}
			mustReach(t, ep.Namespace, peerAddress(n), r.Address.Addr().String())
			told = append(told, description(t, e, r, ep))
			e.detach(n, "c1", 1)
		}
		if len(told[0]) < 12 || !reflect.DeepEqual(told[0], told[1]) {
			t.Errorf("made on demand: %v\nmade ahead:     %v", told[0], told[1])
		}
	}
}

func peerAddress(n netdriver.Network) string {
	b := n.Subnet.Addr().As4()
	return fmt.Sprintf("%d.%d.%d.9", b[0], b[1], b[2])
}

// Where containers come one behind the other it is never quiet: one is made all the
// same as soon as none is left.
func TestPoolIsNotDryForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pool{size: 4, make: func() (*spare, error) { return &spare{}, nil }}
		p.take()
		p.busy() // another attach, which puts it off
		time.Sleep(dryFor)
		synctest.Wait()
		if p.take() == nil {
			t.Error("none was made while something is asked again and again")
		}
		p.timer.Stop()
	})
}

// The pool fills when something was taken, in quiet; it is empty after the last
// network and after the driver's orderly end.
func TestPoolIsEmptied(t *testing.T) {
	e := newEngine(t, "emptied")
	waitFor(t, "those of other tests to go", func() bool { return spares(t) == 0 })
	n := e.network("aa11", "10.87.1.0/24", nil)
	time.Sleep(2 * quietFor)
	if n := spares(t); n != 0 {
		t.Errorf("%d links made ahead before anything was asked for", n)
	}
	e.attach(n, "c1", 2, nil)
	e.waitForPool()
	if got := spares(t); got != poolSize {
		t.Errorf("%d links made ahead, want %d", got, poolSize)
	}
	if items, err := e.List(t.Context()); err != nil || len(items) != 2 {
		t.Errorf("what is made ahead is listed: %+v, %v", items, err)
	}
	e.open(e.cfg) // closes the one before
	waitFor(t, "the first driver's pool to go", func() bool { return spares(t) == 0 })
	e.attach(n, "c2", 3, nil)
	e.waitForPool()
	e.detach(n, "c1", 1)
	e.detach(n, "c2", 1)
	if err := e.RemoveNetwork(t.Context(), n.ID); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the pool to go with the last network", func() bool { return spares(t) == 0 })
	time.Sleep(2 * quietMost)
	if n := spares(t); n != 0 {
		t.Errorf("%d links made ahead for no network", n)
	}
	if err := e.holder.connect(false); err == nil {
		t.Error("the holder was started again for no network")
	}
}

// What was made ahead ends with its driver, however that ends, and does not
// need the holder.
func TestPoolAfterDeaths(t *testing.T) {
	e := newEngine(t, "deaths")
	n := e.network("aa11", "10.88.1.0/24", nil)
	v := victim{Config: e.cfg, Network: n, First: 1, Stay: true}
	cmd := start(t, v, func(int) {})
	waitFor(t, "the victim's pool", func() bool { return spares(t) == poolSize })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	waitFor(t, "the victim's pool to go", func() bool { return spares(t) == 0 })

	e.attach(n, "c2", 3, nil)
	e.waitForPool()
	if err := syscall.Kill(e.holder.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the holder's end", func() bool {
		items, err := e.List(t.Context())
		return err == nil && len(items) == 1
	})
	ep, other := e.attach(n, "c3", 4, nil), e.attach(n, "c4", 5, nil)
	listen(t, other.Namespace)
	mustReach(t, ep.Namespace, "10.88.1.5", "10.88.1.4")
}

// Somebody deletes links that are nobody's yet: attaching goes on.
func TestPoolDeletedBehindOurBack(t *testing.T) {
	e := newEngine(t, "behind")
	n := e.network("aa11", "10.89.1.0/24", nil)
	e.attach(n, "c1", 2, nil)
	e.waitForPool()
	for _, s := range e.pool.ready {
		if err := e.host.LinkDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: s.port}}); err != nil {
			t.Fatal(err)
		}
	}
	two, three := e.attach(n, "c2", 3, nil), e.attach(n, "c3", 4, nil)
	listen(t, three.Namespace)
	mustReach(t, two.Namespace, "10.89.1.4", "10.89.1.3")
}
