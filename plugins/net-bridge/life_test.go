package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestTwoHundredTimesLeavesNothing(t *testing.T) {
	e := newEngine(t, "often")
	n := e.network("aa11", "10.73.1.0/24", nil)
	stays := e.attach(n, "c0", 9, nil)
	listen(t, stays.Namespace)
	e.attach(n, "warm", 8, nil)
	e.detach(n, "warm", 1)
	e.waitForPool()
	own, holders := descriptors(t, os.Getpid()), descriptors(t, e.holder.pid)

	var attach, detach []time.Duration
	for i := range 200 {
		r := request4(n, "c1", 2) // always the same address
		r.Run = uint64(i + 1)
		begin := time.Now()
		ep, err := e.Attach(t.Context(), r)
		attach = append(attach, time.Since(begin))
		if err != nil {
			t.Fatal(err)
		}
		// Both ways at once, although the run before may still be on the bridge.
		if i%3 == 0 {
			mustReach(t, ep.Namespace, "10.73.1.9", "10.73.1.2")
		}
		begin = time.Now()
		e.detach(n, "c1", r.Run)
		detach = append(detach, time.Since(begin))
	}
	t.Logf("attach %s, detach %s", spread(attach), spread(detach))
	waitFor(t, "all ports but one to go", func() bool { return len(ownLinks(t)) == 2 })
	if len(e.runs.held) != 0 {
		t.Errorf("%d locks of runs are kept", len(e.runs.held))
	}
	waitFor(t, "the sweeper to forget what it has swept", func() bool {
		e.sweep.mu.Lock()
		defer e.sweep.mu.Unlock()
		return len(e.sweep.given) == 0
	})
	if items, err := e.List(t.Context()); err != nil || len(items) != 2 {
		t.Errorf("list: %+v, %v", items, err)
	}
	waitFor(t, "descriptors of driver and holder", func() bool {
		return descriptors(t, os.Getpid()) <= own && descriptors(t, e.holder.pid) <= holders
	})
	left, err := filepath.Glob(filepath.Join(e.cfg.Run, "c1-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

func (e *engine) detach(n netdriver.Network, container string, run uint64) {
	e.t.Helper()
	if err := e.Detach(e.t.Context(), netdriver.EndpointKey{Network: n.ID, Container: container, Run: run}); err != nil {
		e.t.Fatal(err)
	}
}

func spread(d []time.Duration) string {
	sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
	return fmt.Sprintf("min %v median %v p95 %v", d[0], d[len(d)/2], d[len(d)*95/100])
}

// A process keeps the namespace of an endpoint that was given back, and
// another container gets its address: it must be the one that answers.
func TestLingeringEndpointIsDeaf(t *testing.T) {
	e := newEngine(t, "linger")
	e.sweep.after = time.Hour // by hand, below
	n := e.network("aa11", "10.74.1.0/24", nil)
	other := e.attach(n, "c0", 9, nil)
	old := e.attach(n, "c1", 2, nil)
	fd, err := openNamespace(old.Namespace, unix.CLONE_NEWNET)
	if err != nil {
		t.Fatal(err)
	}
	held := netdriver.Namespace{Path: fmt.Sprintf("/proc/self/fd/%d", fd)}
	listen(t, held)
	mustReach(t, other.Namespace, "10.74.1.2", "10.74.1.9")
	e.detach(n, "c1", 1)
	mustNotReach(t, other.Namespace, "10.74.1.2")
	if _, err := dialMachine("10.74.1.2:80", 200*time.Millisecond); err == nil {
		t.Error("the machine still reaches an endpoint that was given back")
	}
	in(t, held, func() error { // what a process behind it could try
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		l, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(h.LinkSetDown(l), h.LinkSetUp(l))
	})
	mustNotReach(t, other.Namespace, "10.74.1.2")
	if _, err := dialMachine("10.74.1.2:80", 200*time.Millisecond); err == nil {
		t.Error("the machine still reaches an endpoint that was given back")
	}
	for _, mac := range []string{"", "02:00:00:00:00:77"} {
		fresh := e.attach(n, "c2", 2, func(r *netdriver.Attach) { r.MAC = mac; r.Run = uint64(len(mac) + 1) })
		listen(t, fresh.Namespace)
		if mac != "" { // where the one before was known the neighbour entry must not be stale
			waitFor(t, "the neighbour to know the new hardware address", func() bool {
				return isNeighbour(t, other.Namespace, "10.74.1.2", mac)
			})
		}
		mustReach(t, other.Namespace, "10.74.1.2", "10.74.1.9")
		if got, err := dialMachine("10.74.1.2:80", patience); err != nil || got != "10.74.1.1" {
			t.Errorf("from the machine: %q, %v", got, err)
		}
		e.detach(n, "c2", uint64(len(mac)+1))
	}
	e.sweep.now()
	waitFor(t, "the lingering port to go", func() bool { return len(ownLinks(t)) == 2 })
	_ = unix.Close(fd)
}

// isNeighbour reports whether an address is known in a namespace, and as this station's.
func isNeighbour(t *testing.T, ns netdriver.Namespace, addr, mac string) (known bool) {
	t.Helper()
	in(t, ns, func() error {
		all, err := whole(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, netlink.FAMILY_V4) })
		for _, n := range all {
			known = known || n.IP.String() == addr && n.HardwareAddr.String() == mac
		}
		return err
	})
	return known
}

func dialMachine(addr string, wait time.Duration) (string, error) {
	c, err := net.DialTimeout("tcp4", addr, wait)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	b := make([]byte, 64)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func TestRepeatedAttachIsTheSame(t *testing.T) {
	e := newEngine(t, "repeat")
	n := e.network("aa11", "10.75.1.0/24", nil)
	first := e.attach(n, "c1", 2, func(r *netdriver.Attach) { r.Names = []string{"web"}; r.DNS = []string{"9.9.9.9"} })
	again := e.attach(n, "c1", 2, nil)
	if fmt.Sprint(first) != fmt.Sprint(again) {
		t.Errorf("first %+v, again %+v", first, again)
	}
	e.open(e.cfg) // a new driver finds it
	if third := e.attach(n, "c1", 2, nil); fmt.Sprint(first) != fmt.Sprint(third) {
		t.Errorf("first %+v, from a new driver %+v", first, third)
	}
	text, err := os.ReadFile(first.Files[1].Source)
	if err != nil || !strings.HasSuffix(string(text), "10.75.1.2\tc1 web\n") {
		t.Errorf("hosts: %q, %v", text, err)
	}
	if text, err = os.ReadFile(first.Files[0].Source); err != nil || !strings.HasPrefix(string(text), "nameserver 9.9.9.9\n") {
		t.Errorf("resolv.conf: %q, %v", text, err)
	}
	e.detach(n, "c1", 1)
	e.attach(n, "c1", 2, nil) // the same run at once: its link is on its way out
	e.detach(n, "c1", 1)
	e.detach(n, "c1", 1)
	for range 2 {
		if err := e.RemoveNetwork(t.Context(), n.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Attach(t.Context(), request4(n, "c1", 2)); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("attach to no network: %v", err)
	}
}

func TestJoinASecondNetwork(t *testing.T) {
	e := newEngine(t, "join")
	n1 := e.network("aa11", "10.76.1.0/24", nil)
	n2 := e.network("bb22", "10.76.2.0/24", nil)
	peer := e.attach(n2, "c9", 9, nil)
	listen(t, peer.Namespace)
	one := e.attach(n1, "c1", 2, nil)
	join := func(r *netdriver.Attach) { r.Join = one.Namespace }
	two := e.attach(n2, "c1", 2, join)
	if two.Interface != "eth1" || two.Namespace.Inode != one.Namespace.Inode || two.Files != nil {
		t.Fatalf("second endpoint: %+v", two)
	}
	if again := e.attach(n2, "c1", 2, join); fmt.Sprint(again) != fmt.Sprint(two) {
		t.Errorf("again: %+v, want %+v", again, two)
	}
	mustReach(t, one.Namespace, "10.76.2.9", "10.76.2.2")
	hosts, err := os.ReadFile(one.Files[1].Source)
	if err != nil || !bytes.Contains(hosts, []byte("10.76.1.2\tc1\n10.76.2.2\tc1\n")) {
		t.Errorf("hosts: %q, %v", hosts, err)
	}
	e.detach(n2, "c1", 1)
	in(t, one.Namespace, func() error {
		if _, err := net.InterfaceByName("eth1"); err == nil {
			return errors.New("eth1 is there after its detach")
		}
		return nil
	})
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &own); err != nil {
		t.Fatal(err)
	}
	r := request4(n2, "c1", 2)
	r.Join = one.Namespace
	for what, inode := range map[string]uint64{"nobody": own.Ino, "another container": peer.Namespace.Inode} {
		r.Join.Inode = inode
		if _, err := e.Attach(t.Context(), r); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("join of a namespace that is held for %s: %v", what, err)
		}
	}
}

func TestHolderKilled(t *testing.T) {
	e := newEngine(t, "lost")
	n := e.network("aa11", "10.77.1.0/24", nil)
	before := e.attach(n, "c1", 2, nil)
	if err := syscall.Kill(e.holder.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the holder's end", func() bool {
		items, err := e.List(t.Context())
		return err == nil && len(items) == 1 // the network
	})
	after := e.attach(n, "c1", 2, nil)
	if after.Namespace.Path == before.Namespace.Path {
		t.Errorf("the endpoint was not made anew: %+v", after)
	}
	other := e.attach(n, "c2", 3, nil)
	listen(t, after.Namespace)
	mustReach(t, other.Namespace, "10.77.1.2", "10.77.1.3")
}

