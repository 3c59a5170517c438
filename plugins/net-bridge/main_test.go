package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

const insideVariable = "GANTRY_TEST_INSIDE"

// TestMain runs the tests in a network namespace made for them, so that the
// machine's own links, routes and rules are never touched.
func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) == "" && os.Geteuid() == 0 {
		os.Exit(again())
	}
	if text := os.Getenv(victimVariable); text != "" {
		fmt.Fprintln(os.Stderr, "victim:", runVictim(text))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func again() int {
	dir, err := os.MkdirTemp("", "gantry-bridge")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	build := exec.Command("gcc", "-std=gnu11", "-Os", "-static", "-Wall", "-Wextra", "-Werror",
		"-o", filepath.Join(dir, holderProgram), "holder/holder.c")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the namespace holder:", err)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVariable+"="+dir, driver.EnvLibexec+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in a network namespace:", err)
		return 1
	}
	return 0
}

// engine is a driver under test with an engine's name and directories.
type engine struct {
	*Driver
	t      testing.TB
	beside bool // another engine lives in the test's namespace
}

func newEngine(t testing.TB, name string) *engine {
	t.Helper()
	dir := os.Getenv(insideVariable)
	if dir == "" {
		t.Skip("needs root: it makes links and namespaces")
	}
	cfg := testConfig(t, name, dir)
	e := &engine{t: t}
	e.open(cfg)
	t.Cleanup(e.end)
	return e
}

// testConfig puts the Run directory on tmpfs, where it belongs.
func testConfig(t testing.TB, name, libexec string) driver.Config {
	t.Helper()
	run, err := os.MkdirTemp("/dev/shm", "gantry-bridge")
	if err != nil {
		run = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	return driver.Config{
		EngineID: "id-of-" + name, EngineName: name, Libexec: libexec, Run: filepath.Join(run, "run"),
	}
}

func (e *engine) open(cfg driver.Config) {
	e.t.Helper()
	if e.Driver != nil {
		_ = e.Close() // a second time is an error, and harmless
	}
	d, err := New(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	e.Driver = d.(*Driver)
}

// end gives everything back and checks that nothing of the engine is left.
func (e *engine) end() {
	items, err := e.List(e.t.Context())
	if err != nil {
		e.t.Error(err)
	}
	for i := len(items) - 1; i >= 0; i-- {
		it := items[i]
		if it.Kind == "endpoint" {
			err = e.Detach(e.t.Context(), netdriver.EndpointKey{Network: it.Network, Container: it.Key, Run: it.Run})
		} else {
			err = e.RemoveNetwork(e.t.Context(), it.Key)
		}
		if err != nil {
			e.t.Error(err)
		}
	}
	if err := e.holder.quit(); err != nil {
		e.t.Error(err)
	}
	waitFor(e.t, "links of the engine to go", func() bool { return e.beside || len(ownLinks(e.t)) == 0 })
	tables, err := (&nftables.Conn{}).ListTables()
	if err != nil {
		e.t.Error(err)
	}
	for _, x := range tables {
		if x.Name == tableName(e.cfg.EngineName) {
			e.t.Errorf("nftables table %s is left", x.Name)
		}
	}
	if err := e.Close(); err != nil {
		e.t.Error(err)
	}
}

// ownLinks lists the links in the test's namespace that any engine has made,
// without those made ahead.
func ownLinks(t testing.TB) []string {
	t.Helper()
	all, err := whole(netlink.LinkList)
	if err != nil {
		t.Fatal(err)
	}
	var own []string
	for _, l := range all {
		n, spare := l.Attrs().Name, strings.HasSuffix(l.Attrs().Alias, " spare")
		if strings.HasPrefix(n, bridgePrefix) || strings.HasPrefix(n, pairPrefix) && !spare {
			own = append(own, n)
		}
	}
	return own
}

func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// network makes a network of /24 with gateway .1.
func (e *engine) network(id, subnet string, change func(*netdriver.Network)) netdriver.Network {
	e.t.Helper()
	p := netip.MustParsePrefix(subnet)
	n := netdriver.Network{ID: id, Name: id, Subnet: p, Gateway: p.Addr().Next()}
	if change != nil {
		change(&n)
	}
	if err := e.CreateNetwork(e.t.Context(), n); err != nil {
		e.t.Fatal(err)
	}
	return n
}

// attach attaches a container with the address that ends in host.
func (e *engine) attach(n netdriver.Network, container string, host byte, change func(*netdriver.Attach)) netdriver.Endpoint {
	e.t.Helper()
	r := request4(n, container, host)
	if change != nil {
		change(&r)
	}
	ep, err := e.Attach(e.t.Context(), r)
	if err != nil {
		e.t.Fatal(err)
	}
	return ep
}

func request4(n netdriver.Network, container string, host byte) netdriver.Attach {
	b := n.Subnet.Addr().As4()
	b[3] = host
	return netdriver.Attach{
		EndpointKey: netdriver.EndpointKey{Network: n.ID, Container: container, Run: 1},
		Hostname:    container, Address: netip.PrefixFrom(netip.AddrFrom4(b), n.Subnet.Bits()), Gateway: n.Gateway,
	}
}

// in calls f on a thread inside an endpoint's namespace. What fails there is to be
// returned: f runs in a goroutine of its own, which must not end the test.
func in(t *testing.T, ns netdriver.Namespace, f func() error) {
	t.Helper()
	fd, err := openNamespace(ns, unix.CLONE_NEWNET)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := inNamespace(fd, f); err != nil {
		t.Fatal(err)
	}
}
