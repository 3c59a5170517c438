package oci

import (
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/resctrl"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// longestName bounds host and domain name in bytes (__NEW_UTS_LEN).
const longestName = 64

// Machine is what a specification may ask for and not every kernel has.
type Machine struct {
	AppArmor     bool
	SELinux      bool
	ResourceRDT  bool // resctrl is mounted
	MemoryPolicy bool // CONFIG_NUMA
}

// ReadMachine looks at this kernel for what a specification asks for.
func ReadMachine(s *specs.Spec) Machine {
	var m Machine
	if p := s.Process; p != nil && p.ApparmorProfile != "" {
		text, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
		m.AppArmor = err == nil && strings.HasPrefix(string(text), "Y")
	}
	if p := s.Process; p != nil && p.SelinuxLabel != "" || s.Linux != nil && s.Linux.MountLabel != "" {
		var fs unix.Statfs_t
		m.SELinux = unix.Statfs("/sys/fs/selinux", &fs) == nil && fs.Type == unix.SELINUX_MAGIC
	}
	if s.Linux != nil && s.Linux.IntelRdt != nil {
		_, err := resctrl.Find()
		m.ResourceRDT = err == nil
	}
	if s.Linux != nil && s.Linux.MemoryPolicy != nil {
		_, err := os.Stat("/sys/devices/system/node/node0")
		_, _, errno := unix.Syscall6(unix.SYS_GET_MEMPOLICY, 0, 0, 0, 0, 0, 0)
		m.MemoryPolicy = err == nil && errno == 0
	}
	return m
}

// Check refuses, by the field's name, what cannot be and what is not served
// here. What a plan is made of is checked by Plan, limits by package cgroup, the
// filter by package seccomp.
func Check(s *specs.Spec, m Machine) error {
	for _, check := range []func(*specs.Spec, Machine) error{
		checkPlatform, checkProcess, checkNames, checkPaths, checkModules, checkHooks, checkNetDevices,
	} {
		if err := check(s, m); err != nil {
			return err
		}
	}
	return nil
}

func invalid(format string, args ...any) error {
	return errclass.Errorf(errdefs.ErrInvalidArgument, format, args...)
}

func unserved(format string, args ...any) error {
	return errclass.Errorf(errdefs.ErrNotImplemented, format, args...)
}

// checkPlatform refuses other systems, and versions to come.
func checkPlatform(s *specs.Spec, _ Machine) error {
	switch {
	case s.Version == "":
		return invalid("ociVersion is missing")
	case !strings.HasPrefix(s.Version, "1."):
		return unserved("ociVersion %q: this is a runtime of version %s", s.Version, specs.Version)
	case s.Solaris != nil:
		return unserved("solaris: this is Linux")
	case s.Windows != nil:
		return unserved("windows: this is Linux")
	case s.VM != nil:
		return unserved("vm: this runtime runs no virtual machines")
	case s.ZOS != nil:
		return unserved("zos: this is Linux")
	case s.FreeBSD != nil:
		return unserved("freebsd: this is Linux")
	case s.Linux == nil:
		return invalid("linux is missing")
	case s.Root == nil || s.Root.Path == "":
		return invalid("root.path is missing")
	}
	return nil
}

// Older reports whether a bundle complies with a version of the specification
// before 1.minor, by whose rules it is then to be taken where they have changed.
func Older(ociVersion string, minor int) bool {
	major, rest, _ := strings.Cut(ociVersion, ".")
	second, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(second)
	return major == "1" && err == nil && n < minor
}

// checkProcess refuses processes that cannot be. There may be none: a container
// can be made without, but not started.
func checkProcess(s *specs.Spec, _ Machine) error {
	if s.Process == nil {
		return nil
	}
	return CheckProcess(s.Process)
}

// CheckProcess refuses processes that cannot be, a container's first or a later
// one.
func CheckProcess(p *specs.Process) error {
	switch {
	case p.CommandLine != "":
		return unserved("process.commandLine is of Windows: use process.args")
	case len(p.Args) == 0 || p.Args[0] == "":
		return invalid("process.args is empty")
	case p.Cwd == "":
		return invalid("process.cwd is missing")
	case !path.IsAbs(p.Cwd):
		return invalid("process.cwd %q is not an absolute path", p.Cwd)
	case p.User.Username != "":
		return unserved("process.user.username is of Windows: use process.user.uid")
	case p.User.Umask != nil && *p.User.Umask > 0o777:
		return invalid("process.user.umask %#o: want one up to 0777", *p.User.Umask)
	}
	for _, v := range p.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return invalid("process.env %q: want NAME=value", v)
		}
	}
	return nil
}