// userNamespace starts a process in a user namespace of its own, which ends with the test.
func userNamespace(t *testing.T) (*exec.Cmd, netdriver.Namespace) {
	t.Helper()
	child := exec.Command("cat")
	if _, err := child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}},
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	var st unix.Stat_t
	path := fmt.Sprintf("/proc/%d/ns/user", child.Process.Pid)
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return child, netdriver.Namespace{Mode: netdriver.NamespacePath, Path: path, Inode: st.Ino}
}

func TestUserNamespaceOwnsTheNetwork(t *testing.T) {
	e := newEngine(t, "owned")
	n := e.network("aa11", "10.78.1.0/24", nil)
	child, owned := userNamespace(t)
	ep := e.attach(n, "c1", 2, func(r *netdriver.Attach) { r.UserNS = owned })
	fd, err := openNamespace(ep.Namespace, unix.CLONE_NEWNET)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	owner, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(owner) }()
	var st unix.Stat_t
	if err := unix.Fstat(owner, &st); err != nil || st.Ino != owned.Inode {
		t.Errorf("owner %d, want %d (%v)", st.Ino, owned.Inode, err)
	}
	other := e.attach(n, "c2", 3, nil)
	listen(t, ep.Namespace)
	mustReach(t, other.Namespace, "10.78.1.2", "10.78.1.3")

	r := request4(n, "c3", 4)
	r.UserNS = netdriver.Namespace{Mode: netdriver.NamespaceNew}
	if _, err := e.Attach(t.Context(), r); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("a user namespace that is not there yet: %v", err)
	}
	r.UserNS = netdriver.Namespace{Mode: netdriver.NamespacePath, Path: fmt.Sprintf("/proc/%d/ns/net", child.Process.Pid)}
	if _, err := e.Attach(t.Context(), r); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a namespace of another kind: %v", err)
	}
}

