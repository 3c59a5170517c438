package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

// The parts of Docker's HostConfig, and what stands in them.
type (
	dockerHostConfig struct {
		Binds                []string
		LogConfig            dockerLog
		NetworkMode          string
		RestartPolicy        dockerRestart
		AutoRemove           bool
		ConsoleSize          [2]int
		CapAdd               []string
		CapDrop              []string
		CgroupnsMode         string
		GroupAdd             []string
		IpcMode              string
		OomScoreAdj          int
		PidMode              string
		Privileged           bool
		ReadonlyRootfs       bool
		SecurityOpt          []string
		Tmpfs                map[string]string `json:",omitempty"`
		UTSMode              string
		UsernsMode           string
		ShmSize              int64
		Sysctls              map[string]string `json:",omitempty"`
		Init                 *bool             `json:",omitempty"`
		CpuShares            int64
		Memory               int64
		NanoCpus             int64
		CgroupParent         string
		BlkioWeight          uint16
		BlkioWeightDevice    []dockerWeight
		BlkioDeviceReadBps   []dockerRate
		BlkioDeviceWriteBps  []dockerRate
		BlkioDeviceReadIOps  []dockerRate
		BlkioDeviceWriteIOps []dockerRate
		CpuPeriod            int64
		CpuQuota             int64
		CpuRealtimePeriod    int64
		CpuRealtimeRuntime   int64
		CpusetCpus           string
		CpusetMems           string
		Devices              []dockerDevice
		DeviceCgroupRules    []string
		MemoryReservation    int64
		MemorySwap           int64
		MemorySwappiness     *int64
		OomKillDisable       bool
		PidsLimit            *int64
		Ulimits              []core.Ulimit
		MaskedPaths          []string `json:",omitempty"`
		ReadonlyPaths        []string `json:",omitempty"`
	}

	dockerLog struct {
		Type   string
		Config map[string]string
	}

	dockerRestart struct {
		Name              string
		MaximumRetryCount int
		OnUnhealthy       bool `json:",omitempty"` // ours
	}

	dockerWeight struct {
		Path   string
		Weight uint16
	}

	dockerRate struct {
		Path string
		Rate uint64
	}

	dockerDevice struct{ PathOnHost, PathInContainer, CgroupPermissions string }

	dockerMount struct {
		Type        string
		Source      string `json:",omitempty"`
		Destination string
		Mode        string
		RW          bool
		Propagation string
	}
)

func hostConfigView(d *query.ContainerDetail) dockerHostConfig {
	sp := d.State.Spec
	s := &sp.Security
	h := dockerHostConfig{
		LogConfig: logView(&sp.Logging), NetworkMode: or(sp.Network.Network, "bridge"), AutoRemove: d.AutoRemove,
		RestartPolicy: dockerRestart{or(sp.Restart.Policy, "no"), sp.Restart.Max, sp.Restart.Unhealthy},
		ConsoleSize:   [2]int{sp.Process.Rows, sp.Process.Columns},
		CapAdd:        s.CapAdd, CapDrop: s.CapDrop, CgroupnsMode: or(s.CgroupNS, "private"), GroupAdd: sp.Process.Groups,
		IpcMode: or(s.IPC, "private"), OomScoreAdj: s.OOMScoreAdj, PidMode: shareView(s.PID), Privileged: s.Privileged,
		ReadonlyRootfs: sp.Rootfs.ReadOnly, SecurityOpt: securityView(s), UTSMode: shareView(s.UTS), UsernsMode: s.UserNS,
		ShmSize: sp.Rootfs.ShmBytes, Sysctls: s.Sysctls, DeviceCgroupRules: s.DeviceRules,
	}
	const usualShm = 64 << 20
	if h.ShmSize == 0 {
		h.ShmSize = usualShm
	}
	if sp.Process.Init {
		h.Init = &sp.Process.Init
	}
	for _, m := range sp.Mounts {
		if m.Type == "tmpfs" {
			if h.Tmpfs == nil {
				h.Tmpfs = make(map[string]string)
			}
			h.Tmpfs[m.Target] = strings.Join(m.Options, ",")
			continue
		}
		bind := m.Source + ":" + m.Target
		if words := slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "rbind" }); len(words) > 0 {
			bind += ":" + strings.Join(words, ",")
		}
		h.Binds = append(h.Binds, bind)
	}
	for _, dev := range s.Devices {
		h.Devices = append(h.Devices, dockerDevice{dev.Host, dev.Container, or(dev.Permissions, "rwm")})
	}
	h.limits(&sp.Resources)
	return h
}

