package driverhost

import (
	"context"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func runExec(ctx context.Context, d execdriver.Driver, st core.Step) (core.Result, error) {
	switch st := st.(type) {
	case *core.StartProcess:
		s, err := d.Start(ctx, startOf(st))
		if err != nil {
			return core.Result{}, err
		}
		return core.Result{Started: &core.Started{PID: s.PID, Log: s.Log}}, nil
	case *core.SignalProcess:
		return core.Result{}, d.Signal(ctx, execdriver.Key{Container: string(st.Container), Run: st.Run}, st.Signal)
	case *core.ReleaseProcess:
		if err := d.Release(ctx, execdriver.Key{Container: string(st.Container), Run: st.Run}); err != nil || !st.RemoveLog {
			return core.Result{}, err
		}
		return core.Result{}, d.RemoveLog(ctx, string(st.Container))
	case *core.RemoveLog:
		return core.Result{}, d.RemoveLog(ctx, string(st.Container))
	case *core.GiveBack:
		if st.Item.Kind == "process" {
			return core.Result{}, d.Release(ctx, execdriver.Key{Container: st.Item.Key, Run: st.Item.Run})
		}
	}
	return core.Result{}, noRunner(st)
}

// startOf puts the step into the driver's words.
func startOf(st *core.StartProcess) execdriver.Start {
	sp := &st.Spec
	s := execdriver.Start{
		Key:  execdriver.Key{Container: string(st.Container), Run: st.Run},
		Name: st.Name, Hostname: sp.Network.Hostname,
		Rootfs: toMounts(st.Rootfs), ReadOnly: sp.Rootfs.ReadOnly, Mounts: toMounts(st.Endpoint.Files),
		Network:   netdriver.Namespace(st.Endpoint.Namespace),
		Process:   execdriver.Process{Args: sp.Process.Args(), Cwd: sp.Process.Cwd, User: sp.Process.User},
		Resources: limitsOf(&sp.Resources),
		Security:  securityOf(&sp.Security),
		Stdio: execdriver.Stdio{
			OpenStdin: sp.Process.OpenStdin, WaitAttach: st.Attach,
			Log: execdriver.LogConfig{Driver: sp.Logging.Driver, MaxBytes: sp.Logging.MaxBytes, MaxFiles: sp.Logging.MaxFiles},
		},
	}
	if s.Hostname == "" {
		s.Hostname = string(st.Container)[:12]
	}
	if s.Stdio.Log.Driver == "" || s.Stdio.Log.Driver == "json-file" {
		s.Stdio.Log.Driver = "local"
	}
	for _, e := range sp.Process.Env {
		s.Process.Env = append(s.Process.Env, e.Name+"="+e.Value)
	}
	return s
}

// exiter is a driver that watches processes.
type exiter interface {
	Exits(ctx context.Context, f func(execdriver.Exit) error) error
}

// followExits reports every exit until the engine has it. The stream begins
// with all that were not released, so that none is lost with an instance.
func (d *hosted) followExits(p *process, e exiter) {
	defer d.host.wg.Done()
	ctx, cancel := context.WithCancel(d.host.ctx)
	defer cancel()
	go func() {
		select {
		case <-p.launch.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		err := e.Exits(ctx, func(x execdriver.Exit) error {
			return d.report(ctx, p.instance, &core.ReportExit{
				Container: core.ContainerID(x.Container), Run: x.Run, Code: x.Code, Signal: x.Signal,
				OOMKilled: x.OOMKilled, Lost: x.Lost, Reason: x.Reason, Time: x.Time,
			})
		})
		if ctx.Err() != nil {
			return
		}
		d.log.Warn("the stream of exits broke off", "error", err)
		select {
		case <-time.After(d.host.patience.backoff):
		case <-ctx.Done():
		}
	}
}

func limitsOf(r *core.Resources) execdriver.Resources {
	return execdriver.Resources{
		MemoryBytes: r.MemoryBytes, MemorySwapBytes: r.MemorySwapBytes, MemoryReservationBytes: r.MemoryReservationBytes,
		MemorySwappiness: r.MemorySwappiness, OOMKillDisable: r.OOMKillDisable,
		NanoCPUs: r.NanoCPUs, CPUShares: r.CPUShares, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota,
		CPURealtimePeriod: r.CPURealtimePeriod, CPURealtimeRuntime: r.CPURealtimeRuntime,
		CpusetCPUs: r.CpusetCPUs, CpusetMems: r.CpusetMems, PidsLimit: r.PidsLimit,
		BlkioWeight: r.BlkioWeight, BlkioWeightDevices: ratesOf(r.BlkioWeightDevices, func(d core.DeviceWeight) (string, uint64) { return d.Path, uint64(d.Weight) }),
		BlkioReadBps: ratesOf(r.BlkioReadBps, rate), BlkioWriteBps: ratesOf(r.BlkioWriteBps, rate),
		BlkioReadIOps: ratesOf(r.BlkioReadIOps, rate), BlkioWriteIOps: ratesOf(r.BlkioWriteIOps, rate),
		CgroupParent: r.CgroupParent,
	}
}

func rate(d core.DeviceRate) (string, uint64) { return d.Path, d.Rate }

func ratesOf[T any](list []T, of func(T) (string, uint64)) []execdriver.DeviceRate {
	var out []execdriver.DeviceRate
	for _, d := range list {
		path, n := of(d)
		out = append(out, execdriver.DeviceRate{Path: path, Rate: n})
	}
	return out
}

func securityOf(s *core.Security) execdriver.Security {
	out := execdriver.Security{
		Privileged: s.Privileged, CapAdd: s.CapAdd, CapDrop: s.CapDrop, NoNewPrivileges: s.NoNewPrivileges,
		Seccomp: s.Seccomp, AppArmor: s.AppArmor, SELinux: s.SELinux, OpenPaths: s.OpenPaths,
		DeviceRules: s.DeviceRules, Sysctls: s.Sysctls,
	}
	for _, d := range s.Devices {
		out.Devices = append(out.Devices, execdriver.Device(d))
	}
	return out
}