func TestForeignThingsAreRefused(t *testing.T) {
	e := newEngine(t, "foreign")
	p := netip.MustParsePrefix("10.79.1.0/24")
	n := netdriver.Network{ID: "aa11", Name: "web", Subnet: p, Gateway: p.Addr().Next()}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Alias = bridgeName("foreign", n.ID), "somebody else's"
	foreign := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(foreign); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetAlias(foreign, attrs.Alias); err != nil {
		t.Fatal(err)
	}
	if err := e.CreateNetwork(t.Context(), n); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("bridge of somebody else: %v", err)
	}
	if err := e.RemoveNetwork(t.Context(), n.ID); err != nil {
		t.Error(err)
	}
	if _, err := netlink.LinkByName(attrs.Name); err != nil {
		t.Errorf("somebody else's bridge was removed: %v", err)
	}
	if err := netlink.LinkDel(foreign); err != nil {
		t.Fatal(err)
	}
	e.network("aa11", "10.79.1.0/24", nil)
	six := request4(n, "c1", 2)
	six.Gateway = netip.MustParseAddr("fd00::1")
	if _, err := e.Attach(t.Context(), six); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a gateway of IPv6: %v", err)
	}
	e.attach(n, "c1", 2, nil)
	if err := e.RemoveNetwork(t.Context(), n.ID); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("removed with a container attached: %v", err)
	}
	e.detach(n, "c1", 1)
	missing := driver.Config{EngineID: "x", EngineName: "x", Libexec: "/nonexistent", Run: t.TempDir()}
	e2 := &engine{t: t}
	e2.open(missing)
	defer func() { _ = e2.Close() }()
	if _, err := e2.holder.makeNamespace(-1); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("holder missing: %v", err)
	}
}

