package execnative

import (
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// joinedPath stands in the specification for a namespace that the driver has
// opened itself (handles.Joins).
const joinedPath = "fd"

// namespacesOf lists the namespaces of a container: made new, or joined. What is
// the host's is not in the list.
func namespacesOf(r execdriver.Start) []specs.LinuxNamespace {
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, n := range sharesOf(r.Namespaces) {
		switch n.share.Mode {
		case execdriver.ShareNone:
			out = append(out, specs.LinuxNamespace{Type: n.kind})
		case execdriver.ShareContainer:
			out = append(out, specs.LinuxNamespace{Type: n.kind, Path: joinedPath})
		}
	}
	switch r.Network.Mode {
	case netdriver.NamespaceHost:
	case netdriver.NamespacePath:
		out = append(out, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: r.Network.Path})
	default:
		out = append(out, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	if !r.IDMap.IsZero() {
		out = append(out, specs.LinuxNamespace{Type: specs.UserNamespace, Path: joinedPath})
	}
	return out
}

// sharedKind is one kind of namespace and whose it is.
type sharedKind struct {
	name  string
	kind  specs.LinuxNamespaceType
	share execdriver.Share
}

func sharesOf(n execdriver.Namespaces) []sharedKind {
	return []sharedKind{
		{"PID", specs.PIDNamespace, n.PID}, {"IPC", specs.IPCNamespace, n.IPC},
		{"UTS", specs.UTSNamespace, n.UTS}, {"Cgroup", specs.CgroupNamespace, n.Cgroup},
	}
}

// checkShares refuses what cannot be shared, by field and value.
func checkShares(r execdriver.Start) error {
	if err := checkSELinux(r.Security.SELinux); err != nil {
		return err
	}
	invalid := func(format string, args ...any) error {
		return driver.Errorf(errdefs.ErrInvalidArgument, format, args...)
	}
	for _, n := range sharesOf(r.Namespaces) {
		switch {
		case n.share.Mode == execdriver.ShareContainer && (n.share.With.Container == "" || n.share.With.Exec != ""):
			return invalid("Namespaces.%s.With %+v: want the run of a container", n.name, n.share.With)
		case n.share.Mode != execdriver.ShareContainer && n.share.With != (execdriver.Key{}):
			return invalid("Namespaces.%s.With beside mode %q", n.name, n.share.Mode)
		case !slices.Contains([]string{execdriver.ShareNone, execdriver.ShareHost, execdriver.ShareContainer}, n.share.Mode):
			return invalid("Namespaces.%s.Mode %q", n.name, n.share.Mode)
		case n.share.Off && (n.name != "IPC" || n.share.Mode != execdriver.ShareNone):
			return invalid("Namespaces.%s.Off: only of an IPC namespace of the container's own", n.name)
		// A procfs and the like are made by whoever owns the namespace.
		case n.share.Mode == execdriver.ShareHost && !r.IDMap.IsZero() && (n.name == "PID" || n.name == "IPC"):
			return driver.Errorf(errdefs.ErrNotImplemented, "Namespaces.%s of the host does not go with a user namespace", n.name)
		}
	}
	for name := range r.Security.Sysctls {
		if err := checkSysctl(r, name); err != nil {
			return err
		}
	}
	return nil
}

// checkSysctl refuses sysctls that would be set for somebody else: the host, or
// the container whose namespace is shared is not asked.
func checkSysctl(r execdriver.Start, name string) error {
	clean := strings.ReplaceAll(name, "/", ".")
	mode, kind := "", ""
	switch {
	case strings.HasPrefix(clean, "net."):
		if kind = "Network"; r.Network.Mode == netdriver.NamespaceHost {
			mode = execdriver.ShareHost
		}
	case clean == "kernel.hostname", clean == "kernel.domainname":
		kind, mode = "UTS", r.Namespaces.UTS.Mode
	case strings.HasPrefix(clean, "kernel.msg"), strings.HasPrefix(clean, "kernel.shm"), clean == "kernel.sem", strings.HasPrefix(clean, "fs.mqueue."):
		kind, mode = "IPC", r.Namespaces.IPC.Mode
	default:
		return driver.Errorf(errdefs.ErrInvalidArgument, "Security.Sysctls %q is not of a namespace: it would be set for the whole machine", name)
	}
	if mode == execdriver.ShareHost {
		return driver.Errorf(errdefs.ErrInvalidArgument, "Security.Sysctls %q: the %s namespace is the host's", name, kind)
	}
	return nil
}

// sysctlsOf are the default ones, where the network is the container's own, and
// those that were asked for.
func sysctlsOf(r execdriver.Start) map[string]string {
	out := map[string]string{}
	if r.Network.Mode != netdriver.NamespaceHost {
		out = defaultSysctls()
		if !r.IDMap.IsZero() { // its range names groups that a map does not have
			delete(out, "net.ipv4.ping_group_range")
		}
	}
	maps.Copy(out, r.Security.Sysctls)
	if len(out) == 0 {
		return nil
	}
	return out
}
