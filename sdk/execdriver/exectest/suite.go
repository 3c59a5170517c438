// Package exectest is the contract of exec drivers as tests.
//
//	func TestDriver(t *testing.T) { exectest.Run(conform.Testing(t), open) }
//
// It runs small shell scripts in a root filesystem that it builds itself, and
// lets them tell through a bind mount what they see. It needs root.
package exectest

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
)

type (
	bench = conform.Bench[execdriver.Driver]
	check = conform.Check[execdriver.Driver]
)

// Run holds a driver to the contract, twice: the value that open makes, and
// the same behind a gRPC connection. A driver that needs programs of the
// engine sets Config.Libexec in its open.
func Run(t conform.T, open func(driver.Config) (execdriver.Driver, error)) {
	t.Helper()
	rootfs := BuildRootfs(t, t.TempDir())
	t.Run("value", func(t conform.T) { Suite(rootfs).Run(t, conform.Value(open)) })
	t.Run("grpc", func(t conform.T) { Suite(rootfs).Run(t, OverGRPC(open)) })
}

// OverGRPC puts a gRPC connection between a driver and its user.
func OverGRPC(open func(driver.Config) (execdriver.Driver, error)) conform.Open[execdriver.Driver] {
	return conform.OverGRPC(open, execdriver.Service, func(cc grpc.ClientConnInterface) execdriver.Driver {
		return execdriver.NewClient(cc)
	})
}

// Program opens the driver program at path.
func Program(path string) conform.Open[execdriver.Driver] {
	return conform.Program[execdriver.Driver](driver.KindExec, path, execdriver.Plugin{})
}

// Suite is the contract. rootfs is a directory made by BuildRootfs.
func Suite(rootfs string) conform.Suite[execdriver.Driver] {
	s := conform.Suite[execdriver.Driver]{Kind: driver.KindExec, Sweep: sweep, After: removeCgroups}
	s.Probe = func(ctx context.Context, d execdriver.Driver) error {
		return d.Release(ctx, execdriver.Key{Container: conform.ID(), Run: 1})
	}
	f := fixture{rootfs}
	s.Checks = append(s.Checks, f.lifeChecks()...)
	s.Checks = append(s.Checks, f.refusalChecks()...)
	s.Checks = append(s.Checks, f.insideChecks()...)
	s.Checks = append(s.Checks, f.limitChecks()...)
	s.Checks = append(s.Checks, f.restartChecks()...)
	s.Checks = append(s.Checks, f.liveChecks()...)
	return s
}

// fixture is what the checks share.
type fixture struct{ rootfs string }

// sweep releases every run.
func sweep(ctx context.Context, d execdriver.Driver) error {
	items, err := d.List(ctx)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	var errs []error
	for _, i := range items {
		if i.Kind == "userns" {
			if u, ok := d.(execdriver.UserNamespacer); ok {
				errs = append(errs, u.ReleaseUserNS(ctx, i.Key))
			}
			continue
		}
		k := execdriver.Key{Container: i.Key, Run: i.Run, Exec: i.Exec}
		if err := d.Release(ctx, k); err != nil {
			errs = append(errs, fmt.Errorf("release %+v: %w", k, err))
		}
	}
	return errors.Join(errs...)
}
