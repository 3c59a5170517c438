package execnative

import (
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Docker's defaults, as moby keeps them (oci/defaults.go, oci/caps, newest).

// defaultPath is PATH where the image sets none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// defaultMounts are the file systems every container has.
func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
	}
}

// defaultMasked are the paths a container does not see. cpus is how many
// processors the machine may have: their throttling counters tell about
// neighbours.
func defaultMasked(cpus int) []string {
	masked := []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	for i := range cpus {
		masked = append(masked, fmt.Sprintf("/sys/devices/system/cpu/cpu%d/thermal_throttle", i))
	}
	return masked
}

// throttledCPUs counts the processors, from the first, that have such counters.
func throttledCPUs() int {
	n := 0
	for ; n < 8192; n++ {
		if _, err := os.Stat(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/thermal_throttle", n)); err != nil {
			break
		}
	}
	return n
}

// defaultReadOnly are the paths a container cannot write to.
func defaultReadOnly() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// defaultDeviceRules let a container make any node, and use the default ones,
// ptys and nothing else.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	rule := func(allow bool, kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		d := specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Access: access}
		if major >= 0 {
			d.Major = &major
		}
		if minor >= 0 {
			d.Minor = &minor
		}
		return d
	}
	return []specs.LinuxDeviceCgroup{
		rule(false, "a", -1, -1, "rwm"),
		rule(true, "c", -1, -1, "m"),
		rule(true, "b", -1, -1, "m"),
		rule(true, "c", 1, 3, "rwm"),
		rule(true, "c", 1, 5, "rwm"),
		rule(true, "c", 1, 7, "rwm"),
		rule(true, "c", 1, 8, "rwm"),
		rule(true, "c", 1, 9, "rwm"),
		rule(true, "c", 5, 0, "rwm"),
		rule(true, "c", 5, 1, "rwm"),
		rule(true, "c", 5, 2, "rwm"),    // ptmx
		rule(true, "c", 136, -1, "rwm"), // ptys
	}
}

// allDeviceRules let a privileged container use every device.
func allDeviceRules() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rwm"}}
}

// defaultSysctls are set in network namespaces of the container's own.
func defaultSysctls() map[string]string {
	return map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
	}
}
