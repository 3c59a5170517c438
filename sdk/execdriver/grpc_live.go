package execdriver

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// lacks answers for an ability that a driver does not have.
func lacks(ability string) error {
	return driver.ToStatus(driver.Errorf(errdefs.ErrNotImplemented, "this driver has no ability %q", ability))
}

// drain reads a stream to its end. It returns nil when the driver has ended it.
func drain[M any](in grpc.ServerStreamingClient[M], f func(*M) error) error {
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return driver.FromStatus(err)
		}
		if err := f(m); err != nil {
			return err
		}
	}
}

// Exec asks the driver's process.
func (c *Client) Exec(ctx context.Context, r Exec) (Started, error) {
	answer, err := c.rpc.Exec(ctx, &driverv1.ExecRequest{
		Key: keyToProto(r.Key), Process: processToProto(r.Process), Privileged: r.Privileged, Stdio: stdioToProto(r.Stdio),
	})
	if err != nil {
		return Started{}, driver.FromStatus(err)
	}
	return Started{PID: int(answer.GetPid()), Log: answer.GetLog()}, nil
}

func (s *server) Exec(ctx context.Context, r *driverv1.ExecRequest) (*driverv1.StartResponse, error) {
	d, ok := s.driver.(Execer)
	if !ok {
		return nil, lacks(AbilityExec)
	}
	started, err := d.Exec(ctx, Exec{
		Key: keyFromProto(r.GetKey()), Process: processFromProto(r.GetProcess()), Privileged: r.GetPrivileged(),
		Stdio: stdioFromProto(r.GetStdio()),
	})
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	return &driverv1.StartResponse{Pid: int64(started.PID), Log: started.Log}, nil
}

// Probe asks the driver's process.
func (c *Client) Probe(ctx context.Context, r Probe) (Probed, error) {
	answer, err := c.rpc.Probe(ctx, &driverv1.ProbeRequest{
		Key: keyToProto(r.Key), Process: processToProto(r.Process), Timeout: lengthToProto(r.Timeout), Keep: int64(r.Keep),
	})
	if err != nil {
		return Probed{}, driver.FromStatus(err)
	}
	return Probed{
		Code: int(answer.GetCode()), Output: answer.GetOutput(), TimedOut: answer.GetTimedOut(),
		Begun: timeFromProto(answer.GetBegun()), Ended: timeFromProto(answer.GetEnded()),
	}, nil
}

func (s *server) Probe(ctx context.Context, r *driverv1.ProbeRequest) (*driverv1.ProbeResponse, error) {
	d, ok := s.driver.(Execer)
	if !ok {
		return nil, lacks(AbilityExec)
	}
	p, err := d.Probe(ctx, Probe{
		Key: keyFromProto(r.GetKey()), Process: processFromProto(r.GetProcess()),
		Timeout: r.GetTimeout().AsDuration(), Keep: int(r.GetKeep()),
	})
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	return &driverv1.ProbeResponse{
		Code: int64(p.Code), Output: p.Output, TimedOut: p.TimedOut, Begun: timeToProto(p.Begun), Ended: timeToProto(p.Ended),
	}, nil
}

// Freeze asks the driver's process.
func (c *Client) Freeze(ctx context.Context, k Key) error {
	_, err := c.rpc.Freeze(ctx, &driverv1.FreezeRequest{Key: keyToProto(k)})
	return driver.FromStatus(err)
}

func (s *server) Freeze(ctx context.Context, r *driverv1.FreezeRequest) (*driverv1.FreezeResponse, error) {
	d, ok := s.driver.(Freezer)
	if !ok {
		return nil, lacks(AbilityFreeze)
	}
	return &driverv1.FreezeResponse{}, driver.ToStatus(d.Freeze(ctx, keyFromProto(r.GetKey())))
}

// Thaw asks the driver's process.
func (c *Client) Thaw(ctx context.Context, k Key) error {
	_, err := c.rpc.Thaw(ctx, &driverv1.ThawRequest{Key: keyToProto(k)})
	return driver.FromStatus(err)
}

func (s *server) Thaw(ctx context.Context, r *driverv1.ThawRequest) (*driverv1.ThawResponse, error) {
	d, ok := s.driver.(Freezer)
	if !ok {
		return nil, lacks(AbilityFreeze)
	}
	return &driverv1.ThawResponse{}, driver.ToStatus(d.Thaw(ctx, keyFromProto(r.GetKey())))
}

