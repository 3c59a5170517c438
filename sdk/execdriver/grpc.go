package execdriver

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// Client is a driver in another process.
type Client struct {
	*driver.Client
	rpc driverv1.ExecDriverClient
}

var _ Driver = (*Client)(nil)

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
	_, err := c.rpc.Signal(ctx, &driverv1.SignalRequest{Container: k.Container, Run: k.Run, Signal: int64(signal)})
	return driver.FromStatus(err)
}

func (s *server) Signal(ctx context.Context, r *driverv1.SignalRequest) (*driverv1.SignalResponse, error) {
	k := Key{Container: r.GetContainer(), Run: r.GetRun()}
	return &driverv1.SignalResponse{}, driver.ToStatus(s.driver.Signal(ctx, k, int(r.GetSignal())))
}

// Release asks the driver's process.
func (c *Client) Release(ctx context.Context, k Key) error {
	_, err := c.rpc.Release(ctx, &driverv1.ReleaseRequest{Container: k.Container, Run: k.Run})
	return driver.FromStatus(err)
}

func (s *server) Release(ctx context.Context, r *driverv1.ReleaseRequest) (*driverv1.ReleaseResponse, error) {
	k := Key{Container: r.GetContainer(), Run: r.GetRun()}
	return &driverv1.ReleaseResponse{}, driver.ToStatus(s.driver.Release(ctx, k))
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
	m := &driverv1.Exit{
		Container: e.Container, Run: e.Run, Code: int64(e.Code), Signal: int64(e.Signal),
		OomKilled: e.OOMKilled, Lost: e.Lost, Reason: e.Reason,
	}
	if !e.Time.IsZero() {
		m.Time = timestamppb.New(e.Time)
	}
	return m
}

func exitFromProto(m *driverv1.Exit) Exit {
	e := Exit{
		Key:  Key{Container: m.GetContainer(), Run: m.GetRun()},
		Code: int(m.GetCode()), Signal: int(m.GetSignal()),
		OOMKilled: m.GetOomKilled(), Lost: m.GetLost(), Reason: m.GetReason(),
	}
	if m.GetTime() != nil {
		e.Time = m.GetTime().AsTime()
	} else {
		e.Time = time.Time{}
	}
	return e
}

func startToProto(r Start) *driverv1.StartRequest {
	return &driverv1.StartRequest{
		Container: r.Container, Run: r.Run,
		Name: r.Name, Hostname: r.Hostname, Domain: r.Domain,
		Rootfs: driver.MountsToProto(r.Rootfs), ReadOnly: r.ReadOnly, Mounts: driver.MountsToProto(r.Mounts),
		IdMap:   driver.IDMapToProto(r.IDMap),
		Network: netdriver.NamespaceToProto(r.Network),
		Process: &driverv1.Process{
			Args: r.Process.Args, Env: r.Process.Env, Cwd: r.Process.Cwd, User: r.Process.User,
		},
		Resources: &driverv1.Resources{
			MemoryBytes: r.Resources.MemoryBytes, NanoCpus: r.Resources.NanoCPUs, PidsLimit: r.Resources.PidsLimit,
		},
		Security: &driverv1.Security{
			Privileged: r.Security.Privileged, CapAdd: r.Security.CapAdd, CapDrop: r.Security.CapDrop,
			NoNewPrivileges: r.Security.NoNewPrivileges, Seccomp: r.Security.Seccomp,
		},
		Stdio: &driverv1.Stdio{
			OpenStdin: r.Stdio.OpenStdin, WaitAttach: r.Stdio.WaitAttach,
			Log: &driverv1.LogConfig{
				Driver: r.Stdio.Log.Driver, MaxBytes: r.Stdio.Log.MaxBytes, MaxFiles: int64(r.Stdio.Log.MaxFiles),
			},
		},
	}
}

func startFromProto(r *driverv1.StartRequest) Start {
	p, limits, security, stdio := r.GetProcess(), r.GetResources(), r.GetSecurity(), r.GetStdio()
	return Start{
		Key:  Key{Container: r.GetContainer(), Run: r.GetRun()},
		Name: r.GetName(), Hostname: r.GetHostname(), Domain: r.GetDomain(),
		Rootfs: driver.MountsFromProto(r.GetRootfs()), ReadOnly: r.GetReadOnly(),
		Mounts:  driver.MountsFromProto(r.GetMounts()),
		IDMap:   driver.IDMapFromProto(r.GetIdMap()),
		Network: netdriver.NamespaceFromProto(r.GetNetwork()),
		Process: Process{Args: p.GetArgs(), Env: p.GetEnv(), Cwd: p.GetCwd(), User: p.GetUser()},
		Resources: Resources{
			MemoryBytes: limits.GetMemoryBytes(), NanoCPUs: limits.GetNanoCpus(), PidsLimit: limits.GetPidsLimit(),
		},
		Security: Security{
			Privileged: security.GetPrivileged(), CapAdd: security.GetCapAdd(), CapDrop: security.GetCapDrop(),
			NoNewPrivileges: security.GetNoNewPrivileges(), Seccomp: security.GetSeccomp(),
		},
		Stdio: Stdio{
			OpenStdin: stdio.GetOpenStdin(), WaitAttach: stdio.GetWaitAttach(),
			Log: LogConfig{
				Driver: stdio.GetLog().GetDriver(), MaxBytes: stdio.GetLog().GetMaxBytes(),
				MaxFiles: int(stdio.GetLog().GetMaxFiles()),
			},
		},
	}
}
