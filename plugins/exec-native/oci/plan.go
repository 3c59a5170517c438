package oci

import (
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Handles are the descriptors and settings that a plan is made with beside the
// specification. The FDs are places among the files given to plan.Start.
type Handles struct {
	Front []plan.Op // stage 0: the monitor and what belongs to it, or Leave
	Gate  plan.Op   // where the init waits to be let go; nil for nowhere

	Cgroups      []plan.FD // version 1 tasks files of the container's cgroup
	CgroupDir    plan.FD   // its version 2 directory, or NoFD
	CgroupV1     []string  // controllers ("cpu,cpuacct", "name=systemd") of each version 1 hierarchy to show inside
	CgroupMounts []plan.FD // the container's directory in each of them, detached
	CgroupV2     bool      // the container sees version 2 alone

	Root     plan.FD
	Mounts   []Mount  // for each mount of the specification
	Network  plan.FD  // namespace to join, or NoFD
	OOMScore int      // our own: written only if the specification differs
	Filter   []byte   // compiled seccomp filter; empty for none
	Programs []string // candidates for the program
}

// Mount is a mount made on this side.
type Mount struct {
	FD    plan.FD // NoFD: the init makes it in its own namespaces
	IsDir bool    // what to make where the target is missing
}

// Plan turns a specification into the operations that make it so. It is pure:
// the same arguments give the same plan.
func Plan(s *specs.Spec, h Handles) (*plan.Plan, error) {
	p := &plan.Plan{}
	p.Add(plan.StageMonitor, h.Front...)
	if err := clonePart(p, s, h); err != nil {
		return nil, err
	}
	if err := childPart(p, s, h); err != nil {
		return nil, err
	}
	if err := mountPart(p, s, h); err != nil {
		return nil, err
	}
	coverPart(p, s)
	if h.Gate != nil {
		p.Add(plan.StageGate, h.Gate)
	}
	return p, identityPart(p, s.Process, filter{code: h.Filter}, h.Programs)
}

// clonePart is stage 2. The cgroup namespace is left for later: made by the
// clone, it would show the container the path of its own group.
func clonePart(p *plan.Plan, s *specs.Spec, h Handles) error {
	var flags uint64
	for _, ns := range s.Linux.Namespaces {
		flag, err := namespaceFlag(ns.Type)
		if err != nil {
			return err
		}
		switch {
		case ns.Type == specs.CgroupNamespace && ns.Path == "":
		case ns.Path == "":
			flags |= flag
		case ns.Type == specs.NetworkNamespace && h.Network != plan.NoFD:
		default:
			return errclass.Errorf(errdefs.ErrNotImplemented, "joining the %s namespace %s is not supported", ns.Type, ns.Path)
		}
	}
	p.Add(plan.StageClone, plan.Clone{Flags: flags, Cgroup: h.CgroupDir})
	return nil
}

// namespaceFlag is the kernel's flag for a type of namespace.
func namespaceFlag(t specs.LinuxNamespaceType) (uint64, error) {
	switch t {
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID, nil
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET, nil
	case specs.MountNamespace:
		return unix.CLONE_NEWNS, nil
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC, nil
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS, nil
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP, nil
	}
	return 0, errclass.Errorf(errdefs.ErrNotImplemented, "namespace %q is not supported", t)
}

// hasNamespace reports whether the container gets a new namespace of a type.
func hasNamespace(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == t && ns.Path == "" })
}

// childPart is stage 4: cgroups, the namespaces that depend on them, limits.
func childPart(p *plan.Plan, s *specs.Spec, h Handles) error {
	for _, fd := range h.Cgroups {
		p.Add(plan.StageChild, plan.Cgroup{FD: fd})
	}
	if hasNamespace(s, specs.CgroupNamespace) {
		p.Add(plan.StageChild, plan.Unshare{Flags: unix.CLONE_NEWCGROUP})
	}
	if h.Network != plan.NoFD {
		p.Add(plan.StageChild, plan.Join{FD: h.Network, Flags: unix.CLONE_NEWNET})
	}
	return attributePart(p, s.Process, h.OOMScore)
}

// coverPart is stage 6. The root becomes read-only last: the working directory
// may have to be made.
func coverPart(p *plan.Plan, s *specs.Spec) {
	if s.Hostname != "" {
		p.Add(plan.StageCover, plan.Hostname{Name: s.Hostname})
	}
	if s.Domainname != "" {
		p.Add(plan.StageCover, plan.Domainname{Name: s.Domainname})
	}
	if hasNamespace(s, specs.NetworkNamespace) {
		p.Add(plan.StageCover, plan.LinkUp{Name: "lo"})
	}
	names := make([]string, 0, len(s.Linux.Sysctl))
	for name := range s.Linux.Sysctl {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p.Add(plan.StageCover, plan.Sysctl{Path: strings.ReplaceAll(name, ".", "/"), Value: s.Linux.Sysctl[name]})
	}
	p.Add(plan.StageCover, plan.Chdir{Path: s.Process.Cwd, Create: true})
	for _, path := range s.Linux.MaskedPaths {
		p.Add(plan.StageCover, plan.Mask{Path: path, Null: plan.NoFD})
	}
	for _, path := range s.Linux.ReadonlyPaths {
		p.Add(plan.StageCover, plan.ReadOnly{Path: path})
	}
	if s.Root.Readonly {
		p.Add(plan.StageCover, plan.SetAttr{Path: "/", Attr: plan.Attr{Set: unix.MOUNT_ATTR_RDONLY}})
	}
}
