package execdriver

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
	"github.com/gantryd/gantry/sdk/driver"
)

// Client is a driver in another process. It has every method of every ability;
// what the driver lacks answers Unimplemented by the ability's name.
type Client struct {
	*driver.Client
	rpc driverv1.ExecDriverClient
}

var (
	_ Driver         = (*Client)(nil)
	_ Execer         = (*Client)(nil)
	_ Freezer        = (*Client)(nil)
	_ Updater        = (*Client)(nil)
	_ Meter          = (*Client)(nil)
	_ Copier         = (*Client)(nil)
	_ UserNamespacer = (*Client)(nil)
	_ OOMWatcher     = (*Client)(nil)
)

// Has reports whether the driver says by Info that it has an ability. A value
// of another process has the methods of all.
func Has(ctx context.Context, d Driver, ability string) bool {
	info, err := d.Info(ctx)
	return err == nil && slices.Contains(info.Abilities, ability)
}

// NewClient speaks to the exec driver behind a connection.
func NewClient(cc grpc.ClientConnInterface) *Client {
	return &Client{Client: driver.NewClient(cc), rpc: driverv1.NewExecDriverClient(cc)}
}

// server serves a Driver.
type server struct {
	driverv1.UnimplementedExecDriverServer
	driver Driver
}

// Start asks the driver's process.
func (c *Client) Start(ctx context.Context, r Start) (Started, error) {
	answer, err := c.rpc.Start(ctx, startToProto(r))
	if err != nil {
		return Started{}, driver.FromStatus(err)
	}
	return Started{PID: int(answer.GetPid()), Log: answer.GetLog()}, nil
}

func (s *server) Start(ctx context.Context, r *driverv1.StartRequest) (*driverv1.StartResponse, error) {
	started, err := s.driver.Start(ctx, startFromProto(r))
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	return &driverv1.StartResponse{Pid: int64(started.PID), Log: started.Log}, nil
}

// Signal asks the driver's process.
func (c *Client) Signal(ctx context.Context, k Key, signal int) error {
	_, err := c.rpc.Signal(ctx, &driverv1.SignalRequest{
		Container: k.Container, Run: k.Run, Exec: k.Exec, Signal: int64(signal),
	})
	return driver.FromStatus(err)
}

func (s *server) Signal(ctx context.Context, r *driverv1.SignalRequest) (*driverv1.SignalResponse, error) {
	k := Key{Container: r.GetContainer(), Run: r.GetRun(), Exec: r.GetExec()}
	return &driverv1.SignalResponse{}, driver.ToStatus(s.driver.Signal(ctx, k, int(r.GetSignal())))
}

// Release asks the driver's process.
func (c *Client) Release(ctx context.Context, k Key) error {
	_, err := c.rpc.Release(ctx, &driverv1.ReleaseRequest{Container: k.Container, Run: k.Run, Exec: k.Exec})
	return driver.FromStatus(err)
}

// Purge implements Purger. A driver that does not know of it is asked twice.
func (c *Client) Purge(ctx context.Context, k Key) error {
	r, err := c.rpc.Release(ctx, &driverv1.ReleaseRequest{Container: k.Container, Run: k.Run, Exec: k.Exec, RemoveLog: true})
	if err != nil || r.GetLogRemoved() {
		return driver.FromStatus(err)
	}
	return c.RemoveLog(ctx, k.Container)
}

func (s *server) Release(ctx context.Context, r *driverv1.ReleaseRequest) (*driverv1.ReleaseResponse, error) {
	k := Key{Container: r.GetContainer(), Run: r.GetRun(), Exec: r.GetExec()}
	err := s.driver.Release(ctx, k)
	if err == nil && r.GetRemoveLog() {
		err = s.driver.RemoveLog(ctx, k.Container)
	}
	return &driverv1.ReleaseResponse{LogRemoved: r.GetRemoveLog()}, driver.ToStatus(err)
}

// RemoveLog asks the driver's process.
func (c *Client) RemoveLog(ctx context.Context, container string) error {
	_, err := c.rpc.RemoveLog(ctx, &driverv1.RemoveLogRequest{Container: container})
	return driver.FromStatus(err)
}

func (s *server) RemoveLog(ctx context.Context, r *driverv1.RemoveLogRequest) (*driverv1.RemoveLogResponse, error) {
	return &driverv1.RemoveLogResponse{}, driver.ToStatus(s.driver.RemoveLog(ctx, r.GetContainer()))
}

// Exits asks the driver's process. It returns nil when the driver has ended
// the stream, which a draining one does.
func (c *Client) Exits(ctx context.Context, f func(Exit) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := c.rpc.Exits(ctx, &driverv1.ExitsRequest{})
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
		if err := f(exitFromProto(m)); err != nil {
			return err
		}
	}
}

func (s *server) Exits(_ *driverv1.ExitsRequest, out grpc.ServerStreamingServer[driverv1.Exit]) error {
	err := s.driver.Exits(out.Context(), func(e Exit) error { return out.Send(exitToProto(e)) })
	if out.Context().Err() != nil {
		return nil // the caller has left, or the driver drains: the end that was asked for
	}
	return driver.ToStatus(err)
}

func exitToProto(e Exit) *driverv1.Exit {
	return &driverv1.Exit{
		Container: e.Container, Run: e.Run, Exec: e.Exec, Code: int64(e.Code), Signal: int64(e.Signal),
		OomKilled: e.OOMKilled, Lost: e.Lost, Reason: e.Reason,
		Time: timeToProto(e.Time), LogEnd: e.LogEnd,
	}
}

func exitFromProto(m *driverv1.Exit) Exit {
	return Exit{
		Key:  Key{Container: m.GetContainer(), Run: m.GetRun(), Exec: m.GetExec()},
		Code: int(m.GetCode()), Signal: int(m.GetSignal()),
		OOMKilled: m.GetOomKilled(), Lost: m.GetLost(), Reason: m.GetReason(),
		Time: timeFromProto(m.GetTime()), LogEnd: m.GetLogEnd(),
	}
}

// timeToProto maps a time; the zero one is absent.
func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeFromProto(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func keyToProto(k Key) *driverv1.RunKey {
	if k == (Key{}) {
		return nil
	}
	return &driverv1.RunKey{Container: k.Container, Run: k.Run, Exec: k.Exec}
}

func keyFromProto(k *driverv1.RunKey) Key {
	return Key{Container: k.GetContainer(), Run: k.GetRun(), Exec: k.GetExec()}
}
