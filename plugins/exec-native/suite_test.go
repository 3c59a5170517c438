package execnative

import (
	"testing"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/execdriver/exectest"
)

// TestContract holds the driver to the contract, in process and over gRPC.
func TestContract(t *testing.T) {
	libexec, err := buildShim()
	if err != nil {
		t.Fatal(err)
	}
	exectest.Run(conform.Testing(t), func(cfg driver.Config) (execdriver.Driver, error) {
		cfg.Libexec = libexec
		return New(cfg)
	})
}
