package execnative

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// initPath is where a container finds its init: in a file system that is its
// own anyway, so that nothing of it shows in the image.
const initPath = "/dev/gantry-init"

// shmPath is where shared memory is.
const shmPath = "/dev/shm"

// mountsOf lists a container's mounts in their order: the file systems that all
// have, files of ours, and what was asked for.
func mountsOf(r execdriver.Start, f facts) ([]specs.Mount, error) {
	mounts := slices.DeleteFunc(defaultMounts(), func(m specs.Mount) bool { return replaced(m.Destination, r.Mounts) })
	mounts = sharedMounts(mounts, r)
	if r.Security.Privileged {
		mounts = writable(mounts, "/sys", "/sys/fs/cgroup")
	}
	if f.Hostname != "" && !replaced("/etc/hostname", r.Mounts) {
		mounts = append(mounts, bindMount(f.Hostname, "/etc/hostname", "bind", "rprivate"))
	}
	if f.Init != "" {
		mounts = append(mounts, bindMount(f.Init, initPath, "bind", "rprivate", "ro", "nosuid", "nodev"))
	}
	for _, m := range r.Mounts {
		one := specs.Mount{Destination: m.Target, Type: m.Type, Source: m.Source, Options: m.Options}
		switch {
		case m.Type == "tmpfs":
			one.Source, one.Options = "tmpfs", tmpfsOptions(m.Options)
		case slices.Contains(m.Options, "ro"):
			// The specification's "ro" is of the topmost mount alone.
			one.Options = slices.Clone(m.Options)
			one.Options[slices.Index(one.Options, "ro")] = "rro"
		}
		mounts = append(mounts, one)
	}
	return mounts, nil
}

func bindMount(source, target string, options ...string) specs.Mount {
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: options}
}

// sharedMounts makes default mounts fit the namespaces that are not the
// container's own.
func sharedMounts(mounts []specs.Mount, r execdriver.Start) []specs.Mount {
	ipc := r.Namespaces.IPC
	hostNet := r.Network.Mode == netdriver.NamespaceHost
	var out []specs.Mount
	for _, m := range mounts {
		switch {
		case m.Destination == shmPath && ipc.Off:
			continue
		case m.Destination == shmPath && ipc.Mode == execdriver.ShareHost: // queues are shown by whoever mounts them
			m = bindMount(m.Destination, m.Destination, "rbind", "rprivate", "nosuid", "nodev", "noexec")
		case m.Destination == shmPath && r.ShmBytes != 0:
			m.Options = slices.Clone(m.Options)
			m.Options[slices.IndexFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "size=") })] = fmt.Sprintf("size=%d", r.ShmBytes)
		case m.Destination == "/sys/fs/cgroup" && r.Namespaces.Cgroup.Mode == execdriver.ShareHost:
			m = bindMount("/sys/fs/cgroup", "/sys/fs/cgroup", "rbind", "rprivate", "ro", "nosuid", "nodev", "noexec")
		case m.Destination == "/sys" && !r.IDMap.IsZero() && hostNet:
			// A sysfs shows a network namespace, and is made by whoever owns it.
			m = bindMount("/sys", "/sys", "rbind", "rprivate", "rro", "nosuid", "nodev", "noexec")
		case m.Destination == "/dev/pts" && !r.IDMap.IsZero() && !mapped(r.IDMap.GIDs, ttyGroup):
			m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, "gid=") })
		}
		out = append(out, m)
	}
	return out
}

// ttyGroup is the group of terminals, by Debian's numbers and so Docker's.
const ttyGroup = 5

// mapped reports whether an id of the container has one on the host.
func mapped(m []driver.IDMapping, id uint32) bool {
	return slices.ContainsFunc(m, func(e driver.IDMapping) bool { return id >= e.Container && id-e.Container < e.Size })
}

// tmpfsOptions are those of a tmpfs that was asked for, with Docker's defaults
// where they say nothing else.
func tmpfsOptions(options []string) []string {
	out := slices.Clone(options)
	for _, pair := range [][2]string{{"noexec", "exec"}, {"nosuid", "suid"}, {"nodev", "dev"}} {
		if !slices.Contains(out, pair[0]) && !slices.Contains(out, pair[1]) {
			out = append(out, pair[0])
		}
	}
	return out
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

// devicesOf lists the nodes beside the default ones: of a privileged container
// the host's, and what was asked for, which wins.
func devicesOf(s execdriver.Security, hosts []specs.LinuxDevice) ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	if s.Privileged {
		out = slices.Clone(hosts)
	}
	for _, d := range s.Devices {
		nodes, err := deviceNodes(d)
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			out = slices.DeleteFunc(out, func(o specs.LinuxDevice) bool { return o.Path == n.Path })
			out = append(out, n)
		}
	}
	return out, nil
}

// mappingsOf spells a map in the specification's words.
func mappingsOf(m []driver.IDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, e := range m {
		out = append(out, specs.LinuxIDMapping{ContainerID: e.Container, HostID: e.Host, Size: e.Size})
	}
	return out
}

// checkSELinux refuses labels: the root filesystem would have to bear them too.
func checkSELinux(options []string) error {
	for _, o := range options {
		if o != "disable" {
			return driver.Errorf(errdefs.ErrNotImplemented, "Security.SELinux %q: SELinux labels are not supported", o)
		}
	}
	return nil
}
