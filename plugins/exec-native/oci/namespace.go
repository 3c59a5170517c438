package oci

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// NamespaceFlag is the kernel's flag for a type of namespace.
func NamespaceFlag(t specs.LinuxNamespaceType) (uint64, error) {
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
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER, nil
	case specs.TimeNamespace:
		return unix.CLONE_NEWTIME, nil
	}
	return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.namespaces: type %q is not known", t)
}

// HasNamespace reports whether a specification names a namespace, and whether
// it is one to be joined.
func HasNamespace(s *specs.Spec, t specs.LinuxNamespaceType) (has, joined bool) {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == t {
			return true, ns.Path != ""
		}
	}
	return false, false
}

// CloneFlags are those of the clone that makes a container's init, of which its
// namespaces alone decide. fits: nothing is joined or left before the clone, so
// that the init may be made before the plan is (plan.Warm.Early).
func CloneFlags(all []specs.LinuxNamespace) (flags uint64, fits bool) {
	made, user := uint64(0), false
	fits = true
	for _, ns := range all {
		flag, err := NamespaceFlag(ns.Type)
		user = user || ns.Type == specs.UserNamespace
		switch {
		case err != nil || ns.Type == specs.TimeNamespace:
			fits = false
		case ns.Path == "" && ns.Type != specs.CgroupNamespace:
			made |= flag
		case ns.Path != "" && !slices.Contains(joinedLate(), ns.Type):
			fits = false
		}
	}
	joins := slices.ContainsFunc(all, func(ns specs.LinuxNamespace) bool { return ns.Path != "" })
	return made, fits && !(user && joins)
}

// joinedLate are the namespaces that the init itself may join, of the host's
// user namespace.
func joinedLate() []specs.LinuxNamespaceType {
	return []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace}
}

// namespaces says which ones are made and which are joined, and when.
type namespaces struct {
	made       []specs.LinuxNamespaceType
	early      []specs.LinuxNamespaceType // joined before the clone
	late       []specs.LinuxNamespaceType // joined by the init itself, which saves a process
	mappedRoot bool                       // there is a user namespace in which the init becomes root
}

// namespacesOf sorts the namespaces. Those of processes, clocks, mounts and users
// take effect for children only, or change what may be joined: they are joined
// before the clone, by a process in between. With a user namespace all are: the
// init would no longer have rights over what is the host's.
func namespacesOf(s *specs.Spec, h Handles) (namespaces, error) {
	var out namespaces
	hasUser, joinsUser := HasNamespace(s, specs.UserNamespace)
	var seen []specs.LinuxNamespaceType
	for _, ns := range s.Linux.Namespaces {
		if _, err := NamespaceFlag(ns.Type); err != nil {
			return out, err
		}
		if slices.Contains(seen, ns.Type) {
			return out, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.namespaces: %s is there twice", ns.Type)
		}
		seen = append(seen, ns.Type)
		switch {
		case ns.Path == "":
			out.made = append(out.made, ns.Type)
		case h.joined(ns.Type) == plan.NoFD:
			return out, errclass.Errorf(errdefs.ErrNotImplemented, "linux.namespaces: %s %s is not open to be joined", ns.Type, ns.Path)
		case !hasUser && slices.Contains(joinedLate(), ns.Type):
			out.late = append(out.late, ns.Type)
		default:
			out.early = append(out.early, ns.Type)
		}
	}
	out.mappedRoot = joinsUser || hasUser && mapsRoot(s.Linux.UIDMappings) && mapsRoot(s.Linux.GIDMappings)
	if hasUser && !slices.Contains(seen, specs.MountNamespace) {
		return out, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.namespaces: a user namespace without a mount namespace: nothing could be mounted")
	}
	return out, nil
}

// mapsRoot reports whether a map has somebody for id 0.
func mapsRoot(m []specs.LinuxIDMapping) bool {
	return slices.ContainsFunc(m, func(e specs.LinuxIDMapping) bool { return e.ContainerID == 0 && e.Size > 0 })
}

