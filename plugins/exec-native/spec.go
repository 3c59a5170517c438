package execnative

import (
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Bounds of a request.
const (
	longestHostname = 64      // __NEW_UTS_LEN
	leastMemory     = 6 << 20 // bytes; with less a container's init cannot start
	cpuPeriod       = 100_000 // microseconds, the kernel's default
	leastQuota      = 1000    // microseconds, the kernel's least
	mostTries       = 64      // directories of PATH (plan.MaxTries)
	nofileSoft      = 1024
	nofileHard      = 524288
)

// facts is what the specification needs to know of the machine and the image.
type facts struct {
	Bounding    uint64              // our own bounding set
	NofileHard  uint64              // our own hard limit of open files
	OOMScoreAdj int                 // our own; children may not go below it
	Swap        bool                // memory and swap can be limited together
	CPUs        int                 // processors with throttling counters to mask
	Devices     []specs.LinuxDevice // the host's, for privileged containers
	User        oci.User
	Hostname    string // host path of the file to be /etc/hostname; empty for none
}

// specOf states a start request as an OCI runtime specification, with Docker's
// defaults. The seccomp profile is not in it: the driver compiles the default
// one by the bounding set. Root.Path and mounts of type overlay are for the
// reader's information: the driver mounts them itself.
func specOf(r execdriver.Start, f facts) (*specs.Spec, error) {
	if err := checkRequest(r); err != nil {
		return nil, err
	}
	resources, err := resourcesOf(r, f)
	if err != nil {
		return nil, err
	}
	process, err := processOf(r, f)
	if err != nil {
		return nil, err
	}
	mounts := slices.DeleteFunc(defaultMounts(), func(m specs.Mount) bool { return replaced(m.Destination, r.Mounts) })
	if r.Security.Privileged {
		mounts = writable(mounts, "/sys", "/sys/fs/cgroup")
	}
	if f.Hostname != "" && !slices.ContainsFunc(r.Mounts, func(m driver.Mount) bool { return m.Target == "/etc/hostname" }) {
		mounts = append(mounts, specs.Mount{Destination: "/etc/hostname", Type: "bind", Source: f.Hostname, Options: []string{"bind", "rprivate"}})
	}
	for _, m := range r.Mounts {
		mounts = append(mounts, specs.Mount{Destination: m.Target, Type: m.Type, Source: m.Source, Options: m.Options})
	}
	s := &specs.Spec{
		Version:    specs.Version,
		Process:    process,
		Root:       &specs.Root{Path: "rootfs", Readonly: r.ReadOnly},
		Hostname:   r.Hostname,
		Domainname: r.Domain,
		Mounts:     mounts,
		Linux: &specs.Linux{
			Namespaces: namespacesOf(r.Network),
			Resources:  resources,
			Devices:    slices.Clone(f.Devices),
		},
	}
	if r.Network.Mode != netdriver.NamespaceHost {
		s.Linux.Sysctl = defaultSysctls()
	}
	if !r.Security.Privileged {
		s.Linux.Devices = nil
		s.Linux.MaskedPaths = defaultMasked(f.CPUs)
		s.Linux.ReadonlyPaths = defaultReadOnly()
	}
	return s, nil
}

// checkRequest refuses what cannot be, by field and value.
func checkRequest(r execdriver.Start) error {
	invalid := func(format string, args ...any) error {
		return driver.Errorf(errdefs.ErrInvalidArgument, format, args...)
	}
	switch {
	case !isName(r.Container):
		return invalid("Container %q", r.Container)
	case len(r.Process.Args) == 0 || r.Process.Args[0] == "":
		return invalid("Process.Args is empty")
	case r.Process.Cwd != "" && !path.IsAbs(r.Process.Cwd):
		return invalid("Process.Cwd %q: not an absolute path", r.Process.Cwd)
	case len(r.Hostname) > longestHostname:
		return invalid("Hostname %q: longer than %d bytes", r.Hostname, longestHostname)
	case strings.ContainsAny(r.Hostname, "\n\x00/"):
		return invalid("Hostname %q", r.Hostname)
	case len(r.Domain) > longestHostname:
		return invalid("Domain %q: longer than %d bytes", r.Domain, longestHostname)
	case !r.IDMap.IsZero():
		return driver.Errorf(errdefs.ErrNotImplemented, "IDMap: user namespaces are not supported by this driver yet")
	case r.Security.Seccomp != "" && r.Security.Seccomp != "unconfined":
		return invalid("Security.Seccomp %q: want \"\" or \"unconfined\"", r.Security.Seccomp)
	case len(r.Rootfs) != 1:
		return invalid("Rootfs of %d mounts: want one", len(r.Rootfs))
	}
	for _, m := range r.Mounts {
		if !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" {
			return invalid("Mounts target %q: want an absolute, clean path below /", m.Target)
		}
	}
	switch r.Network.Mode {
	case "", netdriver.NamespaceNew, netdriver.NamespaceHost:
	case netdriver.NamespacePath:
		if r.Network.Path == "" {
			return invalid("Network.Path is empty")
		}
	default:
		return invalid("Network.Mode %q", r.Network.Mode)
	}
	return nil
}