// checkNames refuses host and domain names that would be the host's.
func checkNames(s *specs.Spec, _ Machine) error {
	for _, n := range []struct{ field, name string }{{"hostname", s.Hostname}, {"domainname", s.Domainname}} {
		if n.name == "" {
			continue
		}
		if has, _ := HasNamespace(s, specs.UTSNamespace); !has {
			return invalid("%s without a UTS namespace would be the host's", n.field)
		}
		if len(n.name) > longestName || strings.ContainsRune(n.name, 0) {
			return invalid("%s %q: want at most %d bytes", n.field, n.name, longestName)
		}
	}
	return nil
}

// checkPaths refuses places in the container that are none.
func checkPaths(s *specs.Spec, _ Machine) error {
	for i, m := range s.Mounts {
		o, err := optionsOf(m)
		switch {
		case err != nil:
			return err
		case m.Destination == "":
			return invalid("mounts[%d].destination is missing", i)
		case o.remount:
		case path.Join("/", m.Destination) == "/":
			return invalid("mounts[%d].destination is the container's root, which is root.path", i)
		case m.Type == "" && !o.bind:
			return invalid("mounts: %s: type is missing", m.Destination)
		}
	}
	for i, d := range s.Linux.Devices {
		if path.Join("/", d.Path) == "/" {
			return invalid("linux.devices[%d].path is missing", i)
		}
	}
	for _, list := range []struct {
		field string
		paths []string
	}{{"maskedPaths", s.Linux.MaskedPaths}, {"readonlyPaths", s.Linux.ReadonlyPaths}} {
		for _, p := range list.paths {
			if !path.IsAbs(p) {
				return invalid("linux.%s: %q is not an absolute path", list.field, p)
			}
		}
	}
	return nil
}

// checkModules refuses what this kernel has not.
func checkModules(s *specs.Spec, m Machine) error {
	if s.Process != nil {
		if err := CheckModules(s.Process, m); err != nil {
			return err
		}
	}
	switch {
	case s.Linux.MountLabel != "" && !m.SELinux:
		return unserved("linux.mountLabel %q: SELinux is not enabled in this kernel", s.Linux.MountLabel)
	case s.Linux.IntelRdt != nil && !m.ResourceRDT:
		return unserved("linux.intelRdt: resctrl is not mounted, or this kernel or processor has no resource control")
	case s.Linux.MemoryPolicy != nil && !m.MemoryPolicy:
		return unserved("linux.memoryPolicy: this kernel has no memory policies (CONFIG_NUMA)")
	}
	return resctrl.Check(s.Linux.IntelRdt)
}

// CheckModules refuses the security modules that this kernel has not, for a
// container's first process or a later one.
func CheckModules(p *specs.Process, m Machine) error {
	switch {
	case p.ApparmorProfile != "" && p.ApparmorProfile != Unconfined && !m.AppArmor:
		return unserved("process.apparmorProfile %q: AppArmor is not enabled in this kernel", p.ApparmorProfile)
	case p.SelinuxLabel != "" && !m.SELinux:
		return unserved("process.selinuxLabel %q: SELinux is not enabled in this kernel", p.SelinuxLabel)
	}
	return nil
}

// checkHooks refuses hooks that cannot be run; those inside are checked by Plan.
func checkHooks(s *specs.Spec, _ Machine) error {
	if s.Hooks == nil {
		return nil
	}
	for _, kind := range []struct {
		name  string
		hooks []specs.Hook
	}{
		//lint:ignore SA1019 a deprecated kind is run as long as specifications name it
		{"prestart", s.Hooks.Prestart},
		{"createRuntime", s.Hooks.CreateRuntime}, {"createContainer", s.Hooks.CreateContainer},
		{"startContainer", s.Hooks.StartContainer}, {"poststart", s.Hooks.Poststart}, {"poststop", s.Hooks.Poststop},
	} {
		for i, hook := range kind.hooks {
			if err := CheckHook(kind.name, i, hook); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkNetDevices refuses devices that would stay where they are, or be lost.
func checkNetDevices(s *specs.Spec, _ Machine) error {
	if len(s.Linux.NetDevices) == 0 {
		return nil
	}
	if has, _ := HasNamespace(s, specs.NetworkNamespace); !has {
		return invalid("linux.netDevices without a network namespace")
	}
	seen := map[string]bool{}
	for from, d := range s.Linux.NetDevices {
		to := d.Name
		if to == "" {
			to = from
		}
		for _, n := range []string{from, to} {
			if n == "" || n == "." || n == ".." || len(n) >= unix.IFNAMSIZ || strings.ContainsAny(n, "/: \t\n\x00") {
				return invalid("linux.netDevices: %q is no name of a network device", n)
			}
		}
		if seen[to] {
			return invalid("linux.netDevices: two devices are to be named %q", to)
		}
		seen[to] = true
	}
	return nil
}
