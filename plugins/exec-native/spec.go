package execnative

import (
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
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
	Init        string // host path of gantry-init; empty where the container has none
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
	process, err := processOf(r.Process, settingOf(r), f)
	if err != nil {
		return nil, err
	}
	mounts, err := mountsOf(r, f)
	if err != nil {
		return nil, err
	}
	devices, err := devicesOf(r.Security, f.Devices)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:    specs.Version,
		Process:    process,
		Root:       &specs.Root{Path: "rootfs", Readonly: r.ReadOnly},
		Hostname:   r.Hostname,
		Domainname: r.Domain,
		Mounts:     mounts,
		Linux: &specs.Linux{
			Namespaces:  namespacesOf(r),
			Resources:   resources,
			Devices:     devices,
			UIDMappings: mappingsOf(r.IDMap.UIDs),
			GIDMappings: mappingsOf(r.IDMap.GIDs),
			Sysctl:      sysctlsOf(r),
		},
	}
	if r.Namespaces.UTS.Mode != execdriver.ShareNone { // the names are somebody else's
		s.Hostname, s.Domainname = "", ""
	}
	if !r.Security.Privileged && !r.Security.OpenPaths {
		s.Linux.MaskedPaths = defaultMasked(f.CPUs)
		s.Linux.ReadonlyPaths = defaultReadOnly()
	}
	return s, nil
}

// checkRequest refuses what cannot be, by field and value.
func checkRequest(r execdriver.Start) error {
	if err := checkProcess(r.Process); err != nil {
		return err
	}
	invalid := func(format string, args ...any) error {
		return driver.Errorf(errdefs.ErrInvalidArgument, format, args...)
	}
	switch {
	case !isName(r.Container):
		return invalid("Container %q", r.Container)
	case len(r.Hostname) > longestHostname:
		return invalid("Hostname %q: longer than %d bytes", r.Hostname, longestHostname)
	case strings.ContainsAny(r.Hostname, "\n\x00/"):
		return invalid("Hostname %q", r.Hostname)
	case len(r.Domain) > longestHostname:
		return invalid("Domain %q: longer than %d bytes", r.Domain, longestHostname)
	case !r.IDMap.IsZero() && r.UserNS.Mode != netdriver.NamespacePath:
		return invalid("IDMap without UserNS: the user namespace is held before (HoldUserNS)")
	case r.IDMap.IsZero() && r.UserNS.Mode != "" && r.UserNS.Mode != netdriver.NamespaceHost:
		return invalid("UserNS without IDMap")
	case r.ShmBytes < 0:
		return invalid("ShmBytes %d is negative", r.ShmBytes)
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
	return checkShares(r)
}

// checkProcess refuses what cannot be, by field and value.
func checkProcess(p execdriver.Process) error {
	invalid := func(format string, args ...any) error {
		return driver.Errorf(errdefs.ErrInvalidArgument, format, args...)
	}
	const mostCells = 1<<16 - 1 // struct winsize
	switch {
	case len(p.Args) == 0:
		return invalid("Process.Args is empty")
	case p.Cwd != "" && !path.IsAbs(p.Cwd):
		return invalid("Process.Cwd %q: not an absolute path", p.Cwd)
	case p.Rows < 0 || p.Rows > mostCells || p.Columns < 0 || p.Columns > mostCells:
		return invalid("Process.Rows %d, Process.Columns %d: want 0 to %d", p.Rows, p.Columns, mostCells)
	}
	return nil
}

// processOf states the program, its user and what it may. set is the
// container's: what an exec does not have of its own.
func processOf(p execdriver.Process, set setting, f facts) (*specs.Process, error) {
	caps, err := capsWanted(set.Security.Privileged, set.Security.CapAdd, set.Security.CapDrop, f.Bounding)
	if err != nil {
		return nil, err
	}
	limits, err := rlimitsOf(set.Ulimits, f.NofileHard)
	if err != nil {
		return nil, err
	}
	names := oci.CapList(caps)
	sets := &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
	if f.User.UID != 0 { // as the kernel would at the change of ids
		sets.Effective, sets.Permitted = nil, nil
	}
	if weak.Off(weak.NoInheritable) { // which only permitted ones can be made
		sets.Inheritable, sets.Permitted = names, names
	}
	cwd := "/"
	if p.Cwd != "" {
		cwd = path.Clean(p.Cwd)
	}
	score, err := oomScore(set.OOMScore, f)
	if err != nil {
		return nil, err
	}
	out := &specs.Process{
		User:            specs.User{UID: f.User.UID, GID: f.User.GID, AdditionalGids: f.User.Groups},
		Args:            slices.Clone(p.Args),
		Env:             environment(p, set.Hostname, f.User.Home),
		Cwd:             cwd,
		Capabilities:    sets,
		Rlimits:         limits,
		NoNewPrivileges: set.Security.NoNewPrivileges,
		OOMScoreAdj:     &score,
		Terminal:        p.TTY,
		ApparmorProfile: apparmorOf(set.Security),
	}
	if p.TTY && (p.Rows > 0 || p.Columns > 0) {
		out.ConsoleSize = &specs.Box{Height: uint(p.Rows), Width: uint(p.Columns)}
	}
	return out, nil
}

// oomScore is the score that can be set: without CAP_SYS_RESOURCE the kernel
// takes none below our own. Where nothing was asked for, ours will do.
func oomScore(want int, f facts) (int, error) {
	switch {
	case want < -1000 || want > 1000:
		return 0, driver.Errorf(errdefs.ErrInvalidArgument, "Process.OOMScore %d is not from -1000 to 1000", want)
	case want == 0:
		return max(0, f.OOMScoreAdj), nil
	case want < f.OOMScoreAdj && f.Bounding&(1<<unix.CAP_SYS_RESOURCE) == 0:
		return 0, driver.Errorf(errdefs.ErrNotImplemented, "Process.OOMScore %d: below the driver's own %d, and without CAP_SYS_RESOURCE it cannot go there", want, f.OOMScoreAdj)
	}
	return want, nil
}

// rlimitsOf states the limits that were asked for, and always that of open
// files: Go raises its own soft limit, and children must not inherit that.
func rlimitsOf(ulimits []execdriver.Ulimit, nofileHard uint64) ([]specs.POSIXRlimit, error) {
	out := []specs.POSIXRlimit{nofile(nofileHard)}
	for _, u := range ulimits {
		limit := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)}
		if u.Soft < -1 || u.Hard < -1 || limit.Soft > limit.Hard { // -1 is RLIM_INFINITY
			return nil, driver.Errorf(errdefs.ErrInvalidArgument, "ulimit %s=%d:%d: want a soft limit not above the hard one, -1 for none", u.Name, u.Soft, u.Hard)
		}
		if limit.Type == "RLIMIT_NOFILE" {
			out[0] = limit
			continue
		}
		out = append(out, limit)
	}
	return out, nil
}

// nofile is the limit of open files, never above what we may set.
func nofile(hard uint64) specs.POSIXRlimit {
	hard = min(hard, nofileHard)
	return specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: min(nofileSoft, hard), Hard: hard}
}

// environment puts Docker's variables before the image's and the request's,
// which win. A variable without "=" is left out.
func environment(p execdriver.Process, hostname, home string) []string {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + hostname}
	index := map[string]int{"PATH": 0, "HOSTNAME": 1}
	if p.TTY {
		index["TERM"] = len(env)
		env = append(env, "TERM=xterm")
	}
	for _, v := range p.Env {
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
