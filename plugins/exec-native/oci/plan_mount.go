package oci

import (
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountPart is stage 5: everything is mounted in the specification's order;
// device nodes follow right after /dev, before anything of the image's or of
// the user's can be mounted over it.
func mountPart(p *plan.Plan, s *specs.Spec, h Handles) error {
	if err := rootPart(p, s, h); err != nil {
		return err
	}
	fresh := slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev" })
	if fresh < 0 {
		if err := deviceNodes(p, s, h); err != nil {
			return err
		}
	}
	for i, m := range s.Mounts {
		if err := oneMount(p, s, h, i); err != nil {
			return err
		}
		if i == fresh && wantsNodes(m) {
			if err := deviceNodes(p, s, h); err != nil {
				return err
			}
		}
	}
	if s.Process.Terminal {
		rows, cols := consoleSize(s.Process.ConsoleSize)
		p.Add(plan.StageMounts, plan.Console{Rows: rows, Cols: cols})
	}
	if h.Sync {
		p.Add(plan.StageMounts, plan.Sync{Point: SyncHooks})
	}
	if s.Hooks != nil {
		if err := hooksInside(p, plan.StageMounts, "createContainer", s.Hooks.CreateContainer, h.States.Create); err != nil {
			return err
		}
	}
	switch own, joined := HasNamespace(s, specs.MountNamespace); {
	case !own:
		p.Add(plan.StageMounts, plan.Chroot{FD: h.Root})
	case joined || h.NoPivot:
		p.Add(plan.StageMounts, plan.MoveRoot{}) // others live in a joined namespace: its root stays
	default:
		p.Add(plan.StageMounts, plan.Pivot{})
	}
	return nil
}

// wantsNodes reports whether a /dev is to be filled: the host's, bound into the
// container or mounted anew, is left as it is.
func wantsNodes(m specs.Mount) bool {
	o, err := optionsOf(m)
	return err == nil && !o.bind && !o.remount && m.Type != "devtmpfs"
}

// rootPart makes the namespace deaf to what happens outside but for what it may
// hear, and attaches the root.
func rootPart(p *plan.Plan, s *specs.Spec, h Handles) error {
	propagation, err := rootPropagation(s.Linux.RootfsPropagation)
	if err != nil {
		return err
	}
	attr := plan.Attr{Propagation: unix.MS_PRIVATE, Recursive: true}
	if propagation.Propagation == unix.MS_SLAVE || propagation.Propagation == unix.MS_SHARED {
		attr.Propagation = unix.MS_SLAVE
	}
	own, joined := HasNamespace(s, specs.MountNamespace)
	if !own { // who makes the plan has attached it, and takes it off again
		p.Add(plan.StageMounts, plan.RootHere{FD: h.Root})
		return nil
	}
	if !joined {
		p.Add(plan.StageMounts, plan.Propagation{Flags: unix.MS_REC | unix.MS_SLAVE})
	}
	p.Add(plan.StageMounts, plan.Root{FD: h.Root, Attr: attr})
	return nil
}

// oneMount is the mount of a place in the specification.
func oneMount(p *plan.Plan, s *specs.Spec, h Handles, i int) error {
	m := s.Mounts[i]
	m.Destination = path.Join("/", m.Destination) // relative ones are old, and mean the same
	o, err := optionsOf(m)
	if err != nil {
		return err
	}
	switch {
	case o.remount:
		if len(o.data)+len(o.super) > 0 {
			return errclass.Errorf(errdefs.ErrNotImplemented, "mounts: %s: remount with %s: only flags of the mount can be changed", m.Destination, append(o.data, o.super...)[0])
		}
		addAttrs(p, m.Destination, o)
	case h.Mounts[i].Source.Path != "":
		src := h.Mounts[i].Source
		p.Add(plan.StageMounts, plan.Bind{
			Source: src.Path, Major: src.Major, Minor: src.Minor, Inode: src.Inode, Recursive: src.Tree, Peer: h.Mounts[i].FD,
			Target: m.Destination, Create: h.Mounts[i].create(), Attrs: src.Attrs,
		})
	case h.Mounts[i].FD != plan.NoFD:
		p.Add(plan.StageMounts, plan.Attach{FD: h.Mounts[i].FD, Target: m.Destination, Create: h.Mounts[i].create()})
	case m.Type == "cgroup":
		return cgroupMounts(p, m, o, h)
	default:
		p.Add(plan.StageMounts, filesystemOf(m, o, s.Linux.MountLabel))
		o.top = attributes{}
		addAttrs(p, m.Destination, o)
	}
	return nil
}

// addAttrs changes a mount that is there.
func addAttrs(p *plan.Plan, at string, o options) {
	for _, a := range o.changes(false) {
		p.Add(plan.StageMounts, plan.SetAttr{Path: at, Attr: a})
	}
}

// filesystemOf turns a mount into a file system made by the init.
func filesystemOf(m specs.Mount, o options, label string) plan.Filesystem {
	fs := plan.Filesystem{Type: m.Type, Target: m.Destination, Create: plan.CreateDir, Attrs: o.top.set}
	if m.Source != "" { // what the mount table shows
		fs.Params = append(fs.Params, plan.Param{Type: plan.ParamString, Key: "source", Value: m.Source})
	}
	for _, word := range o.super {
		fs.Params = append(fs.Params, plan.Param{Type: plan.ParamFlag, Key: word})
	}
	for _, word := range o.data {
		if m.Type == "devpts" && word == "newinstance" { // the kernel's only way since 4.7
			continue
		}
		key, value, ok := strings.Cut(word, "=")
		param := plan.Param{Type: plan.ParamFlag, Key: key}
		if ok {
			param.Type, param.Value = plan.ParamString, value
		}
		fs.Params = append(fs.Params, param)
	}
	if label != "" && takesLabel(m.Type) {
		fs.Params = append(fs.Params, plan.Param{Type: plan.ParamString, Key: "context", Value: label})
	}
	return fs
}

// takesLabel reports whether files of a type have labels of their own, which
// linux.mountLabel replaces.
func takesLabel(kind string) bool {
	switch kind {
	case "proc", "sysfs", "cgroup", "cgroup2", "mqueue":
		return false
	}
	return true
}

// cgroupMounts shows the container its own groups. With version 1 that is a
// tmpfs with a directory for each hierarchy, and a link for each controller of
// one that has several. Clones of the container's own directories look the same
// as mounts made in its cgroup namespace, for a fraction of the time; the file
// system is the host's either way.
func cgroupMounts(p *plan.Plan, m specs.Mount, o options, h Handles) error {
	o.top = o.top.then(o.all) // each of the mounts is given all
	fs := filesystemOf(m, o, "")
	if h.CgroupV2 {
		fs.Type = "cgroup2"
		p.Add(plan.StageMounts, fs)
		return nil
	}
	if max(len(h.CgroupMounts), len(h.CgroupPaths)) < len(h.CgroupV1) { // it has none: there is nothing to be shown
		return nil
	}
	p.Add(plan.StageMounts, plan.Filesystem{
		Type: "tmpfs", Target: m.Destination, Create: plan.CreateDir,
		Attrs: fs.Attrs &^ unix.MOUNT_ATTR_RDONLY, Params: append(slices.Clone(fs.Params), plan.Param{Type: plan.ParamString, Key: "mode", Value: "755"}),
	})
	for i, list := range h.CgroupV1 {
		at := path.Join(m.Destination, strings.TrimPrefix(list, "name="))
		attr := plan.Attr{Set: fs.Attrs, Propagation: unix.MS_PRIVATE}
		if len(h.CgroupPaths) > 0 {
			p.Add(plan.StageMounts, plan.Bind{Source: h.CgroupPaths[i], Peer: plan.NoFD, Target: at, Create: plan.CreateDir, Attrs: []plan.Attr{attr}})
		} else {
			p.Add(plan.StageMounts, plan.Attach{FD: h.CgroupMounts[i], Target: at, Create: plan.CreateDir, Attr: attr})
		}
		controllers := strings.Split(list, ",")
		if len(controllers) > 1 {
			for _, c := range controllers {
				p.Add(plan.StageMounts, plan.Symlink{Path: path.Join(m.Destination, c), To: list})
			}
		}
	}
	if fs.Attrs&unix.MOUNT_ATTR_RDONLY != 0 {
		p.Add(plan.StageMounts, plan.SetAttr{Path: m.Destination, Attr: plan.Attr{Set: unix.MOUNT_ATTR_RDONLY}})
	}
	return nil
}

// deviceNodes fills /dev: a fresh one whole, the image's own with what it lacks.
// Of two nodes at one place the container's own, named later, is made.
func deviceNodes(p *plan.Plan, s *specs.Spec, h Handles) error {
	devices := append(DefaultDevices(), s.Linux.Devices...)
	// The pty multiplexer is that of the container's own devpts, whatever was
	// taken over from the host's /dev.
	devices = slices.DeleteFunc(devices, func(d specs.LinuxDevice) bool { return d.Path == "/dev/ptmx" })
	for i, d := range devices {
		if slices.ContainsFunc(devices[i+1:], func(later specs.LinuxDevice) bool { return later.Path == d.Path }) || h.Kept[d.Path] {
			continue
		}
		node, err := nodeOf(d)
		if err != nil {
			return err
		}
		if fd, ok := h.Devices[d.Path]; ok {
			p.Add(plan.StageMounts, plan.Attach{FD: fd, Target: d.Path, Create: plan.CreateFile})
			continue
		}
		p.Add(plan.StageMounts, node)
	}
	for _, l := range [][2]string{
		{"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"}, {"/dev/core", "/proc/kcore"}, {"/dev/ptmx", "pts/ptmx"},
	} {
		if !h.Kept[l[0]] {
			p.Add(plan.StageMounts, plan.Symlink{Path: l[0], To: l[1]})
		}
	}
	return nil
}

// nodeOf is the node of a device.
func nodeOf(d specs.LinuxDevice) (plan.Node, error) {
	var kind uint32
	switch d.Type {
	case "c", "u":
		kind = unix.S_IFCHR
	case "b":
		kind = unix.S_IFBLK
	case "p":
		kind = unix.S_IFIFO
	default:
		return plan.Node{}, errclass.Errorf(errdefs.ErrInvalidArgument, "device %s of type %q: want c, u, b or p", d.Path, d.Type)
	}
	node := plan.Node{Path: path.Join("/", d.Path), Mode: kind | 0o666, Major: uint32(d.Major), Minor: uint32(d.Minor)}
	if d.FileMode != nil {
		node.Mode = kind | uint32(d.FileMode.Perm())
	}
	if d.UID != nil {
		node.UID = *d.UID
	}
	if d.GID != nil {
		node.GID = *d.GID
	}
	return node, nil
}
