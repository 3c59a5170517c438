package execdriver

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func startToProto(r Start) *driverv1.StartRequest {
	return &driverv1.StartRequest{
		Container: r.Container, Run: r.Run,
		Name: r.Name, Hostname: r.Hostname, Domain: r.Domain,
		Rootfs: driver.MountsToProto(r.Rootfs), ReadOnly: r.ReadOnly, ShmBytes: r.ShmBytes,
		Mounts: driver.MountsToProto(r.Mounts), IdMap: driver.IDMapToProto(r.IDMap),
		UserNs: netdriver.NamespaceToProto(r.UserNS), Network: netdriver.NamespaceToProto(r.Network),
		Namespaces: namespacesToProto(r.Namespaces), Process: processToProto(r.Process), Init: r.Init,
		Resources: resourcesToProto(r.Resources), Security: securityToProto(r.Security), Stdio: stdioToProto(r.Stdio),
	}
}

func startFromProto(r *driverv1.StartRequest) Start {
	return Start{
		Key:  Key{Container: r.GetContainer(), Run: r.GetRun()},
		Name: r.GetName(), Hostname: r.GetHostname(), Domain: r.GetDomain(),
		Rootfs: driver.MountsFromProto(r.GetRootfs()), ReadOnly: r.GetReadOnly(), ShmBytes: r.GetShmBytes(),
		Mounts: driver.MountsFromProto(r.GetMounts()), IDMap: driver.IDMapFromProto(r.GetIdMap()),
		UserNS: netdriver.NamespaceFromProto(r.GetUserNs()), Network: netdriver.NamespaceFromProto(r.GetNetwork()),
		Namespaces: namespacesFromProto(r.GetNamespaces()), Process: processFromProto(r.GetProcess()), Init: r.GetInit(),
		Resources: resourcesFromProto(r.GetResources()), Security: securityFromProto(r.GetSecurity()),
		Stdio: stdioFromProto(r.GetStdio()),
	}
}

func namespacesToProto(n Namespaces) *driverv1.Namespaces {
	if n == (Namespaces{}) {
		return nil
	}
	return &driverv1.Namespaces{
		Pid: shareToProto(n.PID), Ipc: shareToProto(n.IPC), Uts: shareToProto(n.UTS), Cgroup: shareToProto(n.Cgroup),
	}
}

func namespacesFromProto(n *driverv1.Namespaces) Namespaces {
	return Namespaces{
		PID: shareFromProto(n.GetPid()), IPC: shareFromProto(n.GetIpc()),
		UTS: shareFromProto(n.GetUts()), Cgroup: shareFromProto(n.GetCgroup()),
	}
}

func shareToProto(s Share) *driverv1.Share {
	if s == (Share{}) {
		return nil
	}
	return &driverv1.Share{Mode: s.Mode, With: keyToProto(s.With), Off: s.Off}
}

func shareFromProto(s *driverv1.Share) Share {
	return Share{Mode: s.GetMode(), With: keyFromProto(s.GetWith()), Off: s.GetOff()}
}

