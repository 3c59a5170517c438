package driverhost

import (
	"cmp"
	"os"
	"slices"
	"strings"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// startOf puts the step into the driver's words.
func startOf(st *core.StartProcess) execdriver.Start {
	sp := &st.Spec
	s := execdriver.Start{
		Key:  execdriver.Key{Container: string(st.Container), Run: st.Run},
		Name: st.Name, Hostname: hostname(st), Domain: sp.Network.Domain,
		Rootfs: toMounts(st.Rootfs), ReadOnly: sp.Rootfs.ReadOnly, ShmBytes: sp.Rootfs.ShmBytes,
		Mounts:    mountsOf(st.Endpoint.Files, sp.Mounts),
		Network:   netdriver.Namespace(st.Endpoint.Namespace),
		Process:   processOf(&sp.Process),
		Init:      sp.Process.Init,
		Resources: limitsOf(&sp.Resources),
		Security:  securityOf(&sp.Security),
		Stdio: execdriver.Stdio{
			OpenStdin: sp.Process.OpenStdin, StdinOnce: sp.Process.StdinOnce, WaitAttach: st.Attach, Log: logOf(&sp.Logging),
		},
	}
	s.Process.OOMScore = sp.Security.OOMScoreAdj
	for _, u := range sp.Resources.Ulimits {
		s.Process.Ulimits = append(s.Process.Ulimits, execdriver.Ulimit(u))
	}
	return s
}

func processOf(p *core.Process) execdriver.Process {
	return execdriver.Process{
		Args: p.Args(), Env: environ(p.Env), Cwd: p.Cwd, User: p.User, Groups: p.Groups,
		TTY: p.TTY, Rows: p.Rows, Columns: p.Columns,
	}
}

func environ(env []core.Env) []string {
	var out []string
	for _, e := range env {
		out = append(out, e.Name+"="+e.Value)
	}
	return out
}

// hostname is what the container is called inside: with the host's UTS namespace
// that is the host's name, as the files in it are to say.
func hostname(st *core.StartProcess) string {
	if h := st.Spec.Network.Hostname; h != "" {
		return h
	}
	if st.Spec.Security.UTS == "host" {
		if h, err := os.Hostname(); err == nil {
			return h
		}
	}
	return string(st.Container)[:12]
}

// mountsOf are the network's files and what was asked for. What was asked for
// takes the place of a file of ours; what is deeper comes later, so that nothing
// is hidden.
func mountsOf(files []core.Mount, asked []core.MountSpec) []driver.Mount {
	var all []driver.Mount
	for _, f := range toMounts(files) {
		if !slices.ContainsFunc(asked, func(m core.MountSpec) bool { return m.Target == f.Target }) {
			all = append(all, f)
		}
	}
	for _, m := range asked {
		all = append(all, driver.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: optionsOf(m)})
	}
	depth := func(m driver.Mount) int { return strings.Count(strings.TrimRight(m.Target, "/"), "/") }
	slices.SortStableFunc(all, func(a, b driver.Mount) int { return cmp.Compare(depth(a), depth(b)) })
	return all
}

// optionsOf are a mount's options with Docker's defaults: a bind takes what is
// mounted below along, and a tmpfs has no devices, no set-uid programs and none to
// execute, unless something else is said.
func optionsOf(m core.MountSpec) []string {
	switch {
	case m.Type == "tmpfs":
		return append([]string{"noexec", "nosuid", "nodev"}, m.Options...)
	case m.Type == "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind"):
		return append([]string{"rbind"}, m.Options...)
	}
	return m.Options
}

func logOf(l *core.Logging) execdriver.LogConfig {
	c := execdriver.LogConfig{
		Driver: l.Driver, MaxBytes: l.MaxBytes, MaxFiles: l.MaxFiles, MaxAge: l.MaxAge,
		NonBlocking: l.NonBlocking, MaxBufferBytes: l.MaxBufferBytes,
	}
	if c.Driver == "" || c.Driver == "json-file" {
		c.Driver = "local"
	}
	return c
}

func limitsOf(r *core.Resources) execdriver.Resources {
	weight := func(d core.DeviceWeight) (string, uint64) { return d.Path, uint64(d.Weight) }
	rate := func(d core.DeviceRate) (string, uint64) { return d.Path, d.Rate }
	return execdriver.Resources{
		MemoryBytes: r.MemoryBytes, MemorySwapBytes: r.MemorySwapBytes, MemoryReservationBytes: r.MemoryReservationBytes,
		MemorySwappiness: r.MemorySwappiness, OOMKillDisable: r.OOMKillDisable,
		NanoCPUs: r.NanoCPUs, CPUShares: r.CPUShares, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota,
		CPURealtimePeriod: r.CPURealtimePeriod, CPURealtimeRuntime: r.CPURealtimeRuntime,
		CpusetCPUs: r.CpusetCPUs, CpusetMems: r.CpusetMems, PidsLimit: r.PidsLimit,
		BlkioWeight: r.BlkioWeight, BlkioWeightDevices: ratesOf(r.BlkioWeightDevices, weight),
		BlkioReadBps: ratesOf(r.BlkioReadBps, rate), BlkioWriteBps: ratesOf(r.BlkioWriteBps, rate),
		BlkioReadIOps: ratesOf(r.BlkioReadIOps, rate), BlkioWriteIOps: ratesOf(r.BlkioWriteIOps, rate),
		CgroupParent: r.CgroupParent,
	}
}

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
