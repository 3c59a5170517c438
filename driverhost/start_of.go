package driverhost

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// startOf puts the step into the driver's words.
func startOf(st *core.StartProcess) (execdriver.Start, error) {
	sp := st.Spec
	shares, err := sharesOf(st)
	if err != nil {
		return execdriver.Start{}, err
	}
	network, err := networkOf(st)
	if err != nil {
		return execdriver.Start{}, err
	}
	s := execdriver.Start{
		Key:  execdriver.Key{Container: string(st.Container), Run: st.Run},
		Name: st.Name, Hostname: hostname(st), Domain: sp.Network.Domain,
		Rootfs: toMounts(st.Rootfs), ReadOnly: sp.Rootfs.ReadOnly, ShmBytes: sp.Rootfs.ShmBytes,
		Mounts: mountsOf(st.Endpoint.Files, sp.Mounts), IDMap: idMapOf(st.IDMap), UserNS: netdriver.Namespace(st.UserNS),
		Network: network, Namespaces: shares,
		Process:   processOf(&sp.Process),
		Init:      sp.Process.Init,
		Resources: limitsOf(&sp.Resources),
		Security:  securityOf(&sp.Security),
		Stdio: execdriver.Stdio{
			OpenStdin: sp.Process.OpenStdin, StdinOnce: sp.Process.StdinOnce, WaitAttach: st.Attach, Log: logOf(&sp.Logging, st.LogEnd),
		},
	}
	s.Process.OOMScore = sp.Security.OOMScoreAdj
	for _, u := range sp.Resources.Ulimits {
		s.Process.Ulimits = append(s.Process.Ulimits, execdriver.Ulimit(u))
	}
	return s, nil
}

// networkOf is the network namespace. One that the exec driver made for another
// container is found by that container's process.
func networkOf(st *core.StartProcess) (netdriver.Namespace, error) {
	with := st.Shares.Network
	if with == nil || st.Endpoint.Namespace.Mode != execdriver.ShareContainer {
		return netdriver.Namespace(st.Endpoint.Namespace), nil
	}
	n := netdriver.Namespace{Mode: netdriver.NamespacePath, Path: fmt.Sprintf("/proc/%d/ns/net", with.PID)}
	var stat unix.Stat_t
	if with.PID == 0 || unix.Stat(n.Path, &stat) != nil {
		return n, notShared("network", with)
	}
	n.Inode = stat.Ino
	return n, nil
}

func notShared(what string, with *core.RunKey) error {
	return errclass.Errorf(errdefs.ErrFailedPrecondition, "container %.12s, whose %s namespace is to be shared, does not run", with.Container, what)
}

// sharesOf says whose namespaces a run is put in. One that is to be shared and
// does not run is refused by name.
func sharesOf(st *core.StartProcess) (execdriver.Namespaces, error) {
	sec := &st.Spec.Security
	var n execdriver.Namespaces
	n.IPC.Off = sec.IPC == "none"
	for _, s := range []struct {
		what string
		mode string
		with *core.RunKey
		to   *execdriver.Share
	}{
		{"pid", sec.PID, st.Shares.PID, &n.PID}, {"ipc", sec.IPC, st.Shares.IPC, &n.IPC}, {"uts", sec.UTS, st.Shares.UTS, &n.UTS},
		{"cgroup", sec.CgroupNS, nil, &n.Cgroup},
	} {
		switch {
		case s.mode == "host":
			s.to.Mode = execdriver.ShareHost
		case s.with == nil:
		case s.with.PID == 0:
			return n, notShared(s.what, s.with)
		default:
			*s.to = execdriver.Share{Mode: execdriver.ShareContainer, With: keyOf(s.with.Container, s.with.Run, "")}
		}
	}
	return n, nil
}

func idMapOf(m core.IDMap) driver.IDMap {
	lines := func(list []core.IDMapping) []driver.IDMapping {
		var out []driver.IDMapping
		for _, l := range list {
			out = append(out, driver.IDMapping(l))
		}
		return out
	}
	return driver.IDMap{UIDs: lines(m.UIDs), GIDs: lines(m.GIDs)}
}

// execOf puts the step into the driver's words.
func execOf(st *core.StartExec) execdriver.Exec {
	sp := st.Spec
	return execdriver.Exec{
		Key: keyOf(st.Container, st.Run, st.Exec),
		Process: execdriver.Process{
			Args: sp.Args, Env: environ(sp.Env), Cwd: sp.Cwd, User: sp.User, Groups: st.Groups,
			TTY: sp.TTY, Rows: sp.Rows, Columns: sp.Columns,
		},
		Privileged: sp.Privileged,
		Stdio: execdriver.Stdio{
			OpenStdin: sp.OpenStdin, StdinOnce: sp.OpenStdin && st.Attach, WaitAttach: st.Attach,
			Log: execdriver.LogConfig{Driver: "none"},
		},
	}
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

// hostname is what the container is called inside: with the machine's UTS or network
// namespace that is the machine's name, as the files in it are to say, and as
// Docker's --network host has it.
func hostname(st *core.StartProcess) string {
	machines := st.Spec.Security.UTS == "host" || st.Endpoint.Namespace.Mode == netdriver.NamespaceHost
	if machines && st.Spec.Network.Hostname == "" {
		if h, err := os.Hostname(); err == nil {
			return h
		}
	}
	return st.Hostname
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

// logOf says how a run's output is kept. from is where the last run's ended.
func logOf(l *core.Logging, from uint64) execdriver.LogConfig {
	c := execdriver.LogConfig{
		Driver: l.Driver, MaxBytes: l.MaxBytes, MaxFiles: l.MaxFiles, MaxAge: l.MaxAge,
		NonBlocking: l.NonBlocking, MaxBufferBytes: l.MaxBufferBytes, From: from,
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
