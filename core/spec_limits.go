package core

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// memoryFloor is the least memory limit that Docker's users know: less than
// that no process can be started in.
const memoryFloor = 6 << 20

// check refuses limits that cannot be, alone or together.
func (r *Resources) check() error {
	return anyOf(r.checkMemory(), r.checkCPU(), r.checkBlkio(), r.checkUlimits(), r.checkRest())
}

func (r *Resources) checkMemory() error {
	switch {
	case r.MemoryBytes < 0 || r.MemoryBytes > 0 && r.MemoryBytes < memoryFloor:
		return invalid("memory limit %d is less than the minimum of %d bytes (6m)", r.MemoryBytes, int64(memoryFloor))
	case r.MemorySwapBytes < -1:
		return invalid("memory and swap limit %d: use a positive number, or -1 for none", r.MemorySwapBytes)
	case r.MemorySwapBytes > 0 && r.MemoryBytes == 0:
		return invalid("you should always set the memory limit when using a memoryswap limit")
	case r.MemorySwapBytes > 0 && r.MemorySwapBytes < r.MemoryBytes:
		return invalid("minimum memoryswap limit (%d) should be larger than memory limit (%d)", r.MemorySwapBytes, r.MemoryBytes)
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < 0 || *r.MemorySwappiness > 100):
		return invalid("invalid value for memory swappiness: %d: valid range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservationBytes < 0 || r.MemoryReservationBytes > 0 && r.MemoryReservationBytes < memoryFloor:
		return invalid("memory reservation %d is less than the minimum of %d bytes (6m)", r.MemoryReservationBytes, int64(memoryFloor))
	case r.MemoryBytes > 0 && r.MemoryReservationBytes > r.MemoryBytes:
		return invalid("minimum memory limit (%d) can not be less than memory reservation limit (%d)", r.MemoryBytes, r.MemoryReservationBytes)
	}
	return nil
}

func (r *Resources) checkCPU() error {
	switch {
	case r.NanoCPUs < 0 || r.NanoCPUs > 0 && r.NanoCPUs < 1e7:
		return invalid("%g CPUs are less than the minimum of 0.01", float64(r.NanoCPUs)/1e9)
	case r.NanoCPUs > 0 && r.CPUPeriod != 0:
		return invalid("conflicting options: nano CPUs and CPU period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota != 0:
		return invalid("conflicting options: nano CPUs and CPU quota cannot both be set")
	case r.CPUShares < 0:
		return invalid("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return invalid("CPU cfs period (%d) can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)", r.CPUPeriod)
	case r.CPUQuota != 0 && r.CPUQuota != -1 && r.CPUQuota < 1000:
		return invalid("CPU cfs quota (%d) can not be less than 1ms (i.e. 1000)", r.CPUQuota)
	case r.CPURealtimePeriod < 0 || r.CPURealtimeRuntime < 0:
		return invalid("CPU realtime period and runtime cannot be negative")
	case r.CPURealtimePeriod > 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod:
		return invalid("CPU realtime runtime (%d) cannot be higher than CPU realtime period (%d)", r.CPURealtimeRuntime, r.CPURealtimePeriod)
	case !isSet(r.CpusetCPUs):
		return invalid("invalid value %q for cpuset cpus", r.CpusetCPUs)
	case !isSet(r.CpusetMems):
		return invalid("invalid value %q for cpuset mems", r.CpusetMems)
	}
	return nil
}

// isSet reports whether list is one as the kernel's cpusets have them: "0-2,7".
func isSet(list string) bool {
	if list == "" {
		return true
	}
	for _, part := range strings.Split(list, ",") {
		low, high, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(low, 10, 16)
		if err != nil {
			return false
		}
		if b, err := strconv.ParseUint(high, 10, 16); isRange && (err != nil || b < a) {
			return false
		}
	}
	return true
}

func (r *Resources) checkBlkio() error {
	if w := r.BlkioWeight; w != 0 && (w < 10 || w > 1000) {
		return invalid("range of blkio weight is from 10 to 1000, not %d", w)
	}
	for _, d := range r.BlkioWeightDevices {
		if !path.IsAbs(d.Path) || d.Weight != 0 && (d.Weight < 10 || d.Weight > 1000) {
			return invalid("invalid blkio weight %s:%d: give a device's absolute path and 10 to 1000", d.Path, d.Weight)
		}
	}
	for _, list := range [4][]DeviceRate{r.BlkioReadBps, r.BlkioWriteBps, r.BlkioReadIOps, r.BlkioWriteIOps} {
		for _, d := range list {
			if !path.IsAbs(d.Path) {
				return invalid("bad format for device path %q: it must be absolute", d.Path)
			}
		}
	}
	return nil
}

func (r *Resources) checkUlimits() error {
	names := []string{
		"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
		"rttime", "sigpending", "stack", "as",
	}
	var seen []string
	for _, u := range r.Ulimits {
		switch {
		case !slices.Contains(names, u.Name):
			return invalid("invalid ulimit type: %q", u.Name)
		case slices.Contains(seen, u.Name):
			return invalid("ulimit %s is given twice", u.Name)
		case u.Soft < -1 || u.Hard < -1:
			return invalid("ulimit %s: a limit cannot be less than -1, which is none", u.Name)
		case u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard):
			return invalid("ulimit %s: soft limit must be less than or equal to hard limit: %d > %d", u.Name, u.Soft, u.Hard)
		}
		seen = append(seen, u.Name)
	}
	return nil
}

func (r *Resources) checkRest() error {
	switch {
	case r.PidsLimit < -1:
		return invalid("pids limit %d: use a positive number, or -1 for none", r.PidsLimit)
	case r.CgroupParent != "" && (strings.ContainsAny(r.CgroupParent, "\x00\n") || slices.Contains(strings.Split(r.CgroupParent, "/"), "..")):
		return invalid("invalid cgroup parent %q", r.CgroupParent)
	}
	return nil
}