func processToProto(p Process) *driverv1.Process {
	m := &driverv1.Process{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd, User: p.User, Groups: p.Groups,
		Tty: p.TTY, Rows: int64(p.Rows), Columns: int64(p.Columns), OomScore: int64(p.OOMScore),
	}
	for _, u := range p.Ulimits {
		m.Ulimits = append(m.Ulimits, &driverv1.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	return m
}

func processFromProto(m *driverv1.Process) Process {
	p := Process{
		Args: m.GetArgs(), Env: m.GetEnv(), Cwd: m.GetCwd(), User: m.GetUser(), Groups: m.GetGroups(),
		TTY: m.GetTty(), Rows: int(m.GetRows()), Columns: int(m.GetColumns()), OOMScore: int(m.GetOomScore()),
	}
	for _, u := range m.GetUlimits() {
		p.Ulimits = append(p.Ulimits, Ulimit{Name: u.GetName(), Soft: u.GetSoft(), Hard: u.GetHard()})
	}
	return p
}

func resourcesToProto(r Resources) *driverv1.Resources {
	return &driverv1.Resources{
		MemoryBytes: r.MemoryBytes, MemorySwapBytes: r.MemorySwapBytes,
		MemoryReservationBytes: r.MemoryReservationBytes, MemorySwappiness: r.MemorySwappiness,
		OomKillDisable: r.OOMKillDisable,
		NanoCpus:       r.NanoCPUs, CpuShares: r.CPUShares, CpuPeriod: r.CPUPeriod, CpuQuota: r.CPUQuota,
		CpuRealtimePeriod: r.CPURealtimePeriod, CpuRealtimeRuntime: r.CPURealtimeRuntime,
		CpusetCpus: r.CpusetCPUs, CpusetMems: r.CpusetMems,
		PidsLimit:   r.PidsLimit,
		BlkioWeight: uint32(r.BlkioWeight), BlkioWeightDevices: ratesToProto(r.BlkioWeightDevices),
		BlkioReadBps: ratesToProto(r.BlkioReadBps), BlkioWriteBps: ratesToProto(r.BlkioWriteBps),
		BlkioReadIops: ratesToProto(r.BlkioReadIOps), BlkioWriteIops: ratesToProto(r.BlkioWriteIOps),
		CgroupParent: r.CgroupParent,
	}
}

func resourcesFromProto(m *driverv1.Resources) Resources {
	r := Resources{
		MemoryBytes: m.GetMemoryBytes(), MemorySwapBytes: m.GetMemorySwapBytes(),
		MemoryReservationBytes: m.GetMemoryReservationBytes(),
		OOMKillDisable:         m.GetOomKillDisable(),
		NanoCPUs:               m.GetNanoCpus(), CPUShares: m.GetCpuShares(), CPUPeriod: m.GetCpuPeriod(), CPUQuota: m.GetCpuQuota(),
		CPURealtimePeriod: m.GetCpuRealtimePeriod(), CPURealtimeRuntime: m.GetCpuRealtimeRuntime(),
		CpusetCPUs: m.GetCpusetCpus(), CpusetMems: m.GetCpusetMems(),
		PidsLimit:   m.GetPidsLimit(),
		BlkioWeight: uint16(m.GetBlkioWeight()), BlkioWeightDevices: ratesFromProto(m.GetBlkioWeightDevices()),
		BlkioReadBps: ratesFromProto(m.GetBlkioReadBps()), BlkioWriteBps: ratesFromProto(m.GetBlkioWriteBps()),
		BlkioReadIOps: ratesFromProto(m.GetBlkioReadIops()), BlkioWriteIOps: ratesFromProto(m.GetBlkioWriteIops()),
		CgroupParent: m.GetCgroupParent(),
	}
	if m != nil && m.MemorySwappiness != nil {
		v := m.GetMemorySwappiness()
		r.MemorySwappiness = &v
	}
	return r
}

func ratesToProto(rates []DeviceRate) []*driverv1.DeviceRate {
	var out []*driverv1.DeviceRate
	for _, r := range rates {
		out = append(out, &driverv1.DeviceRate{Path: r.Path, Rate: r.Rate})
	}
	return out
}

func ratesFromProto(rates []*driverv1.DeviceRate) []DeviceRate {
	var out []DeviceRate
	for _, r := range rates {
		out = append(out, DeviceRate{Path: r.GetPath(), Rate: r.GetRate()})
	}
	return out
}

func securityToProto(s Security) *driverv1.Security {
	m := &driverv1.Security{
		Privileged: s.Privileged, CapAdd: s.CapAdd, CapDrop: s.CapDrop,
		NoNewPrivileges: s.NoNewPrivileges, Seccomp: s.Seccomp, Apparmor: s.AppArmor, Selinux: s.SELinux,
		OpenPaths: s.OpenPaths, DeviceRules: s.DeviceRules, Sysctls: s.Sysctls,
	}
	for _, d := range s.Devices {
		m.Devices = append(m.Devices, &driverv1.Device{Host: d.Host, Container: d.Container, Permissions: d.Permissions})
	}
	return m
}

func securityFromProto(m *driverv1.Security) Security {
	s := Security{
		Privileged: m.GetPrivileged(), CapAdd: m.GetCapAdd(), CapDrop: m.GetCapDrop(),
		NoNewPrivileges: m.GetNoNewPrivileges(), Seccomp: m.GetSeccomp(), AppArmor: m.GetApparmor(), SELinux: m.GetSelinux(),
		OpenPaths: m.GetOpenPaths(), DeviceRules: m.GetDeviceRules(), Sysctls: m.GetSysctls(),
	}
	for _, d := range m.GetDevices() {
		s.Devices = append(s.Devices, Device{Host: d.GetHost(), Container: d.GetContainer(), Permissions: d.GetPermissions()})
	}
	return s
}

func stdioToProto(s Stdio) *driverv1.Stdio {
	return &driverv1.Stdio{
		OpenStdin: s.OpenStdin, StdinOnce: s.StdinOnce, WaitAttach: s.WaitAttach,
		Log: &driverv1.LogConfig{
			Driver: s.Log.Driver, MaxBytes: s.Log.MaxBytes, MaxFiles: int64(s.Log.MaxFiles),
			MaxAge: lengthToProto(s.Log.MaxAge), NonBlocking: s.Log.NonBlocking, MaxBufferBytes: s.Log.MaxBufferBytes, From: s.Log.From,
		},
	}
}

func stdioFromProto(m *driverv1.Stdio) Stdio {
	log := m.GetLog()
	return Stdio{
		OpenStdin: m.GetOpenStdin(), StdinOnce: m.GetStdinOnce(), WaitAttach: m.GetWaitAttach(),
		Log: LogConfig{
			Driver: log.GetDriver(), MaxBytes: log.GetMaxBytes(), MaxFiles: int(log.GetMaxFiles()),
			MaxAge: log.GetMaxAge().AsDuration(), NonBlocking: log.GetNonBlocking(), MaxBufferBytes: log.GetMaxBufferBytes(), From: log.GetFrom(),
		},
	}
}

// lengthToProto maps a length of time; zero is absent.
func lengthToProto(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