// Update asks the driver's process.
func (c *Client) Update(ctx context.Context, k Key, r Resources) error {
	_, err := c.rpc.Update(ctx, &driverv1.UpdateRequest{Key: keyToProto(k), Resources: resourcesToProto(r)})
	return driver.FromStatus(err)
}

func (s *server) Update(ctx context.Context, r *driverv1.UpdateRequest) (*driverv1.UpdateResponse, error) {
	d, ok := s.driver.(Updater)
	if !ok {
		return nil, lacks(AbilityUpdate)
	}
	return &driverv1.UpdateResponse{}, driver.ToStatus(d.Update(ctx, keyFromProto(r.GetKey()), resourcesFromProto(r.GetResources())))
}

// HoldUserNS asks the driver's process.
func (c *Client) HoldUserNS(ctx context.Context, container string, m driver.IDMap) (netdriver.Namespace, error) {
	answer, err := c.rpc.HoldUserNS(ctx, &driverv1.HoldUserNSRequest{Container: container, IdMap: driver.IDMapToProto(m)})
	if err != nil {
		return netdriver.Namespace{}, driver.FromStatus(err)
	}
	return netdriver.NamespaceFromProto(answer.GetNamespace()), nil
}

func (s *server) HoldUserNS(ctx context.Context, r *driverv1.HoldUserNSRequest) (*driverv1.HoldUserNSResponse, error) {
	d, ok := s.driver.(UserNamespacer)
	if !ok {
		return nil, lacks(AbilityUserNS)
	}
	n, err := d.HoldUserNS(ctx, r.GetContainer(), driver.IDMapFromProto(r.GetIdMap()))
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	return &driverv1.HoldUserNSResponse{Namespace: netdriver.NamespaceToProto(n)}, nil
}

// ReleaseUserNS asks the driver's process.
func (c *Client) ReleaseUserNS(ctx context.Context, container string) error {
	_, err := c.rpc.ReleaseUserNS(ctx, &driverv1.ReleaseUserNSRequest{Container: container})
	return driver.FromStatus(err)
}

func (s *server) ReleaseUserNS(ctx context.Context, r *driverv1.ReleaseUserNSRequest) (*driverv1.ReleaseUserNSResponse, error) {
	d, ok := s.driver.(UserNamespacer)
	if !ok {
		return nil, lacks(AbilityUserNS)
	}
	return &driverv1.ReleaseUserNSResponse{}, driver.ToStatus(d.ReleaseUserNS(ctx, r.GetContainer()))
}

// OOMs asks the driver's process. Like Exits it returns nil when the driver
// has ended the stream.
func (c *Client) OOMs(ctx context.Context, f func(OOM) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := c.rpc.OOMs(ctx, &driverv1.OOMsRequest{})
	if err != nil {
		return driver.FromStatus(err)
	}
	return drain(in, func(m *driverv1.OOM) error {
		return f(OOM{Key: keyFromProto(m.GetKey()), Count: m.GetCount(), Time: timeFromProto(m.GetTime())})
	})
}

func (s *server) OOMs(_ *driverv1.OOMsRequest, out grpc.ServerStreamingServer[driverv1.OOM]) error {
	d, ok := s.driver.(OOMWatcher)
	if !ok {
		return lacks(AbilityOOM)
	}
	err := d.OOMs(out.Context(), func(o OOM) error {
		return out.Send(&driverv1.OOM{Key: keyToProto(o.Key), Count: o.Count, Time: timeToProto(o.Time)})
	})
	if out.Context().Err() != nil {
		return nil // as with Exits
	}
	return driver.ToStatus(err)
}

// CopyOut asks the driver's process.
func (c *Client) CopyOut(ctx context.Context, r Copy) error {
	_, err := c.rpc.CopyOut(ctx, copyToProto(r))
	return driver.FromStatus(err)
}

func (s *server) CopyOut(ctx context.Context, r *driverv1.CopyRequest) (*driverv1.CopyResponse, error) {
	d, ok := s.driver.(Copier)
	if !ok {
		return nil, lacks(AbilityCopy)
	}
	return &driverv1.CopyResponse{}, driver.ToStatus(d.CopyOut(ctx, copyFromProto(r)))
}

// CopyIn asks the driver's process.
func (c *Client) CopyIn(ctx context.Context, r Copy) error {
	_, err := c.rpc.CopyIn(ctx, copyToProto(r))
	return driver.FromStatus(err)
}

