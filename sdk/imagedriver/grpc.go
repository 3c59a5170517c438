package imagedriver

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
	"github.com/gantryd/gantry/sdk/driver"
)

// Client is a driver in another process.
type Client struct {
	*driver.Client
	rpc driverv1.ImageDriverClient
}

var _ Driver = (*Client)(nil)

// NewClient speaks to the image driver behind a connection.
func NewClient(cc grpc.ClientConnInterface) *Client {
	return &Client{Client: driver.NewClient(cc), rpc: driverv1.NewImageDriverClient(cc)}
}

// server serves a Driver.
type server struct {
	driverv1.UnimplementedImageDriverServer
	driver Driver
}

// Load asks the driver's process.
func (c *Client) Load(ctx context.Context, r Load, p driver.Progress) ([]Image, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := c.rpc.Load(ctx, &driverv1.LoadRequest{Archive: r.Archive, Platform: r.Platform})
	if err != nil {
		return nil, driver.FromStatus(err)
	}
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil, driver.Errorf(errdefs.ErrInternal, "load %s: the driver ended without an answer", r.Archive)
		}
		if err != nil {
			return nil, driver.FromStatus(err)
		}
		if found := m.GetImages(); found != nil {
			return imagesFromProto(found), nil
		}
		if s := m.GetProgress(); s != nil && p != nil {
			p(s.GetDone(), s.GetTotal(), s.GetWhat())
		}
	}
}

func (s *server) Load(r *driverv1.LoadRequest, out grpc.ServerStreamingServer[driverv1.LoadResponse]) error {
	progress, stop := driver.ProgressSender(func(p *driverv1.Progress) error {
		return out.Send(&driverv1.LoadResponse{Message: &driverv1.LoadResponse_Progress{Progress: p}})
	})
	defer stop()
	found, err := s.driver.Load(out.Context(), Load{Archive: r.GetArchive(), Platform: r.GetPlatform()}, progress)
	stop()
	if err != nil {
		return driver.ToStatus(err)
	}
	return out.Send(&driverv1.LoadResponse{Message: &driverv1.LoadResponse_Images{Images: imagesToProto(found)}})
}

// Name asks the driver's process.
func (c *Client) Name(ctx context.Context, image string, names []string) error {
	_, err := c.rpc.Name(ctx, &driverv1.NameRequest{Image: image, Names: names})
	return driver.FromStatus(err)
}

func (s *server) Name(ctx context.Context, r *driverv1.NameRequest) (*driverv1.NameResponse, error) {
	return &driverv1.NameResponse{}, driver.ToStatus(s.driver.Name(ctx, r.GetImage(), r.GetNames()))
}

// Remove asks the driver's process.
func (c *Client) Remove(ctx context.Context, image string) error {
	_, err := c.rpc.Remove(ctx, &driverv1.RemoveRequest{Image: image})
	return driver.FromStatus(err)
}

func (s *server) Remove(ctx context.Context, r *driverv1.RemoveRequest) (*driverv1.RemoveResponse, error) {
	return &driverv1.RemoveResponse{}, driver.ToStatus(s.driver.Remove(ctx, r.GetImage()))
}

func imagesToProto(images []Image) *driverv1.Images {
	result := &driverv1.Images{}
	for _, i := range images {
		m := &driverv1.Image{
			Id: i.ID, Manifest: i.Manifest, Names: i.Names, Size: i.Size,
			Architecture: i.Architecture, Os: i.OS, Config: configToProto(i.Config),
		}
		if !i.Created.IsZero() {
			m.Created = timestamppb.New(i.Created)
		}
		for _, l := range i.Layers {
			m.Layers = append(m.Layers, &driverv1.ImageLayer{
				ChainId: l.ChainID, DiffId: l.DiffID, Digest: l.Digest,
				MediaType: l.MediaType, Size: l.Size, Path: l.Path,
			})
		}
		result.Images = append(result.Images, m)
	}
	return result
}

func imagesFromProto(images *driverv1.Images) []Image {
	var result []Image
	for _, m := range images.GetImages() {
		i := Image{
			ID: m.GetId(), Manifest: m.GetManifest(), Names: m.GetNames(), Size: m.GetSize(),
			Created:      timeFromProto(m.GetCreated()),
			Architecture: m.GetArchitecture(), OS: m.GetOs(), Config: configFromProto(m.GetConfig()),
		}
		for _, l := range m.GetLayers() {
			i.Layers = append(i.Layers, Layer{
				ChainID: l.GetChainId(), DiffID: l.GetDiffId(), Digest: l.GetDigest(),
				MediaType: l.GetMediaType(), Size: l.GetSize(), Path: l.GetPath(),
			})
		}
		result = append(result, i)
	}
	return result
}

// timeFromProto keeps "does not say" apart from 1970.
func timeFromProto(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func configToProto(c Config) *driverv1.ImageConfig {
	return &driverv1.ImageConfig{
		User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd,
		WorkingDir: c.WorkingDir, StopSignal: c.StopSignal, Labels: c.Labels,
		ExposedPorts: c.ExposedPorts, Volumes: c.Volumes, Health: healthToProto(c.Health),
	}
}

func healthToProto(h *Health) *driverv1.ImageHealth {
	if h == nil {
		return nil
	}
	return &driverv1.ImageHealth{
		Test: h.Test, Interval: durationpb.New(h.Interval), Timeout: durationpb.New(h.Timeout),
		StartPeriod: durationpb.New(h.StartPeriod), StartInterval: durationpb.New(h.StartInterval), Retries: int64(h.Retries),
	}
}

func healthFromProto(h *driverv1.ImageHealth) *Health {
	if h == nil {
		return nil
	}
	return &Health{
		Test: h.GetTest(), Interval: h.GetInterval().AsDuration(), Timeout: h.GetTimeout().AsDuration(),
		StartPeriod: h.GetStartPeriod().AsDuration(), StartInterval: h.GetStartInterval().AsDuration(), Retries: int(h.GetRetries()),
	}
}

func configFromProto(c *driverv1.ImageConfig) Config {
	return Config{
		User: c.GetUser(), Env: c.GetEnv(), Entrypoint: c.GetEntrypoint(), Cmd: c.GetCmd(),
		WorkingDir: c.GetWorkingDir(), StopSignal: c.GetStopSignal(), Labels: c.GetLabels(),
		ExposedPorts: c.GetExposedPorts(), Volumes: c.GetVolumes(), Health: healthFromProto(c.GetHealth()),
	}
}
