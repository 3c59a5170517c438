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
	p.Add(plan.StageMounts,
		plan.Propagation{Flags: unix.MS_REC | unix.MS_SLAVE},
		plan.Root{FD: h.Root, Attr: plan.Attr{Propagation: unix.MS_PRIVATE, Recursive: true}})
	for i, m := range s.Mounts {
		var err error
		switch {
		case h.Mounts[i].FD != plan.NoFD:
			create := plan.CreateFile
			if h.Mounts[i].IsDir {
				create = plan.CreateDir
			}
			p.Add(plan.StageMounts, plan.Attach{FD: h.Mounts[i].FD, Target: m.Destination, Create: create})
		case m.Type == "cgroup":
			err = cgroupMounts(p, m, h)
		default:
			var fs plan.Filesystem
			if fs, err = filesystemOf(m); err == nil {
				p.Add(plan.StageMounts, fs)
			}
		}
		if err != nil {
			return err
		}
		if m.Destination == "/dev" && m.Type == "tmpfs" {
			if err := deviceNodes(p, s); err != nil {
				return err
			}
		}
	}
	p.Add(plan.StageMounts, plan.Pivot{})
	return nil
}

// filesystemOf turns a mount into a file system made by the init.
func filesystemOf(m specs.Mount) (plan.Filesystem, error) {
	fs := plan.Filesystem{Type: m.Type, Target: m.Destination, Create: plan.CreateDir}
	switch m.Type {
	case "proc", "sysfs", "tmpfs", "devpts", "mqueue":
	default:
		return fs, errclass.Errorf(errdefs.ErrNotImplemented, "mount of type %q at %s is not supported", m.Type, m.Destination)
	}
	if m.Source != "" { // what the mount table shows
		fs.Params = append(fs.Params, plan.Param{Type: plan.ParamString, Key: "source", Value: m.Source})
	}
	for _, o := range m.Options {
		if bit, ok := attrBit(o); ok {
			fs.Attrs |= bit
			continue
		}
		if isPlainMountOption(o) || m.Type == "devpts" && o == "newinstance" { // the kernel's only way since 4.7
			continue
		}
		key, value, ok := strings.Cut(o, "=")
		param := plan.Param{Type: plan.ParamFlag, Key: key}
		if ok {
			param.Type, param.Value = plan.ParamString, value
		}
		fs.Params = append(fs.Params, param)
	}
	return fs, nil
}

// attrBit is the mount attribute of an option.
func attrBit(option string) (uint64, bool) {
	switch option {
	case "ro":
		return unix.MOUNT_ATTR_RDONLY, true
	case "nosuid":
		return unix.MOUNT_ATTR_NOSUID, true
	case "nodev":
		return unix.MOUNT_ATTR_NODEV, true
	case "noexec":
		return unix.MOUNT_ATTR_NOEXEC, true
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, true
	case "strictatime":
		return unix.MOUNT_ATTR_STRICTATIME, true
	case "nodiratime":
		return unix.MOUNT_ATTR_NODIRATIME, true
	}
	return 0, false
}

// isPlainMountOption reports options that say what is so anyway.
func isPlainMountOption(option string) bool {
	switch option {
	case "rw", "suid", "dev", "exec", "relatime", "private", "rprivate":
		return true
	}
	return false
}

// cgroupMounts shows the container its own groups. With version 1 that is a
// tmpfs with a directory for each hierarchy, and a link for each controller of
// one that has several. Clones of the container's own directories look the same
// as mounts made in its cgroup namespace, for a fraction of the time; the file
// system is the host's either way.
func cgroupMounts(p *plan.Plan, m specs.Mount, h Handles) error {
	flags := m
	flags.Type = "tmpfs" // any type that filesystemOf knows
	fs, err := filesystemOf(flags)
	if err != nil {
		return err
	}
	if h.CgroupV2 {
		fs.Type = "cgroup2"
		p.Add(plan.StageMounts, fs)
		return nil
	}
	p.Add(plan.StageMounts, plan.Filesystem{
		Type: "tmpfs", Target: m.Destination, Create: plan.CreateDir,
		Attrs: fs.Attrs &^ unix.MOUNT_ATTR_RDONLY, Params: append(slices.Clone(fs.Params), plan.Param{Type: plan.ParamString, Key: "mode", Value: "755"}),
	})
	for i, list := range h.CgroupV1 {
		p.Add(plan.StageMounts, plan.Attach{
			FD: h.CgroupMounts[i], Target: path.Join(m.Destination, strings.TrimPrefix(list, "name=")), Create: plan.CreateDir,
			Attr: plan.Attr{Set: fs.Attrs, Propagation: unix.MS_PRIVATE},
		})
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

// deviceNodes fills a fresh /dev.
func deviceNodes(p *plan.Plan, s *specs.Spec) error {
	for _, d := range append(DefaultDevices(), s.Linux.Devices...) {
		var kind uint32
		switch d.Type {
		case "c", "u":
			kind = unix.S_IFCHR
		case "b":
			kind = unix.S_IFBLK
		case "p":
			kind = unix.S_IFIFO
		default:
			return errclass.Errorf(errdefs.ErrInvalidArgument, "device %s of type %q: want c, u, b or p", d.Path, d.Type)
		}
		node := plan.Node{Path: d.Path, Mode: kind | 0o666, Major: uint32(d.Major), Minor: uint32(d.Minor)}
		if d.FileMode != nil {
			node.Mode = kind | uint32(d.FileMode.Perm())
		}
		if d.UID != nil {
			node.UID = *d.UID
		}
		if d.GID != nil {
			node.GID = *d.GID
		}
		p.Add(plan.StageMounts, node)
	}
	for _, l := range [][2]string{
		{"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"}, {"/dev/core", "/proc/kcore"}, {"/dev/ptmx", "pts/ptmx"},
	} {
		p.Add(plan.StageMounts, plan.Symlink{Path: l[0], To: l[1]})
	}
	return nil
}