// enter is stages 1 to 3. The cgroup namespace is left for later: made by the
// clone, it would show the container the path of its own group.
func (ns namespaces) enter(p *plan.Plan, s *specs.Spec, h Handles) error {
	// The user namespace comes last: the host's root may join all the others
	// already, also those that belong to it.
	slices.SortStableFunc(ns.early, func(a, b specs.LinuxNamespaceType) int {
		return boolInt(a == specs.UserNamespace) - boolInt(b == specs.UserNamespace)
	})
	for _, t := range ns.early {
		flag, _ := NamespaceFlag(t)
		p.Add(plan.StageJoin, plan.Join{FD: h.joined(t), Flags: uint32(flag)})
	}
	if slices.Contains(ns.made, specs.TimeNamespace) {
		offsets, err := timeOffsets(s.Linux.TimeOffsets)
		if err != nil {
			return err
		}
		p.Add(plan.StageJoin, plan.Unshare{Flags: unix.CLONE_NEWTIME})
		if offsets != "" {
			p.Add(plan.StageJoin, plan.ProcWrite{Name: "timens_offsets", Data: offsets})
		}
	} else if len(s.Linux.TimeOffsets) > 0 {
		return invalid("linux.timeOffsets without a new time namespace")
	}
	var flags uint64
	for _, t := range ns.made {
		if t != specs.CgroupNamespace && t != specs.TimeNamespace {
			flag, _ := NamespaceFlag(t)
			flags |= flag
		}
	}
	p.Add(plan.StageClone, plan.Clone{Flags: flags, Cgroup: h.CgroupDir})
	return ns.mapIDs(p, s)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// mapIDs writes the maps of a new user namespace.
func (ns namespaces) mapIDs(p *plan.Plan, s *specs.Spec) error {
	if !slices.Contains(ns.made, specs.UserNamespace) {
		if len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) > 0 && !slices.Contains(ns.early, specs.UserNamespace) {
			return invalid("linux.uidMappings without a user namespace")
		}
		return nil
	}
	if len(s.Linux.UIDMappings) == 0 || len(s.Linux.GIDMappings) == 0 {
		return invalid("a new user namespace without linux.uidMappings and linux.gidMappings")
	}
	p.Add(plan.StageParent,
		plan.ProcWrite{Name: "uid_map", Data: idMap(s.Linux.UIDMappings)},
		plan.ProcWrite{Name: "gid_map", Data: idMap(s.Linux.GIDMappings)})
	return nil
}

// idMap spells a map as user_namespaces(7) has it.
func idMap(m []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, e := range m {
		fmt.Fprintf(&b, "%d %d %d\n", e.ContainerID, e.HostID, e.Size)
	}
	return b.String()
}

// timeOffsets spells offsets as time_namespaces(7) has them.
func timeOffsets(offsets map[string]specs.LinuxTimeOffset) (string, error) {
	var b strings.Builder
	for _, clock := range []string{"monotonic", "boottime"} {
		if o, ok := offsets[clock]; ok {
			fmt.Fprintf(&b, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
		}
	}
	for clock := range offsets {
		if clock != "monotonic" && clock != "boottime" {
			return "", errclass.Errorf(errdefs.ErrInvalidArgument, "linux.timeOffsets: clock %q has none", clock)
		}
	}
	return b.String(), nil
}

// joinLate has the init join what it may join itself.
func (ns namespaces) joinLate(p *plan.Plan, h Handles) {
	for _, t := range ns.late {
		flag, _ := NamespaceFlag(t)
		p.Add(plan.StageChild, plan.Join{FD: h.joined(t), Flags: uint32(flag)})
	}
}

// nsGetType is NS_GET_NSTYPE (include/uapi/linux/nsfs.h).
const nsGetType = 0xb703

// OpenNamespace opens a namespace to be joined and makes sure that it is of the
// type meant.
func OpenNamespace(path string, t specs.LinuxNamespaceType) (*os.File, error) {
	flag, err := NamespaceFlag(t)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.namespaces: open %s: %w", t, err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		f.Close()
		return nil, fmt.Errorf("look at namespace %s: %w", path, err)
	}
	is := -1
	if fs.Type == unix.NSFS_MAGIC {
		is, err = unix.IoctlRetInt(int(f.Fd()), nsGetType)
	}
	if err != nil || is != int(flag) {
		f.Close()
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.namespaces: %s is not a %s namespace", path, t)
	}
	return f, nil
}