func (s *server) CopyIn(ctx context.Context, r *driverv1.CopyRequest) (*driverv1.CopyResponse, error) {
	d, ok := s.driver.(Copier)
	if !ok {
		return nil, lacks(AbilityCopy)
	}
	return &driverv1.CopyResponse{}, driver.ToStatus(d.CopyIn(ctx, copyFromProto(r)))
}

// Stat asks the driver's process.
func (c *Client) Stat(ctx context.Context, r Copy) (PathStat, error) {
	m, err := c.rpc.Stat(ctx, copyToProto(r))
	if err != nil {
		return PathStat{}, driver.FromStatus(err)
	}
	return PathStat{
		Name: m.GetName(), Size: m.GetSize(), Mode: m.GetMode(), ModTime: timeFromProto(m.GetModTime()), Link: m.GetLink(),
	}, nil
}

func (s *server) Stat(ctx context.Context, r *driverv1.CopyRequest) (*driverv1.StatResponse, error) {
	d, ok := s.driver.(Copier)
	if !ok {
		return nil, lacks(AbilityCopy)
	}
	st, err := d.Stat(ctx, copyFromProto(r))
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	return &driverv1.StatResponse{
		Name: driver.Text(st.Name), Size: st.Size, Mode: st.Mode, ModTime: timeToProto(st.ModTime), Link: driver.Text(st.Link),
	}, nil
}

func copyToProto(r Copy) *driverv1.CopyRequest {
	return &driverv1.CopyRequest{
		Key: keyToProto(r.Key), Rootfs: driver.MountsToProto(r.Rootfs), Mounts: driver.MountsToProto(r.Mounts),
		IdMap: driver.IDMapToProto(r.IDMap), Path: r.Path, Socket: r.Socket,
		WholeRoot: r.WholeRoot, KeepIds: r.KeepIDs, Overwrite: r.Overwrite,
	}
}

func copyFromProto(m *driverv1.CopyRequest) Copy {
	return Copy{
		Key: keyFromProto(m.GetKey()), Rootfs: driver.MountsFromProto(m.GetRootfs()), Mounts: driver.MountsFromProto(m.GetMounts()),
		IDMap: driver.IDMapFromProto(m.GetIdMap()), Path: m.GetPath(), Socket: m.GetSocket(),
		WholeRoot: m.GetWholeRoot(), KeepIDs: m.GetKeepIds(), Overwrite: m.GetOverwrite(),
	}
}

// Stats asks the driver's process.
func (c *Client) Stats(ctx context.Context, runs []Key) ([]Stats, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &driverv1.StatsRequest{Runs: make([]*driverv1.RunKey, 0, len(runs))}
	for _, k := range runs {
		r.Runs = append(r.Runs, keyToProto(k))
	}
	in, err := c.rpc.Stats(ctx, r)
	if err != nil {
		return nil, driver.FromStatus(err)
	}
	out := make([]Stats, 0, len(runs))
	err = drain(in, func(m *driverv1.RunStats) error {
		out = append(out, statsFromProto(m))
		return nil
	})
	return out, err
}

func (s *server) Stats(r *driverv1.StatsRequest, out grpc.ServerStreamingServer[driverv1.RunStats]) error {
	d, ok := s.driver.(Meter)
	if !ok {
		return lacks(AbilityMeter)
	}
	runs := make([]Key, 0, len(r.GetRuns()))
	for _, k := range r.GetRuns() {
		runs = append(runs, keyFromProto(k))
	}
	all, err := d.Stats(out.Context(), runs)
	if err != nil {
		return driver.ToStatus(err)
	}
	for i := range all {
		if err := out.Send(statsToProto(&all[i])); err != nil {
			return err
		}
	}
	return nil
}

