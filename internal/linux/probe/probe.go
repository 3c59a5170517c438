// Package probe tells what this kernel and machine can do for containers, each
// with what follows where it cannot. It changes nothing: what it tries, it
// tries on descriptors and child processes of its own.
package probe

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"unsafe"

	"github.com/gantryd/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// Feature is one thing that containers need or profit from.
type Feature struct {
	Name        string // "overlay", "seccomp", …
	Have        bool
	Detail      string // what was found, or what the kernel said
	Consequence string // what follows when it is missing
}

// Probe looks at everything, in a fixed order.
func Probe() []Feature {
	var out []Feature
	out = append(out, namespaces()...)
	out = append(out, cgroups()...)
	out = append(out, overlay(), nftables(), mountInterface(), mountAttributes(), openat2(), pidfd(), clone3(), execMemfd())
	for _, f := range Security() {
		if f.Name != "cgroup" { // told above, with its controllers
			out = append(out, f)
		}
	}
	return out
}

// answer states a probe's result.
func answer(name string, err error, found, consequence string) Feature {
	f := Feature{Name: name, Have: err == nil, Detail: found, Consequence: consequence}
	if err != nil {
		f.Detail = err.Error()
	}
	return f
}

// namespaces looks for each kind and for the right to make them.
func namespaces() []Feature {
	var out []Feature
	for _, n := range []struct{ file, follows string }{
		{"pid", "containers cannot be started"}, {"net", "only host networking works"},
		{"ipc", "containers cannot be started"}, {"mnt", "containers cannot be started"},
		{"uts", "containers cannot have a host name"}, {"cgroup", "containers would see the host's cgroups"},
		{"user", "containers cannot have ids of their own"}, {"time", "containers cannot have clocks of their own"},
	} {
		_, err := os.Stat("/proc/self/ns/" + n.file)
		out = append(out, answer("namespace "+n.file, err, "/proc/self/ns/"+n.file, n.follows))
	}
	return append(out, answer("make namespaces", mayMakeNamespaces(), "CAP_SYS_ADMIN", "the driver must run as root"))
}

// mayMakeNamespaces asks for CAP_SYS_ADMIN, which making them takes.
func mayMakeNamespaces() error {
	effective, err := effectiveCaps()
	if err != nil {
		return err
	}
	if effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return errors.New("CAP_SYS_ADMIN is missing")
	}
	return nil
}

// effectiveCaps reads this thread's effective capabilities.
func effectiveCaps() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("capget: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

// cgroups reads the version and the controllers.
func cgroups() []Feature {
	all, err := linux.Hierarchies()
	if err != nil {
		return []Feature{answer("cgroup", err, "", "no limits, no way to end a container whole")}
	}
	var v1, v2 []string
	two := false
	for _, h := range all {
		if h.Unified {
			two, v2 = true, h.Controllers
		} else {
			v1 = append(v1, h.Controllers...)
		}
	}
	version := "none"
	switch {
	case len(v1) > 0 && two:
		version = "hybrid (v1 controllers, v2 without them)"
	case len(v1) > 0:
		version = "v1"
	case two:
		version = "v2"
	}
	controllers := append(slices.Clone(v1), v2...)
	out := []Feature{{"cgroup", version != "none", version, "no limits, no way to end a container whole"}}
	for _, c := range []struct{ name, follows string }{
		{"memory", "memory limits are refused"}, {"cpu", "processor limits are refused"},
		{"pids", "process limits are refused"}, {"cpuset", "processors cannot be assigned"},
	} {
		f := Feature{"cgroup controller " + c.name, slices.Contains(controllers, c.name), "available", c.follows}
		if !f.Have {
			f.Detail = "not mounted"
		}
		out = append(out, f)
	}
	devices := Feature{"device access", slices.Contains(v1, "devices"), "controller devices", "every device node can be used"}
	if !devices.Have && two {
		devices.Have, devices.Detail = true, "eBPF programs on v2 groups"
	}
	return append(out, devices)
}

// overlay asks the kernel for a file system context; nothing is mounted.
func overlay() Feature {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err == nil {
		unix.Close(fd)
		return answer("overlay", nil, "fsopen", "")
	}
	return answer("overlay", fmt.Errorf("fsopen overlay: %w", err), "", "use the graph driver vfs")
}

// mountInterface clones a mount, detached.
func mountInterface() Feature {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	} else {
		err = fmt.Errorf("open_tree: %w", err)
	}
	return answer("mounts by descriptor", err, "fsopen, fsmount, open_tree, move_mount", "containers cannot be started (needs 5.2 and CAP_SYS_ADMIN)")
}

