// Package graphtest is the contract of graph drivers as tests.
//
//	func TestDriver(t *testing.T) { graphtest.Run(conform.Testing(t), open) }
//
// It mounts what a driver answers, in a private mount namespace, to look at
// root filesystems as a container would. That needs CAP_SYS_ADMIN.
package graphtest

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/graphdriver"
)

type (
	bench = conform.Bench[graphdriver.Driver]
	check = conform.Check[graphdriver.Driver]
)

// Run holds a driver to the contract, twice: the value that open makes, and
// the same behind a gRPC connection. A driver that is an io.Closer is closed
// before it is opened again on the same configuration.
func Run(t conform.T, open func(driver.Config) (graphdriver.Driver, error)) {
	t.Helper()
	t.Run("value", func(t conform.T) { Suite().Run(t, conform.Value(open)) })
	t.Run("grpc", func(t conform.T) { Suite().Run(t, OverGRPC(open)) })
}

// OverGRPC puts a gRPC connection between a driver and its user.
func OverGRPC(open func(driver.Config) (graphdriver.Driver, error)) conform.Open[graphdriver.Driver] {
	return conform.OverGRPC(open, graphdriver.Service, func(cc grpc.ClientConnInterface) graphdriver.Driver {
		return graphdriver.NewClient(cc)
	})
}

// Program opens the driver program at path.
func Program(path string) conform.Open[graphdriver.Driver] {
	return conform.Program[graphdriver.Driver](driver.KindGraph, path, graphdriver.Plugin{})
}

// Suite is the contract.
func Suite() conform.Suite[graphdriver.Driver] {
	s := conform.Suite[graphdriver.Driver]{Kind: driver.KindGraph, Sweep: sweep}
	s.Probe = func(ctx context.Context, d graphdriver.Driver) error { return d.ReleaseRootfs(ctx, conform.ID()) }
	s.Checks = append(s.Checks, layerChecks()...)
	s.Checks = append(s.Checks, refusalChecks()...)
	s.Checks = append(s.Checks, rootfsChecks()...)
	s.Checks = append(s.Checks, crashChecks()...)
	s.Checks = append(s.Checks, diffChecks()...)
	s.Checks = append(s.Checks, changesChecks()...)
	return s
}

// sweep releases every root filesystem, then removes layers until none is
// left; layers stand on others, so that it may take some rounds.
func sweep(ctx context.Context, d graphdriver.Driver) error {
	for {
		items, err := d.List(ctx)
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		var last error
		given := 0
		for _, i := range items {
			if i.Kind == "rootfs" {
				if err := d.ReleaseRootfs(ctx, i.Key); err != nil {
					return fmt.Errorf("release rootfs %s: %w", i.Key, err)
				}
			}
		}
		for _, i := range items {
			if i.Kind != "layer" {
				continue
			}
			if err := d.RemoveLayer(ctx, i.Key); err != nil {
				last = fmt.Errorf("remove layer %s: %w", i.Key, err)
				continue
			}
			given++
		}
		if last == nil || given == 0 {
			return last
		}
	}
}
