package driver

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
)

// Common is what every kind of driver can do.
type Common interface {
	// Info introduces the driver.
	Info(ctx context.Context) (Info, error)
	// List tells everything held for this engine.
	List(ctx context.Context) ([]Item, error)
}

// commonServer serves what all kinds share.
type commonServer struct {
	driverv1.UnimplementedDriverServer
	driver Common
	gate   *gate
	calls  *calls
}

func (s *commonServer) Info(ctx context.Context, _ *driverv1.InfoRequest) (*driverv1.InfoResponse, error) {
	i, err := s.driver.Info(ctx)
	if err != nil {
		return nil, ToStatus(err)
	}
	return &driverv1.InfoResponse{
		Name: i.Name, Version: i.Version, Abilities: i.Abilities, Warnings: i.Warnings,
	}, nil
}

func (s *commonServer) List(_ *driverv1.ListRequest, out grpc.ServerStreamingServer[driverv1.Item]) error {
	items, err := s.driver.List(out.Context())
	if err != nil {
		return ToStatus(err)
	}
	for _, i := range items {
		if err := out.Send(itemToProto(i)); err != nil {
			return err
		}
	}
	return nil
}

func (s *commonServer) Drain(ctx context.Context, _ *driverv1.DrainRequest) (*driverv1.DrainResponse, error) {
	if err := s.gate.drain(ctx); err != nil {
		return nil, ToStatus(err)
	}
	return &driverv1.DrainResponse{}, nil
}

// Client asks a driver process what all kinds share. The clients of the kinds
// embed it.
type Client struct{ rpc driverv1.DriverClient }

// NewClient speaks to the driver behind a connection.
func NewClient(cc grpc.ClientConnInterface) *Client {
	return &Client{rpc: driverv1.NewDriverClient(cc)}
}

// Info introduces the driver.
func (c *Client) Info(ctx context.Context) (Info, error) {
	i, err := c.rpc.Info(ctx, &driverv1.InfoRequest{})
	if err != nil {
		return Info{}, FromStatus(err)
	}
	return Info{
		Name: i.GetName(), Version: i.GetVersion(), Abilities: i.GetAbilities(), Warnings: i.GetWarnings(),
	}, nil
}

// List tells everything held for this engine.
func (c *Client) List(ctx context.Context) ([]Item, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := c.rpc.List(ctx, &driverv1.ListRequest{})
	if err != nil {
		return nil, FromStatus(err)
	}
	var items []Item
	for {
		i, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return items, nil
		}
		if err != nil {
			return nil, FromStatus(err)
		}
		items = append(items, itemFromProto(i))
	}
}

// Drain lets the driver finish the calls in flight and refuse new ones. It
// returns when none is left, or when ctx ends. There is no way back: a drained
// process is ended.
func (c *Client) Drain(ctx context.Context) error {
	_, err := c.rpc.Drain(ctx, &driverv1.DrainRequest{})
	return FromStatus(err)
}

func itemToProto(i Item) *driverv1.Item {
	return &driverv1.Item{
		Kind: i.Kind, Key: i.Key, Run: i.Run, Network: i.Network, State: i.State,
		Namespace: i.Namespace, Inode: i.Inode, Pid: int64(i.PID), Exec: i.Exec,
	}
}

func itemFromProto(i *driverv1.Item) Item {
	return Item{
		Kind: i.GetKind(), Key: i.GetKey(), Run: i.GetRun(), Network: i.GetNetwork(), State: i.GetState(),
		Namespace: i.GetNamespace(), Inode: i.GetInode(), PID: int(i.GetPid()), Exec: i.GetExec(),
	}
}

// MountsToProto maps mounts to the wire.
func MountsToProto(mounts []Mount) []*driverv1.Mount {
	var result []*driverv1.Mount
	for _, m := range mounts {
		result = append(result, &driverv1.Mount{
			Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options,
		})
	}
	return result
}

// MountsFromProto maps mounts from the wire.
func MountsFromProto(mounts []*driverv1.Mount) []Mount {
	var result []Mount
	for _, m := range mounts {
		result = append(result, Mount{
			Type: m.GetType(), Source: m.GetSource(), Target: m.GetTarget(), Options: m.GetOptions(),
		})
	}
	return result
}

// IDMapToProto maps an id map to the wire.
func IDMapToProto(m IDMap) *driverv1.IDMap {
	if m.IsZero() {
		return nil
	}
	return &driverv1.IDMap{Uids: idsToProto(m.UIDs), Gids: idsToProto(m.GIDs)}
}

// IDMapFromProto maps an id map from the wire.
func IDMapFromProto(m *driverv1.IDMap) IDMap {
	return IDMap{UIDs: idsFromProto(m.GetUids()), GIDs: idsFromProto(m.GetGids())}
}

func idsToProto(ids []IDMapping) []*driverv1.IDMapping {
	var result []*driverv1.IDMapping
	for _, m := range ids {
		result = append(result, &driverv1.IDMapping{Container: m.Container, Host: m.Host, Size: m.Size})
	}
	return result
}

func idsFromProto(ids []*driverv1.IDMapping) []IDMapping {
	var result []IDMapping
	for _, m := range ids {
		result = append(result, IDMapping{Container: m.GetContainer(), Host: m.GetHost(), Size: m.GetSize()})
	}
	return result
}

// TargetsToProto maps mount points to the wire.
func TargetsToProto(targets []Target) []*driverv1.Target {
	var result []*driverv1.Target
	for _, t := range targets {
		result = append(result, &driverv1.Target{Path: t.Path, File: t.File})
	}
	return result
}

// TargetsFromProto maps mount points from the wire.
func TargetsFromProto(targets []*driverv1.Target) []Target {
	var result []Target
	for _, t := range targets {
		result = append(result, Target{Path: t.GetPath(), File: t.GetFile()})
	}
	return result
}