// mountAttributes changes the attributes of a mount that nobody else sees.
func mountAttributes() Feature {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err == nil {
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		unix.Close(fd)
	}
	return answer("mount attributes", err, "mount_setattr", "read-only mounts and id maps do not work (needs 5.12)")
}

// openat2 opens the root below itself.
func openat2() Feature {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err == nil {
		unix.Close(fd)
	}
	return answer("openat2", err, "RESOLVE_IN_ROOT", "containers cannot be started (needs 5.6)")
}

// seccomp asks whether filters can return an errno.
func seccomp() Feature {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	var err error
	if errno != 0 {
		err = fmt.Errorf("seccomp: %w", errno)
	}
	return answer("seccomp", err, "filters", "containers start only with seccomp=unconfined")
}

// lsms lists the security modules. Few machines have all; missing ones are
// told only if there is none that confines containers.
func lsms() Feature {
	text, err := os.ReadFile("/sys/kernel/security/lsm")
	list := strings.TrimSpace(string(text))
	f := Feature{Name: "security modules", Detail: list, Consequence: "containers get no AppArmor or SELinux label; seccomp and capabilities confine them alone"}
	if err != nil {
		f.Detail = "none can be seen (securityfs is not mounted or empty)"
		return f
	}
	f.Have = strings.Contains(list, "apparmor") || strings.Contains(list, "selinux")
	return f
}

// pidfd opens one of this process and signals nothing by it.
func pidfd() Feature {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == nil {
		err = unix.PidfdSendSignal(fd, 0, nil, 0)
		unix.Close(fd)
	}
	return answer("pidfd", err, "pidfd_open, pidfd_send_signal", "signals could reach a stranger with a reused pid (needs 5.3)")
}

// clone3 calls it with a size that is refused before anything happens.
func clone3() Feature {
	_, _, errno := unix.Syscall(unix.SYS_CLONE3, 0, 0, 0)
	var err error
	if errno == unix.ENOSYS || errno == unix.EPERM {
		err = fmt.Errorf("clone3: %w", errno)
	}
	return answer("clone3", err, "clone3", "containers cannot be started (needs 5.3)")
}

// execMemfd executes a memfd that has no format any loader knows: ENOEXEC says
// that executing memfds is allowed, EACCES that it is not.
func execMemfd() Feature {
	const follows = "the shim runs from its file instead of a sealed copy"
	fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before 6.3
		fd, err = unix.MemfdCreate("probe", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return answer("executable memfd", fmt.Errorf("memfd_create: %w", err), "", follows)
	}
	f := os.NewFile(uintptr(fd), "probe")
	defer f.Close()
	if _, err := f.WriteString("?"); err != nil {
		return answer("executable memfd", err, "", follows)
	}
	err = exec.Command(fmt.Sprintf("/proc/self/fd/%d", fd)).Run()
	if errors.Is(err, unix.ENOEXEC) {
		err = nil
	}
	return answer("executable memfd", err, "memfd_create with MFD_EXEC", follows)
}

// capabilities names what is missing in the bounding set.
func capabilities() Feature {
	var missing []string
	for bit, name := range linux.CapNames() {
		on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(bit), 0, 0, 0) // EINVAL: newer than the kernel
		if err == nil && on == 0 {
			missing = append(missing, name)
		}
	}
	f := Feature{Name: "capabilities", Have: len(missing) == 0, Detail: "all", Consequence: "privileged containers go without them; naming one is refused"}
	if !f.Have {
		f.Detail = "not in the bounding set: " + strings.Join(missing, ", ")
	}
	return f
}