// namespacesOf lists the namespaces a container gets of its own.
func namespacesOf(network netdriver.Namespace) []specs.LinuxNamespace {
	out := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
		{Type: specs.UTSNamespace}, {Type: specs.CgroupNamespace},
	}
	switch network.Mode {
	case netdriver.NamespaceHost:
	case netdriver.NamespacePath:
		out = append(out, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: network.Path})
	default:
		out = append(out, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	return out
}

// processOf states the program, its user and what it may.
func processOf(r execdriver.Start, f facts) (*specs.Process, error) {
	caps, err := capsWanted(r.Security.Privileged, r.Security.CapAdd, r.Security.CapDrop, f.Bounding)
	if err != nil {
		return nil, err
	}
	names := oci.CapList(caps)
	sets := &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
	if f.User.UID != 0 { // as the kernel would at the change of ids
		sets.Effective, sets.Permitted = nil, nil
	}
	cwd := "/"
	if r.Process.Cwd != "" {
		cwd = path.Clean(r.Process.Cwd)
	}
	score := max(0, f.OOMScoreAdj)
	return &specs.Process{
		User:            specs.User{UID: f.User.UID, GID: f.User.GID, AdditionalGids: f.User.Groups},
		Args:            slices.Clone(r.Process.Args),
		Env:             environment(r, f.User.Home),
		Cwd:             cwd,
		Capabilities:    sets,
		Rlimits:         []specs.POSIXRlimit{nofile(f.NofileHard)},
		NoNewPrivileges: r.Security.NoNewPrivileges,
		OOMScoreAdj:     &score,
	}, nil
}

// nofile is the limit of open files, never above what we may set.
func nofile(hard uint64) specs.POSIXRlimit {
	hard = min(hard, nofileHard)
	return specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: min(nofileSoft, hard), Hard: hard}
}

// environment puts Docker's variables before the image's and the request's,
// which win. A variable without "=" is left out.
func environment(r execdriver.Start, home string) []string {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + r.Hostname}
	index := map[string]int{"PATH": 0, "HOSTNAME": 1}
	for _, v := range r.Process.Env {
		name, _, ok := strings.Cut(v, "=")
		if !ok {
			continue
		}
		if i, ok := index[name]; ok {
			env[i] = v
			continue
		}
		index[name] = len(env)
		env = append(env, v)
	}
	if i, ok := index["HOME"]; !ok {
		env = append(env, "HOME="+home)
	} else if env[i] == "HOME=" {
		env[i] = "HOME=" + home
	}
	return env
}

// resourcesOf states the limits.
func resourcesOf(r execdriver.Start, f facts) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{Devices: defaultDeviceRules()}
	if r.Security.Privileged {
		out.Devices = allDeviceRules()
	}
	if m := r.Resources.MemoryBytes; m != 0 {
		if m < leastMemory {
			return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.MemoryBytes %d: at least %d (6 MiB)", m, leastMemory)
		}
		out.Memory = &specs.LinuxMemory{Limit: &m}
		if swap := 2 * m; f.Swap && swap > 0 {
			out.Memory.Swap = &swap
		}
	}
	if n := r.Resources.NanoCPUs; n != 0 {
		quota, period := int64(float64(n)*cpuPeriod/1e9), uint64(cpuPeriod)
		if quota < leastQuota {
			return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.NanoCPUs %d: at least 10000000 (0.01 processors)", n)
		}
		out.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if p := r.Resources.PidsLimit; p > 0 {
		out.Pids = &specs.LinuxPids{Limit: &p}
	}
	return out, nil
}

// replaced reports whether a default mount gives way to one that was asked for:
// one at the same place, or all of /dev.
func replaced(target string, mounts []driver.Mount) bool {
	return slices.ContainsFunc(mounts, func(m driver.Mount) bool {
		return m.Target == target || m.Target == "/dev" && strings.HasPrefix(target, "/dev/")
	})
}

// writable drops "ro" from the mounts at some places.
func writable(mounts []specs.Mount, at ...string) []specs.Mount {
	for i, m := range mounts {
		if slices.Contains(at, m.Destination) {
			mounts[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
		}
	}
	return mounts
}
