package core

import (
	"slices"
	"time"
)

// Spec is what a container is to be, merged with its image: replay needs no
// image. Only fields that something acts on are here; docs/adr/0008 maps
// Docker's container-create onto these groups.
type Spec struct {
	Process   Process           `json:"process"`
	Rootfs    Rootfs            `json:"rootfs,omitzero"`
	Mounts    []MountSpec       `json:"mounts,omitempty"`
	Resources Resources         `json:"resources,omitzero"`
	Security  Security          `json:"security,omitzero"`
	Network   NetworkSpec       `json:"network,omitzero"`
	Restart   Restart           `json:"restart,omitzero"`
	Health    *Health           `json:"health,omitempty"` // nil: none
	Logging   Logging           `json:"logging,omitzero"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// Process is the program and how it is talked to.
type Process struct {
	Entrypoint  []string      `json:"entrypoint,omitempty"`
	Cmd         []string      `json:"cmd,omitempty"`
	Env         []Env         `json:"env,omitempty"`
	Cwd         string        `json:"cwd,omitempty"`
	User        string        `json:"user,omitempty"`
	Groups      []string      `json:"groups,omitempty"` // further ones, by name or number
	OpenStdin   bool          `json:"open_stdin,omitempty"`
	StdinOnce   bool          `json:"stdin_once,omitempty"` // input ends when the first client that gave some has left
	TTY         bool          `json:"tty,omitempty"`
	Rows        int           `json:"rows,omitempty"` // of the terminal at the start
	Columns     int           `json:"columns,omitempty"`
	Init        bool          `json:"init,omitempty"`            // a small init of ours is pid 1: it reaps and forwards signals
	StopSignal  int           `json:"stop_signal,omitempty"`     // 0: SIGTERM
	StopTimeout time.Duration `json:"stop_timeout_ns,omitempty"` // 0: 10 s
}

// Args is the whole command line.
func (p Process) Args() []string {
	return append(append([]string(nil), p.Entrypoint...), p.Cmd...)
}

// Env is one environment variable. A value that a person gave is sealed by the
// engine's edge before the core sees it: what stands here is then ciphertext,
// and only the name is readable. Values out of an image are as public as the
// image and stay in clear.
type Env struct {
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"`
	Sealed bool   `json:"sealed,omitempty"`
}

// Rootfs is about the root filesystem.
type Rootfs struct {
	ReadOnly bool  `json:"read_only,omitempty"`
	ShmBytes int64 `json:"shm_bytes,omitempty"` // of /dev/shm; 0: 64 MiB
}

// MountSpec is one further mount that was asked for: a host directory or file
// (type "bind") or a new tmpfs. Options are mount(8)'s words: "ro", "noexec",
// "rslave", "size=64m", "mode=1770".
type MountSpec struct {
	Type    string   `json:"type"`             // "bind" or "tmpfs"
	Source  string   `json:"source,omitempty"` // absolute host path of a bind
	Target  string   `json:"target"`           // absolute path inside
	Options []string `json:"options,omitempty"`
}

// Resources are limits; zero means none, or the kernel's default.
type Resources struct {
	MemoryBytes            int64          `json:"memory_bytes,omitempty"`
	MemorySwapBytes        int64          `json:"memory_swap_bytes,omitempty"` // memory and swap together; -1: no limit; 0: twice the memory
	MemoryReservationBytes int64          `json:"memory_reservation_bytes,omitempty"`
	MemorySwappiness       *int64         `json:"memory_swappiness,omitempty"` // 0 to 100
	OOMKillDisable         bool           `json:"oom_kill_disable,omitempty"`
	NanoCPUs               int64          `json:"nano_cpus,omitempty"` // 1e9 is one processor
	CPUShares              int64          `json:"cpu_shares,omitempty"`
	CPUPeriod              int64          `json:"cpu_period_us,omitempty"`
	CPUQuota               int64          `json:"cpu_quota_us,omitempty"`
	CPURealtimePeriod      int64          `json:"cpu_realtime_period_us,omitempty"`
	CPURealtimeRuntime     int64          `json:"cpu_realtime_runtime_us,omitempty"`
	CpusetCPUs             string         `json:"cpuset_cpus,omitempty"` // "0-2,7"
	CpusetMems             string         `json:"cpuset_mems,omitempty"`
	PidsLimit              int64          `json:"pids_limit,omitempty"` // -1: none
	BlkioWeight            uint16         `json:"blkio_weight,omitempty"`
	BlkioWeightDevices     []DeviceWeight `json:"blkio_weight_devices,omitempty"`
	BlkioReadBps           []DeviceRate   `json:"blkio_read_bps,omitempty"`
	BlkioWriteBps          []DeviceRate   `json:"blkio_write_bps,omitempty"`
	BlkioReadIOps          []DeviceRate   `json:"blkio_read_iops,omitempty"`
	BlkioWriteIOps         []DeviceRate   `json:"blkio_write_iops,omitempty"`
	Ulimits                []Ulimit       `json:"ulimits,omitempty"`
	CgroupParent           string         `json:"cgroup_parent,omitempty"` // path relative to each hierarchy's root; empty: the engine's own
}