func (h *dockerHostConfig) limits(r *core.Resources) {
	h.CpuShares, h.Memory, h.NanoCpus, h.CgroupParent = r.CPUShares, r.MemoryBytes, r.NanoCPUs, r.CgroupParent
	h.BlkioWeight, h.CpuPeriod, h.CpuQuota = r.BlkioWeight, r.CPUPeriod, r.CPUQuota
	h.CpuRealtimePeriod, h.CpuRealtimeRuntime = r.CPURealtimePeriod, r.CPURealtimeRuntime
	h.CpusetCpus, h.CpusetMems, h.MemoryReservation = r.CpusetCPUs, r.CpusetMems, r.MemoryReservationBytes
	h.MemorySwap, h.MemorySwappiness, h.OomKillDisable = r.MemorySwapBytes, r.MemorySwappiness, r.OOMKillDisable
	h.Ulimits = r.Ulimits
	if r.MemoryBytes > 0 && r.MemorySwapBytes == 0 {
		h.MemorySwap = 2 * r.MemoryBytes
	}
	if r.PidsLimit != 0 {
		h.PidsLimit = &r.PidsLimit
	}
	for _, w := range r.BlkioWeightDevices {
		h.BlkioWeightDevice = append(h.BlkioWeightDevice, dockerWeight{w.Path, w.Weight})
	}
	rates := func(list []core.DeviceRate) []dockerRate {
		var out []dockerRate
		for _, d := range list {
			out = append(out, dockerRate{d.Path, d.Rate})
		}
		return out
	}
	h.BlkioDeviceReadBps, h.BlkioDeviceWriteBps = rates(r.BlkioReadBps), rates(r.BlkioWriteBps)
	h.BlkioDeviceReadIOps, h.BlkioDeviceWriteIOps = rates(r.BlkioReadIOps), rates(r.BlkioWriteIOps)
}

// or is the word that stands for an empty one.
func or(word, empty string) string {
	if word == "" {
		return empty
	}
	return word
}

// shareView is a namespace's mode; Docker's word for one of its own is none at all.
func shareView(mode string) string {
	if mode == "private" {
		return ""
	}
	return mode
}

func logView(l *core.Logging) dockerLog {
	v := dockerLog{Type: or(l.Driver, "local"), Config: make(map[string]string)}
	for name, n := range map[string]int64{"max-size": l.MaxBytes, "max-file": int64(l.MaxFiles), "max-buffer-size": l.MaxBufferBytes} {
		if n != 0 {
			v.Config[name] = strconv.FormatInt(n, 10)
		}
	}
	if l.MaxAge > 0 {
		v.Config["max-age"] = l.MaxAge.String()
	}
	if l.NonBlocking {
		v.Config["mode"] = "non-blocking"
	}
	return v
}

// securityView is what --security-opt was given. Of a profile its beginning is shown.
func securityView(s *core.Security) []string {
	var list []string
	if s.NoNewPrivileges {
		list = append(list, "no-new-privileges")
	}
	if s.Seccomp != "" {
		list = append(list, "seccomp="+s.Seccomp)
	}
	if s.AppArmor != "" {
		list = append(list, "apparmor="+s.AppArmor)
	}
	for _, label := range s.SELinux {
		list = append(list, "label="+label)
	}
	if s.OpenPaths {
		list = append(list, "systempaths=unconfined")
	}
	return list
}

func mountsView(list []core.MountSpec) []dockerMount {
	mounts := []dockerMount{}
	for _, m := range list {
		v := dockerMount{Type: m.Type, Source: m.Source, Destination: m.Target, RW: !slices.Contains(m.Options, "ro")}
		if m.Type == "bind" {
			v.Propagation = "rprivate"
		}
		var words []string
		for _, o := range m.Options {
			switch {
			case bindWords()[o] == "propagation":
				v.Propagation = o
			case o != "rbind":
				words = append(words, o)
			}
		}
		v.Mode = strings.Join(words, ",")
		mounts = append(mounts, v)
	}
	return mounts
}

// idMapView is the container's own ids, in the way of /proc/PID/uid_map.
func idMapView(m []core.IDMapping) []string {
	var list []string
	for _, r := range m {
		list = append(list, fmt.Sprintf("%d %d %d", r.Container, r.Host, r.Size))
	}
	return list
}
