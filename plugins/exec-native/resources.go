package execnative

import (
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// resourcesOf states the limits of a start.
func resourcesOf(r execdriver.Start, f facts) (*specs.LinuxResources, error) {
	out, err := limitsOf(r.Resources, f)
	if err != nil {
		return nil, err
	}
	out.Devices, err = deviceRules(r.Security)
	return out, err
}

// limitsOf states limits; what is zero is left to the kernel.
func limitsOf(r execdriver.Resources, f facts) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{}
	var err error
	if out.Memory, err = memoryOf(r, f); err != nil {
		return nil, err
	}
	if out.CPU, err = cpuOf(r); err != nil {
		return nil, err
	}
	if out.BlockIO, err = blockIOOf(r); err != nil {
		return nil, err
	}
	if p := r.PidsLimit; p > 0 {
		out.Pids = &specs.LinuxPids{Limit: &p}
	}
	return out, nil
}

// memoryOf states the limits of memory; nil for none. Docker's rule: without a
// word about it, there may be as much swap as memory.
func memoryOf(r execdriver.Resources, f facts) (*specs.LinuxMemory, error) {
	m, swap := r.MemoryBytes, r.MemorySwapBytes
	switch {
	case m != 0 && m < leastMemory:
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.MemoryBytes %d: at least %d (6 MiB)", m, leastMemory)
	case swap != 0 && m == 0:
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.MemorySwapBytes %d without a limit of memory", swap)
	case swap < -1 || swap > 0 && swap < m:
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.MemorySwapBytes %d: memory is part of it, so it cannot be less than %d", swap, m)
	case swap > 0 && !f.Swap:
		return nil, driver.Errorf(errdefs.ErrNotImplemented, "Resources.MemorySwapBytes %d: this kernel does not count swap", swap)
	case m != 0 && r.MemoryReservationBytes > m:
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.MemoryReservationBytes %d is above the limit of %d", r.MemoryReservationBytes, m)
	}
	var out specs.LinuxMemory
	if m != 0 {
		out.Limit = &m
		if swap == 0 && f.Swap && 2*m > 0 {
			swap = 2 * m
		}
		if swap != 0 && f.Swap {
			out.Swap = &swap
		}
	}
	if n := r.MemoryReservationBytes; n != 0 {
		out.Reservation = &n
	}
	if s := r.MemorySwappiness; s != nil {
		if *s < 0 || *s > 100 {
			return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.MemorySwappiness %d is not from 0 to 100", *s)
		}
		n := uint64(*s)
		out.Swappiness = &n
	}
	if r.OOMKillDisable {
		out.DisableOOMKiller = &r.OOMKillDisable
	}
	if out == (specs.LinuxMemory{}) {
		return nil, nil
	}
	return &out, nil
}

// cpuOf states the share of the processors; nil for whatever is there.
func cpuOf(r execdriver.Resources) (*specs.LinuxCPU, error) {
	out := specs.LinuxCPU{Cpus: r.CpusetCPUs, Mems: r.CpusetMems}
	if n := r.NanoCPUs; n != 0 {
		if r.CPUPeriod != 0 || r.CPUQuota != 0 {
			return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.NanoCPUs %d beside CPUPeriod or CPUQuota: they say the same", n)
		}
		quota, period := int64(float64(n)*cpuPeriod/1e9), uint64(cpuPeriod)
		if quota < leastQuota {
			return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.NanoCPUs %d: at least 10000000 (0.01 processors)", n)
		}
		if most := int64(runtime.NumCPU()); n > most*1e9 {
			return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.NanoCPUs %d: more than this machine has: ask for %d.00 or less", n, most)
		}
		out.Quota, out.Period = &quota, &period
	}
	for _, v := range []struct {
		name string
		n    int64
		to   **uint64
	}{
		{"CPUShares", r.CPUShares, &out.Shares}, {"CPUPeriod", r.CPUPeriod, &out.Period}, {"CPURealtimePeriod", r.CPURealtimePeriod, &out.RealtimePeriod},
	} {
		if v.n < 0 {
			return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.%s %d is negative", v.name, v.n)
		}
		if n := uint64(v.n); n != 0 {
			*v.to = &n
		}
	}
	if n := r.CPUQuota; n != 0 {
		out.Quota = &n
	}
	if n := r.CPURealtimeRuntime; n != 0 {
		out.RealtimeRuntime = &n
	}
	if out == (specs.LinuxCPU{}) {
		return nil, nil
	}
	return &out, nil
}

// blockIOOf states the limits of block devices; nil for none.
func blockIOOf(r execdriver.Resources) (*specs.LinuxBlockIO, error) {
	var out specs.LinuxBlockIO
	some := false
	if w := r.BlkioWeight; w != 0 {
		out.Weight, some = &w, true
	}
	for _, d := range r.BlkioWeightDevices {
		major, minor, err := blockDevice(d.Path)
		if err != nil {
			return nil, err
		}
		if d.Rate > 1<<16-1 {
			return nil, driver.Errorf(errdefs.ErrInvalidArgument, "Resources.BlkioWeightDevices %s: weight %d is not from 10 to 1000", d.Path, d.Rate)
		}
		weight := uint16(d.Rate)
		w := specs.LinuxWeightDevice{Weight: &weight}
		w.Major, w.Minor = major, minor
		out.WeightDevice, some = append(out.WeightDevice, w), true
	}
	for _, list := range []struct {
		rates []execdriver.DeviceRate
		to    *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioReadBps, &out.ThrottleReadBpsDevice}, {r.BlkioWriteBps, &out.ThrottleWriteBpsDevice},
		{r.BlkioReadIOps, &out.ThrottleReadIOPSDevice}, {r.BlkioWriteIOps, &out.ThrottleWriteIOPSDevice},
	} {
		for _, d := range list.rates {
			major, minor, err := blockDevice(d.Path)
			if err != nil {
				return nil, err
			}
			t := specs.LinuxThrottleDevice{Rate: d.Rate}
			t.Major, t.Minor = major, minor
			*list.to, some = append(*list.to, t), true
		}
	}
	if !some {
		return nil, nil
	}
	return &out, nil
}

// blockDevice is the number of a block device of the host.
func blockDevice(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, driver.Errorf(errdefs.ErrInvalidArgument, "block device %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, driver.Errorf(errdefs.ErrInvalidArgument, "block device %s: it is none", path)
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}

// changedLimits states limits that take the place of earlier ones: what is zero
// is lifted, where the machine has the controller at all. Weights and sets of
// processors stay, since a group always has some.
func changedLimits(r execdriver.Resources, f facts, has func(controller string) bool) (*specs.LinuxResources, error) {
	out, err := limitsOf(r, f)
	if err != nil {
		return nil, err
	}
	none := int64(-1)
	if has("memory") {
		if out.Memory == nil {
			out.Memory = &specs.LinuxMemory{}
		}
		m := out.Memory
		if m.Limit == nil {
			m.Limit = &none
			if f.Swap {
				m.Swap = &none
			}
		}
		if m.Reservation == nil {
			m.Reservation = &none
		}
	}
	if has("cpu") {
		if out.CPU == nil {
			out.CPU = &specs.LinuxCPU{}
		}
		if out.CPU.Quota == nil {
			out.CPU.Quota = &none
		}
		if shares := uint64(defaultShares); out.CPU.Shares == nil {
			out.CPU.Shares = &shares
		}
	}
	if out.Pids == nil && has("pids") {
		out.Pids = &specs.LinuxPids{Limit: &none}
	}
	return out, nil
}

// defaultShares is the kernel's value of cpu.shares.
const defaultShares = 1024
