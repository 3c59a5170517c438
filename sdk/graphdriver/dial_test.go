package graphdriver

import (
	"testing"

	"google.golang.org/grpc"

	"github.com/gantryd/gantry/sdk/driver"
)

// dialSocket connects to a driver's socket without go-plugin.
func dialSocket(t *testing.T, path string) *Client {
	t.Helper()
	cc, err := grpc.NewClient("unix://"+path, driver.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return NewClient(cc)
}
