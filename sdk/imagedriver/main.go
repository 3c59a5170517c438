package imagedriver

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
	"github.com/gantryd/gantry/sdk/driver"
)

// Main is the whole main function of an image driver's program: it serves the
// driver that open makes until the host ends it, and returns the exit status.
//
//	func main() { os.Exit(imagedriver.Main(open)) }
func Main(open func(driver.Config) (Driver, error)) int {
	return driver.Main(driver.KindImage, open, Service)
}

// Service is d as driver.NewServer serves it.
func Service(d Driver) driver.Service {
	return driver.Service{
		Common: d,
		Register: func(r grpc.ServiceRegistrar) {
			driverv1.RegisterImageDriverServer(r, &server{driver: d})
		},
	}
}

// Plugin is the host's side for go-plugin: it dispenses a *Client.
type Plugin struct{ driver.Plugin }

// GRPCClient makes the *Client of a started driver.
func (Plugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, cc *grpc.ClientConn) (any, error) {
	return NewClient(cc), nil
}
