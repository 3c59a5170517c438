package graphdriver

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
	"github.com/gantryd/gantry/sdk/driver"
)

// AbilityDiff says that the driver is a Differ.
const AbilityDiff = "diff"

// AsDiffer is d as a Differ, if it says by Info that it is one.
func AsDiffer(ctx context.Context, d Driver) (Differ, bool) {
	differ, ok := d.(Differ)
	if !ok {
		return nil, false
	}
	info, err := d.Info(ctx)
	return differ, err == nil && slices.Contains(info.Abilities, AbilityDiff)
}

// Client is a driver in another process. It has every method of every ability;
// what the driver lacks answers Unimplemented.
type Client struct {
	*driver.Client
	rpc driverv1.GraphDriverClient
}

var (
	_ Driver = (*Client)(nil)
	_ Differ = (*Client)(nil)
)

// NewClient speaks to the graph driver behind a connection.
func NewClient(cc grpc.ClientConnInterface) *Client {
	return &Client{Client: driver.NewClient(cc), rpc: driverv1.NewGraphDriverClient(cc)}
}

// server serves a Driver.
type server struct {
	driverv1.UnimplementedGraphDriverServer
	driver Driver
}

// ApplyLayer asks the driver's process.
func (c *Client) ApplyLayer(ctx context.Context, r ApplyLayer, p driver.Progress) (Layer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := c.rpc.ApplyLayer(ctx, &driverv1.ApplyLayerRequest{
		Id: r.ID, Parent: r.Parent, Archive: r.Archive,
		Digest: r.Digest, DiffId: r.DiffID, MediaType: r.MediaType,
	})
	if err != nil {
		return Layer{}, driver.FromStatus(err)
	}
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return Layer{}, driver.Errorf(errdefs.ErrInternal, "apply layer %s: the driver ended without an answer", r.ID)
		}
		if err != nil {
			return Layer{}, driver.FromStatus(err)
		}
		if l := m.GetLayer(); l != nil {
			return Layer{ID: l.GetId(), Size: l.GetSize()}, nil
		}
		if s := m.GetProgress(); s != nil && p != nil {
			p(s.GetDone(), s.GetTotal(), s.GetWhat())
		}
	}
}

func (s *server) ApplyLayer(r *driverv1.ApplyLayerRequest, out grpc.ServerStreamingServer[driverv1.ApplyLayerResponse]) error {
	progress, stop := driver.ProgressSender(func(p *driverv1.Progress) error {
		return out.Send(&driverv1.ApplyLayerResponse{Message: &driverv1.ApplyLayerResponse_Progress{Progress: p}})
	})
	defer stop()
	l, err := s.driver.ApplyLayer(out.Context(), ApplyLayer{
		ID: r.GetId(), Parent: r.GetParent(), Archive: r.GetArchive(),
		Digest: r.GetDigest(), DiffID: r.GetDiffId(), MediaType: r.GetMediaType(),
	}, progress)
	stop()
	if err != nil {
		return driver.ToStatus(err)
	}
	return out.Send(&driverv1.ApplyLayerResponse{Message: &driverv1.ApplyLayerResponse_Layer{
		Layer: &driverv1.Layer{Id: l.ID, Size: l.Size},
	}})
}

// RemoveLayer asks the driver's process.
func (c *Client) RemoveLayer(ctx context.Context, id string) error {
	_, err := c.rpc.RemoveLayer(ctx, &driverv1.RemoveLayerRequest{Id: id})
	return driver.FromStatus(err)
}

func (s *server) RemoveLayer(ctx context.Context, r *driverv1.RemoveLayerRequest) (*driverv1.RemoveLayerResponse, error) {
	return &driverv1.RemoveLayerResponse{}, driver.ToStatus(s.driver.RemoveLayer(ctx, r.GetId()))
}

// PrepareRootfs asks the driver's process.
func (c *Client) PrepareRootfs(ctx context.Context, r PrepareRootfs) ([]driver.Mount, error) {
	answer, err := c.rpc.PrepareRootfs(ctx, &driverv1.PrepareRootfsRequest{
		Container: r.Container, Layer: r.Layer,
		IdMap: driver.IDMapToProto(r.IDMap), Targets: driver.TargetsToProto(r.Targets),
	})
	if err != nil {
		return nil, driver.FromStatus(err)
	}
	return driver.MountsFromProto(answer.GetMounts()), nil
}

func (s *server) PrepareRootfs(ctx context.Context, r *driverv1.PrepareRootfsRequest) (*driverv1.PrepareRootfsResponse, error) {
	mounts, err := s.driver.PrepareRootfs(ctx, PrepareRootfs{
		Container: r.GetContainer(), Layer: r.GetLayer(),
		IDMap: driver.IDMapFromProto(r.GetIdMap()), Targets: driver.TargetsFromProto(r.GetTargets()),
	})
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	return &driverv1.PrepareRootfsResponse{Mounts: driver.MountsToProto(mounts)}, nil
}

// ReleaseRootfs asks the driver's process.
func (c *Client) ReleaseRootfs(ctx context.Context, container string) error {
	_, err := c.rpc.ReleaseRootfs(ctx, &driverv1.ReleaseRootfsRequest{Container: container})
	return driver.FromStatus(err)
}

func (s *server) ReleaseRootfs(ctx context.Context, r *driverv1.ReleaseRootfsRequest) (*driverv1.ReleaseRootfsResponse, error) {
	return &driverv1.ReleaseRootfsResponse{}, driver.ToStatus(s.driver.ReleaseRootfs(ctx, r.GetContainer()))
}

// Diff asks the driver's process.
func (c *Client) Diff(ctx context.Context, container string, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := c.rpc.Diff(ctx, &driverv1.DiffRequest{Container: container})
	if err != nil {
		return driver.FromStatus(err)
	}
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return driver.FromStatus(err)
		}
		if _, err := w.Write(m.GetData()); err != nil {
			return err
		}
	}
}

func (s *server) Diff(r *driverv1.DiffRequest, out grpc.ServerStreamingServer[driverv1.DiffResponse]) error {
	differ, ok := s.driver.(Differ)
	if !ok {
		return driver.ToStatus(driver.Errorf(errdefs.ErrNotImplemented, "this driver cannot tell what a container has written"))
	}
	return driver.ToStatus(differ.Diff(out.Context(), r.GetContainer(), diffWriter{out}))
}

// diffChunk bounds one message of a diff, in bytes.
const diffChunk = 256 << 10

// diffWriter sends what is written to it in pieces of at most diffChunk.
type diffWriter struct {
	out grpc.ServerStreamingServer[driverv1.DiffResponse]
}

func (w diffWriter) Write(p []byte) (int, error) {
	written := 0
	for chunk := range slices.Chunk(p, diffChunk) {
		if err := w.out.Send(&driverv1.DiffResponse{Data: chunk}); err != nil {
			return written, err
		}
		written += len(chunk)
	}
	return written, nil
}
