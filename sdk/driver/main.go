package driver

import (
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// Main is the Main of every kind: it serves the driver that open makes, by its
// kind's service, until the host ends it, and returns the exit status.
func Main[D Common](kind string, open func(Config) (D, error), service func(D) Service) int {
	return Serve(kind, func(c Config) (Service, error) {
		d, err := open(c)
		if err != nil {
			return Service{}, err
		}
		return service(d), nil
	})
}

// Plugin is what the kinds' sides of the host share for go-plugin.
type Plugin struct{ plugin.NetRPCUnsupportedPlugin }

// GRPCServer is never asked of the host's side; a driver serves by Main.
func (Plugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return nil }
