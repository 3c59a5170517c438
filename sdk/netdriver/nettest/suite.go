// Package nettest is the contract of net drivers as tests.
//
//	func TestDriver(t *testing.T) { nettest.Run(conform.Testing(t), open) }
//
// It sees a driver from outside only: it opens the namespaces that are
// answered, enters them on a thread of its own, and looks for the interface
// and its addresses. Drivers that take no subnet (null, host) are held to the
// rest. Networks are made in 198.18.0.0/15 (RFC 2544, for tests). It needs
// CAP_SYS_ADMIN.
package nettest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

type (
	bench = conform.Bench[netdriver.Driver]
	check = conform.Check[netdriver.Driver]
)

// Run holds a driver to the contract, twice: the value that open makes, and
// the same behind a gRPC connection.
func Run(t conform.T, open func(driver.Config) (netdriver.Driver, error)) {
	t.Helper()
	t.Run("value", func(t conform.T) { Suite().Run(t, conform.Value(open)) })
	t.Run("grpc", func(t conform.T) { Suite().Run(t, OverGRPC(open)) })
}

// OverGRPC puts a gRPC connection between a driver and its user.
func OverGRPC(open func(driver.Config) (netdriver.Driver, error)) conform.Open[netdriver.Driver] {
	return conform.OverGRPC(open, netdriver.Service, func(cc grpc.ClientConnInterface) netdriver.Driver {
		return netdriver.NewClient(cc)
	})
}

// Program opens the driver program at path.
func Program(path string) conform.Open[netdriver.Driver] {
	return conform.Program[netdriver.Driver](driver.KindNet, path, netdriver.Plugin{})
}

// Suite is the contract.
func Suite() conform.Suite[netdriver.Driver] {
	s := conform.Suite[netdriver.Driver]{Kind: driver.KindNet, Sweep: sweep}
	s.Probe = func(ctx context.Context, d netdriver.Driver) error { return d.RemoveNetwork(ctx, conform.ID()) }
	s.Checks = append(s.Checks, networkChecks()...)
	s.Checks = append(s.Checks, endpointChecks()...)
	s.Checks = append(s.Checks, moreChecks()...)
	return s
}

// sweep detaches every endpoint, then removes every network.
func sweep(ctx context.Context, d netdriver.Driver) error {
	items, err := d.List(ctx)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	var errs []error
	for _, i := range items {
		if i.Kind == "endpoint" {
			k := netdriver.EndpointKey{Network: i.Network, Container: i.Key, Run: i.Run}
			if err := d.Detach(ctx, k); err != nil {
				errs = append(errs, fmt.Errorf("detach %+v: %w", k, err))
			}
		}
	}
	for _, i := range items {
		if i.Kind == "network" {
			if err := d.RemoveNetwork(ctx, i.Key); err != nil {
				errs = append(errs, fmt.Errorf("remove network %s: %w", i.Key, err))
			}
		}
	}
	return errors.Join(errs...)
}

// subnet picks a /24 of 198.18.0.0/15 at random, so that runs side by side do
// not meet.
func subnet() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(18 + rand.IntN(2)), byte(rand.IntN(256)), 0}), 24)
}

// host is the nth address of a subnet, with the subnet's length.
func host(p netip.Prefix, n int) netip.Prefix {
	if !p.IsValid() {
		return netip.Prefix{}
	}
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return netip.PrefixFrom(a, p.Bits())
}

// makeNetwork makes a network: with a subnet if the driver takes one,
// otherwise without.
func makeNetwork(ctx context.Context, b *bench) netdriver.Network {
	b.Helper()
	id := conform.ID()
	n := netdriver.Network{ID: id, Name: "net-" + id[:6]}
	var err error
	for range 8 { // a subnet may be in use on this machine
		n.Subnet = subnet()
		n.Gateway = host(n.Subnet, 1).Addr()
		if err = b.Driver().CreateNetwork(ctx, n); !errdefs.IsAlreadyExists(err) {
			break
		}
	}
	if errdefs.IsInvalidArgument(err) {
		b.Logf("this driver takes no subnet: %v", err)
		n.Subnet, n.Gateway = netip.Prefix{}, netip.Addr{}
		err = b.Driver().CreateNetwork(ctx, n)
	}
	if err != nil {
		b.Fatalf("CreateNetwork %+v: %v", n, err)
	}
	return n
}

// ask is how a container is attached to a network, with its nth address.
func ask(n netdriver.Network, index int) netdriver.Attach {
	return netdriver.Attach{
		EndpointKey: netdriver.EndpointKey{Network: n.ID, Container: conform.ID(), Run: 1},
		Hostname:    fmt.Sprintf("box%d", index), Names: []string{"alias"},
		Address: host(n.Subnet, index), Gateway: n.Gateway,
		DNS: []string{"198.18.255.253"},
	}
}

// attach attaches and ends the check if that fails.
func attach(ctx context.Context, b *bench, r netdriver.Attach) netdriver.Endpoint {
	b.Helper()
	e, err := b.Driver().Attach(ctx, r)
	if err != nil {
		b.Fatalf("Attach %+v: %v", r, err)
	}
	return e
}