// cutOff is an engine whose container c1 (address 2 of the subnet) has lost its link,
// and the request that attached it. Its neighbour, address 9, listens.
func cutOff(t *testing.T, name, subnet string) (*engine, netdriver.Attach) {
	t.Helper()
	e := newEngine(t, name)
	n := e.network("aa11", subnet, nil)
	listen(t, e.attach(n, "c0", 9, nil).Namespace)
	e.attach(n, "c1", 2, nil)
	r := request4(n, "c1", 2)
	if err := deleteLink(e.host, portName(e.cfg.EngineID, r.EndpointKey)); err != nil {
		t.Fatal(err)
	}
	return e, r
}

// An endpoint whose link somebody has deleted, and that could not be made again,
// stays unmade: half of it would be taken for the whole the next time.
func TestAttachAgainThatFails(t *testing.T) {
	e, r := cutOff(t, "again", "10.90.1.0/24")
	wrong := r
	wrong.Gateway = netip.MustParseAddr("192.0.2.1") // cannot be reached from there
	for range 2 {
		if _, err := e.Attach(t.Context(), wrong); err == nil {
			t.Fatal("attached without a route")
		}
	}
	ep, err := e.Attach(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	mustReach(t, ep.Namespace, "10.90.1.9", "10.90.1.2")
}

// TestAttachAgainKilledHalfWay: a driver was killed when it had put the new link of an
// endpoint on the bridge and had not yet set up the container's end.
func TestAttachAgainKilledHalfWay(t *testing.T) {
	e, r := cutOff(t, "half", "10.91.1.0/24")
	b, err := e.findBridge(r.Network)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := e.namespace(r, true)
	if err != nil {
		t.Fatal(err)
	}
	s, err := makeSpare(e.links, e.cfg.EngineID, ns, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	p := e.planOf(r, b, nil, true)
	p.Port, p.Inner = s.port, s.inner
	outside, _ := planEndpoint(p)
	if _, err := e.links.run(outside...); err != nil {
		t.Fatal(err)
	}
	e.open(e.cfg)
	ep, err := e.Attach(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	mustReach(t, ep.Namespace, "10.91.1.9", "10.91.1.2")
}

// TestKilledWithAHalfMadeLink: a driver was killed when it had made a link in a namespace
// that lives on, and had not named it yet. The next one takes it away.
func TestKilledWithAHalfMadeLink(t *testing.T) {
	e := newEngine(t, "nameless")
	n := e.network("aa11", "10.95.1.0/24", nil)
	first := e.attach(n, "c1", 2, nil)
	ns, err := e.holder.open(request4(n, "c1", 2).EndpointKey, first.Namespace.Inode)
	if err != nil {
		t.Fatal(err)
	}
	s, err := makeSpare(e.links, e.cfg.EngineID, ns, "eth1")
	if err != nil {
		t.Fatal(err)
	}
	port := s.port
	s.close()
	e.open(e.cfg)
	waitFor(t, "the link to go", func() bool {
		_, err := e.links.run(askLink{Index: port})
		return errors.Is(err, unix.ENODEV)
	})
	m := e.network("bb22", "10.95.2.0/24", nil)
	second := e.attach(m, "c1", 2, func(r *netdriver.Attach) { r.Join = first.Namespace })
	if second.Interface != "eth1" {
		t.Errorf("the second link is %s, want eth1", second.Interface)
	}
}