func statsToProto(s *Stats) *driverv1.RunStats {
	m := &driverv1.RunStats{
		Key: keyToProto(s.Key), Time: timeToProto(s.Time),
		Cpu: int64(s.CPU), CpuUser: int64(s.CPUUser), CpuSystem: int64(s.CPUSystem), Cpus: int64(s.CPUs),
		ThrottledTime: int64(s.ThrottledTime), Throttled: s.Throttled, Periods: s.Periods,
		MemoryBytes: s.MemoryBytes, MemoryInactive: s.MemoryInactive, MemoryLimit: s.MemoryLimit, MemoryMax: s.MemoryMax,
		OomKills: s.OOMKills, ReadBytes: s.ReadBytes, WriteBytes: s.WriteBytes, ReadOps: s.ReadOps, WriteOps: s.WriteOps,
		Pids: s.Pids, PidsLimit: s.PidsLimit,
	}
	for _, i := range s.Interfaces {
		m.Interfaces = append(m.Interfaces, &driverv1.InterfaceStats{
			Name:    driver.Text(i.Name),
			RxBytes: i.RxBytes, RxPackets: i.RxPackets, RxErrors: i.RxErrors, RxDrops: i.RxDrops,
			TxBytes: i.TxBytes, TxPackets: i.TxPackets, TxErrors: i.TxErrors, TxDrops: i.TxDrops,
		})
	}
	return m
}

func statsFromProto(m *driverv1.RunStats) Stats {
	s := Stats{
		Key: keyFromProto(m.GetKey()), Time: timeFromProto(m.GetTime()),
		CPU: time.Duration(m.GetCpu()), CPUUser: time.Duration(m.GetCpuUser()), CPUSystem: time.Duration(m.GetCpuSystem()),
		CPUs: int(m.GetCpus()), ThrottledTime: time.Duration(m.GetThrottledTime()), Throttled: m.GetThrottled(), Periods: m.GetPeriods(),
		MemoryBytes: m.GetMemoryBytes(), MemoryInactive: m.GetMemoryInactive(), MemoryLimit: m.GetMemoryLimit(), MemoryMax: m.GetMemoryMax(),
		OOMKills: m.GetOomKills(), ReadBytes: m.GetReadBytes(), WriteBytes: m.GetWriteBytes(), ReadOps: m.GetReadOps(), WriteOps: m.GetWriteOps(),
		Pids: m.GetPids(), PidsLimit: m.GetPidsLimit(),
	}
	for _, i := range m.GetInterfaces() {
		s.Interfaces = append(s.Interfaces, InterfaceStats{
			Name:    i.GetName(),
			RxBytes: i.GetRxBytes(), RxPackets: i.GetRxPackets(), RxErrors: i.GetRxErrors(), RxDrops: i.GetRxDrops(),
			TxBytes: i.GetTxBytes(), TxPackets: i.GetTxPackets(), TxErrors: i.GetTxErrors(), TxDrops: i.GetTxDrops(),
		})
	}
	return s
}

// Processes asks the driver's process.
func (c *Client) Processes(ctx context.Context, k Key) ([]Task, error) {
	answer, err := c.rpc.Processes(ctx, &driverv1.ProcessesRequest{Key: keyToProto(k)})
	if err != nil {
		return nil, driver.FromStatus(err)
	}
	out := make([]Task, 0, len(answer.GetTasks()))
	for _, m := range answer.GetTasks() {
		out = append(out, Task{
			PID: int(m.GetPid()), PPID: int(m.GetPpid()), UID: m.GetUid(), User: m.GetUser(), TTY: m.GetTty(),
			CPU: time.Duration(m.GetCpu()), Started: timeFromProto(m.GetStarted()), RSS: m.GetRss(),
			Name: m.GetName(), Args: m.GetArgs(),
		})
	}
	return out, nil
}

func (s *server) Processes(ctx context.Context, r *driverv1.ProcessesRequest) (*driverv1.ProcessesResponse, error) {
	d, ok := s.driver.(Meter)
	if !ok {
		return nil, lacks(AbilityMeter)
	}
	tasks, err := d.Processes(ctx, keyFromProto(r.GetKey()))
	if err != nil {
		return nil, driver.ToStatus(err)
	}
	out := &driverv1.ProcessesResponse{}
	for _, t := range tasks {
		out.Tasks = append(out.Tasks, &driverv1.Task{
			Pid: int64(t.PID), Ppid: int64(t.PPID), Uid: t.UID, User: driver.Text(t.User), Tty: t.TTY,
			Cpu: int64(t.CPU), Started: timeToProto(t.Started), Rss: t.RSS, Name: driver.Text(t.Name), Args: texts(t.Args),
		})
	}
	return out, nil
}

// texts are a process's words, as they go over the wire.
func texts(words []string) []string {
	out := make([]string, 0, len(words))
	for _, w := range words {
		out = append(out, driver.Text(w))
	}
	return out
}