// DeviceWeight is a block device's share, 10 to 1000.
type DeviceWeight struct {
	Path   string `json:"path"` // on the host, e.g. "/dev/sda"
	Weight uint16 `json:"weight"`
}

// DeviceRate is a block device's limit, bytes or operations per second.
type DeviceRate struct {
	Path string `json:"path"` // on the host
	Rate uint64 `json:"rate"`
}

// Ulimit is one resource limit of setrlimit(2); -1 is no limit.
type Ulimit struct {
	Name string `json:"name"` // "nofile"
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Security says how far the process is kept in.
type Security struct {
	Privileged      bool              `json:"privileged,omitempty"`
	CapAdd          []string          `json:"cap_add,omitempty"`
	CapDrop         []string          `json:"cap_drop,omitempty"`
	NoNewPrivileges bool              `json:"no_new_privileges,omitempty"`
	Seccomp         string            `json:"seccomp,omitempty"`       // "": the default profile; "unconfined"; or a profile's JSON text
	AppArmor        string            `json:"apparmor,omitempty"`      // "": the default where the kernel has it; "unconfined"; or a loaded profile's name
	SELinux         []string          `json:"selinux,omitempty"`       // label options: "type:T", "level:L", "disable"
	OpenPaths       bool              `json:"open_paths,omitempty"`    // nothing masked, nothing read-only below /proc and /sys (systempaths=unconfined)
	Devices         []Device          `json:"devices,omitempty"`       // of the host, to be there inside
	DeviceRules     []string          `json:"device_rules,omitempty"`  // "c 1:3 rwm"
	UserNS          string            `json:"user_ns,omitempty"`       // "" and "host": the host's; "private": one of its own
	PID             string            `json:"pid,omitempty"`           // "" and "private"; "host"; "container:ID"
	IPC             string            `json:"ipc,omitempty"`           // "" and "private"; "none"; "shareable"; "host"; "container:ID"
	UTS             string            `json:"uts,omitempty"`           // "" and "private"; "host"; "container:ID"
	CgroupNS        string            `json:"cgroup_ns,omitempty"`     // "" and "private"; "host"
	OOMScoreAdj     int               `json:"oom_score_adj,omitempty"` // -1000 to 1000
	Sysctls         map[string]string `json:"sysctls,omitempty"`       // namespaced ones
}

// Device is a device node of the host.
type Device struct {
	Host        string `json:"host"`                  // path on the host; a directory stands for all in it
	Container   string `json:"container"`             // path inside
	Permissions string `json:"permissions,omitempty"` // of "rwm"; empty: all
}

// NetworkSpec says what the container is called and connected to.
type NetworkSpec struct {
	Hostname string `json:"hostname,omitempty"` // empty: the id's first twelve digits
	Domain   string `json:"domain,omitempty"`   // NIS domain name
	Network  string `json:"network,omitempty"`  // as given; empty: "bridge"; "container:ID" shares another's
}

// Restart says when a container that has ended is started again.
type Restart struct {
	Policy    string `json:"policy,omitempty"`    // "" and "no"; "on-failure", "always", "unless-stopped"
	Max       int    `json:"max,omitempty"`       // of on-failure: give up after so many in a row; 0: never
	Unhealthy bool   `json:"unhealthy,omitempty"` // an unhealthy container is stopped and started again
}

// Health is how a container's health is probed.
type Health struct {
	Test          []string      `json:"test"`                        // "CMD", args… or "CMD-SHELL", line; "NONE" drops the image's
	Interval      time.Duration `json:"interval_ns,omitempty"`       // 0: 30 s
	Timeout       time.Duration `json:"timeout_ns,omitempty"`        // 0: 30 s
	StartPeriod   time.Duration `json:"start_period_ns,omitempty"`   // failures in it do not count
	StartInterval time.Duration `json:"start_interval_ns,omitempty"` // in the start period; 0: 5 s
	Retries       int           `json:"retries,omitempty"`           // failures in a row that make it unhealthy; 0: 3
}

// Logging says how output is kept.
type Logging struct {
	Driver         string        `json:"driver,omitempty"` // "" and "local" and "json-file": the shim's file; "none"
	MaxBytes       int64         `json:"max_bytes,omitempty"`
	MaxFiles       int           `json:"max_files,omitempty"`
	MaxAge         time.Duration `json:"max_age_ns,omitempty"`       // of a file until it is rotated
	NonBlocking    bool          `json:"non_blocking,omitempty"`     // output that the disk cannot take is dropped and counted
	MaxBufferBytes int64         `json:"max_buffer_bytes,omitempty"` // of non-blocking delivery; 0: 1 MiB
}

const defaultStopTimeout = 10 * time.Second

// mergeImage fills what the command left out from the image, as Docker does:
// an entrypoint of one's own also drops the image's command.
func (own *Spec) mergeImage(i *ImageConfig) *Spec {
	merged := *own
	sp := &merged
	p := &sp.Process
	if p.Entrypoint == nil {
		p.Entrypoint = i.Entrypoint
		if len(p.Cmd) == 0 {
			p.Cmd = i.Cmd
		}
	}
	if len(p.Entrypoint) == 1 && p.Entrypoint[0] == "" {
		p.Entrypoint = nil // --entrypoint "" resets the image's
	}
	p.Env = mergeEnv(i.Env, p.Env)
	if p.Cwd == "" {
		p.Cwd = i.Cwd
	}
	if p.User == "" {
		p.User = i.User
	}
	if p.StopSignal == 0 {
		p.StopSignal = i.StopSignal
	}
	sp.Health = sp.Health.merge(i.Health)
	if len(i.Labels) > 0 {
		labels := make(map[string]string, len(i.Labels)+len(sp.Labels))
		for k, v := range i.Labels {
			labels[k] = v
		}
		for k, v := range sp.Labels {
			labels[k] = v
		}
		sp.Labels = labels
	}
	return sp
}

// mergeEnv is base with over's values; the order of first mention stays.
func mergeEnv(base, over []Env) []Env {
	merged := make([]Env, 0, len(base)+len(over))
	var at map[string]int
	if cap(merged) > 32 { // fewer are found by looking at each
		at = make(map[string]int, cap(merged))
	}
	for _, list := range [2][]Env{base, over} {
		for _, e := range list {
			i, ok := at[e.Name]
			if at == nil {
				i = slices.IndexFunc(merged, func(m Env) bool { return m.Name == e.Name })
				ok = i >= 0
			}
			if ok {
				merged[i] = e
				continue
			}
			if at != nil {
				at[e.Name] = len(merged)
			}
			merged = append(merged, e)
		}
	}
	return merged
}

// merge is h on top of what the image says, as Docker does: a test of one's own
// drops nothing else of the image's, and NONE drops all. The result holds a test,
// or is nil.
func (h *Health) merge(image *Health) *Health {
	if h == nil && image == nil {
		return nil
	}
	var m Health
	if h != nil {
		m = *h
	}
	if image != nil && !m.off() {
		if len(m.Test) == 0 {
			m.Test = image.Test
		}
		fill(&m.Interval, image.Interval)
		fill(&m.Timeout, image.Timeout)
		fill(&m.StartPeriod, image.StartPeriod)
		fill(&m.StartInterval, image.StartInterval)
		fill(&m.Retries, image.Retries)
	}
	if len(m.Test) == 0 || m.off() {
		return nil
	}
	return &m
}

// off reports whether there is to be no probing.
func (h *Health) off() bool { return len(h.Test) > 0 && h.Test[0] == "NONE" }

// fill gives a field that is zero a value.
func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// targets are the mount points that the specification needs.
func (sp *Spec) targets() []Target {
	var targets []Target
	for _, m := range sp.Mounts {
		targets = append(targets, Target{Path: m.Target, Source: m.Source})
	}
	return targets
}
