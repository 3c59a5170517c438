package oci

import (
	"slices"

	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// SyncHooks is the Sync point before the pivot at which the hooks prestart and
// createRuntime are run, and network devices moved, from outside.
const SyncHooks = 1

// Handles are the descriptors and settings that a plan is made with beside the
// specification. The FDs are places among the files that go with the plan.
type Handles struct {
	Front []plan.Op // stage 0: the monitor and what belongs to it, or Leave
	Gate  plan.Op   // where the init waits to be let go; nil for nowhere

	Cgroups      []plan.FD // version 1 tasks files of the container's cgroup
	CgroupDir    plan.FD   // its version 2 directory, or NoFD
	CgroupV1     []string  // controllers ("cpu,cpuacct", "name=systemd") of each version 1 hierarchy to show inside
	CgroupMounts []plan.FD // the container's directory in each of them, detached
	CgroupPaths  []string  // or the directories, for the init to clone (plan.Bind)
	CgroupV2     bool      // the container sees version 2 alone

	Root    plan.FD
	Mounts  []Mount            // for each mount of the specification
	Devices map[string]plan.FD // mounts of the host's nodes by their path inside, where none can be made (user namespace)
	Kept    map[string]bool    // nodes of /dev that the image has already, as they should be
	Network plan.FD            // namespace to join, or NoFD
	// Joins are the other namespaces to join, in place of the specification's
	// paths. What it does not name is made new or left as it is.
	Joins map[specs.LinuxNamespaceType]plan.FD

	OOMScore    int      // our own: written only if the specification differs
	Filter      []byte   // compiled seccomp filter; empty for none
	FilterFlags uint32   // SECCOMP_FILTER_FLAG_…
	Programs    []string // candidates for the program
	NoPivot     bool     // MoveRoot in place of Pivot
	Keyring     string   // name of a new session keyring; empty for none
	Sync        bool     // stop at SyncHooks
	// States are the state in JSON that the hooks of a kind are told, with room
	// for the pid (plan.PIDRoom): of createContainer and startContainer.
	States struct{ Create, Start []byte }
}

// joined is the descriptor of a namespace to join, or NoFD.
func (h Handles) joined(t specs.LinuxNamespaceType) plan.FD {
	if t == specs.NetworkNamespace && h.Network != plan.NoFD {
		return h.Network
	}
	if fd, ok := h.Joins[t]; ok {
		return fd
	}
	return plan.NoFD
}

// Mount is a mount made on this side, or of something on this side.
type Mount struct {
	FD     plan.FD // NoFD: the init makes it in its own namespaces
	Source Source  // of what, if the init makes a bind mount; FD is then its peer
	IsDir  bool    // what to make where the target is missing
}

// create is what the target is made as where it is missing.
func (m Mount) create() uint32 {
	if m.IsDir {
		return plan.CreateDir
	}
	return plan.CreateFile
}

// Plan turns a specification into the operations that make it so. It is pure:
// the same arguments give the same plan.
func Plan(s *specs.Spec, h Handles) (*plan.Plan, error) {
	p := &plan.Plan{}
	p.Add(plan.StageMonitor, h.Front...)
	ns, err := namespacesOf(s, h)
	if err != nil {
		return nil, err
	}
	if err := ns.enter(p, s, h); err != nil {
		return nil, err
	}
	if err := childPart(p, s, h, ns); err != nil {
		return nil, err
	}
	if err := mountPart(p, s, h); err != nil {
		return nil, err
	}
	if err := coverPart(p, s, ns); err != nil {
		return nil, err
	}
	if h.Gate != nil {
		p.Add(plan.StageGate, h.Gate)
	}
	if s.Hooks != nil {
		if err := hooksInside(p, plan.StageGate, "startContainer", s.Hooks.StartContainer, h.States.Start); err != nil {
			return nil, err
		}
	}
	if err := linuxIdentity(p, s); err != nil {
		return nil, err
	}
	return p, identityPart(p, s.Process, filter{h.Filter, h.FilterFlags}, h.Programs)
}

// linuxIdentity is what linux says about the program itself.
func linuxIdentity(p *plan.Plan, s *specs.Spec) error {
	if s.Linux.Personality != nil {
		op, err := personalityOf(s.Linux.Personality)
		if err != nil {
			return err
		}
		p.Add(plan.StageIdentity, op)
	}
	if s.Linux.MemoryPolicy != nil {
		op, err := memoryPolicyOf(s.Linux.MemoryPolicy)
		if err != nil {
			return err
		}
		p.Add(plan.StageIdentity, op)
	}
	return nil
}

// childPart is stage 4: cgroups, the namespaces that depend on them, limits,
// and the ids of a user namespace. What needs rights over the host comes before
// those.
func childPart(p *plan.Plan, s *specs.Spec, h Handles, ns namespaces) error {
	for _, fd := range h.Cgroups {
		p.Add(plan.StageChild, plan.Cgroup{FD: fd})
	}
	if slices.Contains(ns.made, specs.CgroupNamespace) {
		p.Add(plan.StageChild, plan.Unshare{Flags: unix.CLONE_NEWCGROUP})
	}
	ns.joinLate(p, h)
	if ns.mappedRoot {
		p.Add(plan.StageChild, plan.User{})
	}
	if err := attributePart(p, s.Process, h.OOMScore); err != nil {
		return err
	}
	if h.Keyring != "" {
		p.Add(plan.StageChild, plan.Keyring{Name: h.Keyring})
	}
	return nil
}

// coverPart is stage 6. The root becomes read-only last: the working directory
// may have to be made.
func coverPart(p *plan.Plan, s *specs.Spec, ns namespaces) error {
	if s.Hostname != "" {
		p.Add(plan.StageCover, plan.Hostname{Name: s.Hostname})
	}
	if s.Domainname != "" {
		p.Add(plan.StageCover, plan.Domainname{Name: s.Domainname})
	}
	if slices.Contains(ns.made, specs.NetworkNamespace) {
		p.Add(plan.StageCover, plan.LinkUp{Name: "lo"})
	}
	sysctls, err := sysctlOps(s)
	if err != nil {
		return err
	}
	p.Add(plan.StageCover, sysctls...)
	p.Add(plan.StageCover, labelOps(s.Process)...)
	p.Add(plan.StageCover, plan.Chdir{Path: s.Process.Cwd, Create: true})
	for _, path := range s.Linux.MaskedPaths {
		p.Add(plan.StageCover, plan.Mask{Path: path, Null: plan.NoFD})
	}
	for _, path := range s.Linux.ReadonlyPaths {
		p.Add(plan.StageCover, plan.ReadOnly{Path: path})
	}
	propagation, err := rootPropagation(s.Linux.RootfsPropagation)
	if err != nil {
		return err
	}
	if propagation.Propagation != 0 && propagation.Propagation != unix.MS_PRIVATE && propagation.Propagation != unix.MS_SLAVE {
		p.Add(plan.StageCover, plan.SetAttr{Path: "/", Attr: propagation}) // no pivot into a shared mount
	}
	if s.Root.Readonly {
		p.Add(plan.StageCover, plan.SetAttr{Path: "/", Attr: plan.Attr{Set: unix.MOUNT_ATTR_RDONLY}})
	}
	return nil
}
