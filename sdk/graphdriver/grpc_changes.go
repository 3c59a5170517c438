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

// changesChunk bounds one message of a list, in changes.
const changesChunk = 1000

var _ Changer = (*Client)(nil)

// AsChanger is d as a Changer, if it says by Info that it is one.
func AsChanger(ctx context.Context, d Driver) (Changer, bool) {
	changer, ok := d.(Changer)
	if !ok {
		return nil, false
	}
	info, err := d.Info(ctx)
	return changer, err == nil && slices.Contains(info.Abilities, AbilityChanges)
}

// Changes asks the driver's process.
func (c *Client) Changes(ctx context.Context, container string) ([]Change, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := c.rpc.Changes(ctx, &driverv1.ChangesRequest{Container: container})
	if err != nil {
		return nil, driver.FromStatus(err)
	}
	var out []Change
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, driver.FromStatus(err)
		}
		for _, c := range m.GetChanges() {
			out = append(out, Change{Kind: c.GetKind(), Path: c.GetPath()})
		}
	}
}

func (s *server) Changes(r *driverv1.ChangesRequest, out grpc.ServerStreamingServer[driverv1.ChangesResponse]) error {
	changer, ok := s.driver.(Changer)
	if !ok {
		return driver.ToStatus(driver.Errorf(errdefs.ErrNotImplemented, "this driver has no ability %q", AbilityChanges))
	}
	all, err := changer.Changes(out.Context(), r.GetContainer())
	if err != nil {
		return driver.ToStatus(err)
	}
	for chunk := range slices.Chunk(all, changesChunk) {
		m := &driverv1.ChangesResponse{}
		for _, c := range chunk {
			m.Changes = append(m.Changes, &driverv1.Change{Kind: c.Kind, Path: driver.Text(c.Path)})
		}
		if err := out.Send(m); err != nil {
			return err
		}
	}
	return nil
}
