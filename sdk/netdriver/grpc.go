package netdriver

import (
	"context"
	"net/netip"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
	"github.com/gantryd/gantry/sdk/driver"
)

// Client is a driver in another process.
type Client struct {
	*driver.Client
	rpc driverv1.NetDriverClient
}

var _ Driver = (*Client)(nil)

// NewClient speaks to the net driver behind a connection.
func NewClient(cc grpc.ClientConnInterface) *Client {
	return &Client{Client: driver.NewClient(cc), rpc: driverv1.NewNetDriverClient(cc)}
}

// server serves a Driver.
type server struct {
	driverv1.UnimplementedNetDriverServer
	driver Driver
}

// CreateNetwork asks the driver's process.
func (c *Client) CreateNetwork(ctx context.Context, n Network) error {
	_, err := c.rpc.CreateNetwork(ctx, &driverv1.CreateNetworkRequest{
		Id: n.ID, Name: n.Name, Subnet: prefixText(n.Subnet), Gateway: addrText(n.Gateway),
		Options: n.Options, Internal: n.Internal,
	})
	return driver.FromStatus(err)
}

func (s *server) CreateNetwork(ctx context.Context, r *driverv1.CreateNetworkRequest) (*driverv1.CreateNetworkResponse, error) {
	subnet, err := parsePrefix("subnet", r.GetSubnet())
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	gateway, err := parseAddr("gateway", r.GetGateway())
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	return &driverv1.CreateNetworkResponse{}, driver.ToStatus(s.driver.CreateNetwork(ctx, Network{
		ID: r.GetId(), Name: r.GetName(), Subnet: subnet, Gateway: gateway,
		Options: r.GetOptions(), Internal: r.GetInternal(),
	}))
}

// RemoveNetwork asks the driver's process.
func (c *Client) RemoveNetwork(ctx context.Context, id string) error {
	_, err := c.rpc.RemoveNetwork(ctx, &driverv1.RemoveNetworkRequest{Id: id})
	return driver.FromStatus(err)
}

func (s *server) RemoveNetwork(ctx context.Context, r *driverv1.RemoveNetworkRequest) (*driverv1.RemoveNetworkResponse, error) {
	return &driverv1.RemoveNetworkResponse{}, driver.ToStatus(s.driver.RemoveNetwork(ctx, r.GetId()))
}

// Attach asks the driver's process.
func (c *Client) Attach(ctx context.Context, r Attach) (Endpoint, error) {
	answer, err := c.rpc.Attach(ctx, &driverv1.AttachRequest{
		Network: r.Network, Container: r.Container, Run: r.Run,
		Hostname: r.Hostname, Names: r.Names,
		Address: prefixText(r.Address), Gateway: addrText(r.Gateway), Mac: r.MAC, Dns: r.DNS,
		Join: NamespaceToProto(r.Join), UserNs: NamespaceToProto(r.UserNS),
	})
	if err != nil {
		return Endpoint{}, driver.FromStatus(err)
	}
	return Endpoint{
		Namespace: NamespaceFromProto(answer.GetNamespace()),
		Interface: answer.GetInterface(),
		Files:     driver.MountsFromProto(answer.GetFiles()),
	}, nil
}

func (s *server) Attach(ctx context.Context, r *driverv1.AttachRequest) (*driverv1.AttachResponse, error) {
	address, err := parsePrefix("address", r.GetAddress())
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	gateway, err := parseAddr("gateway", r.GetGateway())
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	e, err := s.driver.Attach(ctx, Attach{
		EndpointKey: EndpointKey{Network: r.GetNetwork(), Container: r.GetContainer(), Run: r.GetRun()},
		Hostname:    r.GetHostname(), Names: r.GetNames(),
		Address: address, Gateway: gateway, MAC: r.GetMac(), DNS: r.GetDns(),
		Join: NamespaceFromProto(r.GetJoin()), UserNS: NamespaceFromProto(r.GetUserNs()),
	})
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	return &driverv1.AttachResponse{
		Namespace: NamespaceToProto(e.Namespace),
		Interface: e.Interface,
		Files:     driver.MountsToProto(e.Files),
	}, nil
}

// Detach asks the driver's process.
func (c *Client) Detach(ctx context.Context, k EndpointKey) error {
	_, err := c.rpc.Detach(ctx, &driverv1.DetachRequest{Network: k.Network, Container: k.Container, Run: k.Run})
	return driver.FromStatus(err)
}

func (s *server) Detach(ctx context.Context, r *driverv1.DetachRequest) (*driverv1.DetachResponse, error) {
	k := EndpointKey{Network: r.GetNetwork(), Container: r.GetContainer(), Run: r.GetRun()}
	return &driverv1.DetachResponse{}, driver.ToStatus(s.driver.Detach(ctx, k))
}

// NamespaceToProto maps a namespace to the wire.
func NamespaceToProto(n Namespace) *driverv1.Namespace {
	if n == (Namespace{}) {
		return nil
	}
	return &driverv1.Namespace{Mode: n.Mode, Path: n.Path, Inode: n.Inode}
}

// NamespaceFromProto maps a namespace from the wire.
func NamespaceFromProto(n *driverv1.Namespace) Namespace {
	return Namespace{Mode: n.GetMode(), Path: n.GetPath(), Inode: n.GetInode()}
}

func prefixText(p netip.Prefix) string {
	if p == (netip.Prefix{}) {
		return ""
	}
	return p.String()
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func parsePrefix(field, text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, driver.Errorf(errdefs.ErrInvalidArgument, "%s %q: %w", field, text, err)
	}
	return p, nil
}

func parseAddr(field, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, driver.Errorf(errdefs.ErrInvalidArgument, "%s %q: %w", field, text, err)
	}
	return a, nil
}
