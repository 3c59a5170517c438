// Package imagetest is the contract of image drivers as tests.
//
//	func TestDriver(t *testing.T) { imagetest.Run(conform.Testing(t), open) }
//
// It makes its archives itself, good and bad ones, and reads the blobs that a
// driver answers by their paths, as a graph driver would.
package imagetest

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/imagedriver"
)

type (
	bench = conform.Bench[imagedriver.Driver]
	check = conform.Check[imagedriver.Driver]
)

// Run holds a driver to the contract, twice: the value that open makes, and
// the same behind a gRPC connection.
func Run(t conform.T, open func(driver.Config) (imagedriver.Driver, error)) {
	t.Helper()
	t.Run("value", func(t conform.T) { Suite().Run(t, conform.Value(open)) })
	t.Run("grpc", func(t conform.T) { Suite().Run(t, OverGRPC(open)) })
}

// OverGRPC puts a gRPC connection between a driver and its user.
func OverGRPC(open func(driver.Config) (imagedriver.Driver, error)) conform.Open[imagedriver.Driver] {
	return conform.OverGRPC(open, imagedriver.Service, func(cc grpc.ClientConnInterface) imagedriver.Driver {
		return imagedriver.NewClient(cc)
	})
}

// Program opens the driver program at path.
func Program(path string) conform.Open[imagedriver.Driver] {
	return conform.Program[imagedriver.Driver](driver.KindImage, path, imagedriver.Plugin{})
}

// Suite is the contract.
func Suite() conform.Suite[imagedriver.Driver] {
	s := conform.Suite[imagedriver.Driver]{Kind: driver.KindImage, Sweep: sweep}
	s.Probe = func(ctx context.Context, d imagedriver.Driver) error { return d.Remove(ctx, "sha256:"+conform.ID()) }
	s.Checks = append(s.Checks, loadChecks()...)
	s.Checks = append(s.Checks, refusalChecks()...)
	s.Checks = append(s.Checks, keepChecks()...)
	return s
}

// sweep removes every image.
func sweep(ctx context.Context, d imagedriver.Driver) error {
	items, err := d.List(ctx)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	var errs []error
	for _, i := range items {
		if err := d.Remove(ctx, i.Key); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", i.Key, err))
		}
	}
	return errors.Join(errs...)
}
