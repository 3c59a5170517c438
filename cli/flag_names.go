package cli

import (
	"regexp"
	"strconv"
	"strings"
)

// flagFields are the flags behind the fields of a start, which are what drivers name
// when they refuse one.
func flagFields() map[string]string {
	return map[string]string{
		"Process.Cwd": "workdir", "Process.Groups": "group-add", "Process.OOMScore": "oom-score-adj", "Process.User": "user",

		"Resources.BlkioReadBps": "device-read-bps", "Resources.BlkioReadIOps": "device-read-iops",
		"Resources.BlkioWriteBps": "device-write-bps", "Resources.BlkioWriteIOps": "device-write-iops",
		"Resources.BlkioWeight": "blkio-weight", "Resources.BlkioWeightDevices": "blkio-weight-device",
		"Resources.CgroupParent": "cgroup-parent", "Resources.CPUPeriod": "cpu-period", "Resources.CPUQuota": "cpu-quota",
		"Resources.CPURealtimePeriod": "cpu-rt-period", "Resources.CPURealtimeRuntime": "cpu-rt-runtime",
		"Resources.CpusetCPUs": "cpuset-cpus", "Resources.CpusetMems": "cpuset-mems", "Resources.CPUShares": "cpu-shares",
		"Resources.MemoryBytes": "memory", "Resources.MemoryReservationBytes": "memory-reservation",
		"Resources.MemorySwapBytes": "memory-swap", "Resources.MemorySwappiness": "memory-swappiness",
		"Resources.NanoCPUs": "cpus", "Resources.OOMKillDisable": "oom-kill-disable", "Resources.PidsLimit": "pids-limit",
		"Resources.Ulimits": "ulimit",

		"Security.AppArmor": "security-opt apparmor", "Security.DeviceRules": "device-cgroup-rule", "Security.Devices": "device",
		"Security.SELinux": "security-opt label", "Security.Seccomp": "security-opt seccomp", "Security.Sysctls": "sysctl",
	}
}

// inFlags puts into a refusal the flags that a person has typed, where it names the
// fields that they stand for. Processors are counted in units of 1e-9 there.
func inFlags(text string) string {
	if !strings.Contains(text, "Resources.") && !strings.Contains(text, "Security.") && !strings.Contains(text, "Process.") {
		return text
	}
	flags := flagFields()
	text = regexp.MustCompile(`\bResources\.NanoCPUs \d+`).ReplaceAllStringFunc(text, func(s string) string {
		field, number, _ := strings.Cut(s, " ")
		nano, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return s
		}
		return field + " " + strconv.FormatFloat(nano/1e9, 'f', -1, 64)
	})
	return regexp.MustCompile(`\b(Resources|Security|Process)\.[A-Z]\w*`).ReplaceAllStringFunc(text, func(field string) string {
		if flag := flags[field]; flag != "" {
			return "--" + flag
		}
		return field
	})
}
