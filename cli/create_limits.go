package cli

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gantryd/gantry/core"
)

// limitFlags are the limits that can also be changed later.
type limitFlags struct {
	memory, swap, reservation   string
	cpus, cpusetCPUs, cpusetMem string
	shares, period, quota       int64
	rtPeriod, rtRuntime         int64
	pids                        int64
	weight                      uint16
}

func (f *limitFlags) register(p *pflag.FlagSet) {
	p.StringVarP(&f.memory, "memory", "m", "", "memory limit, e.g. 64m")
	p.StringVar(&f.swap, "memory-swap", "", "limit of memory and swap together; -1 for none (default: twice the memory)")
	p.StringVar(&f.reservation, "memory-reservation", "", "memory to be pushed back to when there is little")
	p.StringVar(&f.cpus, "cpus", "", "processors, e.g. 1.5")
	p.Int64VarP(&f.shares, "cpu-shares", "c", 0, "share of the processors when they are busy, 2 to 262144 (usual: 1024)")
	p.Int64Var(&f.period, "cpu-period", 0, "period of the scheduler in microseconds")
	p.Int64Var(&f.quota, "cpu-quota", 0, "processor time in each period, in microseconds")
	p.Int64Var(&f.rtPeriod, "cpu-rt-period", 0, "period of the real-time scheduler in microseconds")
	p.Int64Var(&f.rtRuntime, "cpu-rt-runtime", 0, "real-time processor time in each period, in microseconds")
	p.StringVar(&f.cpusetCPUs, "cpuset-cpus", "", "processors to run on, e.g. 0-2,7")
	p.StringVar(&f.cpusetMem, "cpuset-mems", "", "memory nodes to use, e.g. 0-1")
	p.Int64Var(&f.pids, "pids-limit", 0, "most processes and threads; -1 for no limit")
	p.Uint16Var(&f.weight, "blkio-weight", 0, "share of the disks, 10 to 1000; 0 for none of its own")
}

// read puts the limits where create wants them.
func (f *limitFlags) read(flags *pflag.FlagSet, r *core.Resources) error {
	c, err := f.change(flags)
	if err != nil {
		return err
	}
	for to, from := range map[*int64]*int64{
		&r.MemoryBytes: c.MemoryBytes, &r.MemorySwapBytes: c.MemorySwapBytes, &r.MemoryReservationBytes: c.MemoryReservationBytes,
		&r.NanoCPUs: c.NanoCPUs, &r.CPUShares: c.CPUShares, &r.CPUPeriod: c.CPUPeriod, &r.CPUQuota: c.CPUQuota,
		&r.CPURealtimePeriod: c.CPURealtimePeriod, &r.CPURealtimeRuntime: c.CPURealtimeRuntime, &r.PidsLimit: c.PidsLimit,
	} {
		if from != nil {
			*to = *from
		}
	}
	r.CpusetCPUs, r.CpusetMems, r.BlkioWeight = f.cpusetCPUs, f.cpusetMem, f.weight
	return nil
}

// change is what the flags say that were given.
func (f *limitFlags) change(flags *pflag.FlagSet) (*core.ResourcesChange, error) {
	var c core.ResourcesChange
	for _, size := range []struct {
		flag, value string
		to          **int64
	}{
		{"memory", f.memory, &c.MemoryBytes}, {"memory-reservation", f.reservation, &c.MemoryReservationBytes},
		{"memory-swap", f.swap, &c.MemorySwapBytes},
	} {
		if !flags.Changed(size.flag) {
			continue
		}
		n, err := int64(-1), error(nil)
		if size.flag != "memory-swap" || size.value != "-1" {
			n, err = sizeFlag(size.flag, size.value)
		}
		if err != nil {
			return nil, err
		}
		*size.to = &n
	}
	if flags.Changed("cpus") {
		n, err := parseCPUs(f.cpus)
		if err != nil {
			return nil, err
		}
		c.NanoCPUs = &n
	}
	if f.pids < -1 {
		return nil, fmt.Errorf("pids limit of %d: want a positive number, or -1 for none", f.pids)
	}
	for flag, to := range map[string]struct {
		from *int64
		to   **int64
	}{
		"cpu-shares": {&f.shares, &c.CPUShares}, "cpu-period": {&f.period, &c.CPUPeriod}, "cpu-quota": {&f.quota, &c.CPUQuota},
		"cpu-rt-period": {&f.rtPeriod, &c.CPURealtimePeriod}, "cpu-rt-runtime": {&f.rtRuntime, &c.CPURealtimeRuntime},
		"pids-limit": {&f.pids, &c.PidsLimit},
	} {
		if flags.Changed(flag) {
			*to.to = to.from
		}
	}
	if flags.Changed("cpuset-cpus") {
		c.CpusetCPUs = &f.cpusetCPUs
	}
	if flags.Changed("cpuset-mems") {
		c.CpusetMems = &f.cpusetMem
	}
	if flags.Changed("blkio-weight") {
		if f.weight != 0 && (f.weight < 10 || f.weight > 1000) {
			return nil, fmt.Errorf("blkio weight of %d: want 10 to 1000, or 0 for none", f.weight)
		}
		c.BlkioWeight = &f.weight
	}
	return &c, nil
}

// deviceLimitFlags are the limits that stay as they are.
type deviceLimitFlags struct {
	swappiness                             int64
	oomKillDisable                         bool
	weights                                []string
	readBps, writeBps, readIOps, writeIOps []string
	ulimits                                []string
	cgroupParent                           string
}

func (f *deviceLimitFlags) register(p *pflag.FlagSet) {
	p.Int64Var(&f.swappiness, "memory-swappiness", -1, "how readily memory is swapped out, 0 to 100 (default: the machine's)")
	p.BoolVar(&f.oomKillDisable, "oom-kill-disable", false, "hold its processes instead of killing them when memory runs out")
	listVar(p, &f.weights, "blkio-weight-device", "share of one disk: /dev/sda:weight")
	listVar(p, &f.readBps, "device-read-bps", "bytes a second to read from a disk: /dev/sda:1mb")
	listVar(p, &f.writeBps, "device-write-bps", "bytes a second to write to a disk: /dev/sda:1mb")
	listVar(p, &f.readIOps, "device-read-iops", "reads a second from a disk: /dev/sda:1000")
	listVar(p, &f.writeIOps, "device-write-iops", "writes a second to a disk: /dev/sda:1000")
	listVar(p, &f.ulimits, "ulimit", "a limit of setrlimit(2): nofile=1024:2048; -1 for none")
	p.StringVar(&f.cgroupParent, "cgroup-parent", "", "cgroup to make the container's in")
}

func (f *deviceLimitFlags) read(flags *pflag.FlagSet, r *core.Resources) error {
	if flags.Changed("memory-swappiness") && f.swappiness != -1 {
		if f.swappiness < 0 || f.swappiness > 100 {
			return fmt.Errorf("memory swappiness of %d: want 0 to 100", f.swappiness)
		}
		r.MemorySwappiness = &f.swappiness
	}
	r.OOMKillDisable, r.CgroupParent = f.oomKillDisable, f.cgroupParent
	for _, w := range f.weights {
		dev, n, err := deviceNumber(w, func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 16) })
		if err != nil || n < 10 || n > 1000 {
			return fmt.Errorf("blkio weight %q: want /dev/NAME:WEIGHT with a weight of 10 to 1000", w)
		}
		r.BlkioWeightDevices = append(r.BlkioWeightDevices, core.DeviceWeight{Path: dev, Weight: uint16(n)})
	}
	bytes := func(s string) (uint64, error) { n, err := parseBytes(s); return uint64(n), err }
	plain := func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }
	for _, l := range []struct {
		flag  string
		list  []string
		parse func(string) (uint64, error)
		to    *[]core.DeviceRate
	}{
		{"device-read-bps", f.readBps, bytes, &r.BlkioReadBps}, {"device-write-bps", f.writeBps, bytes, &r.BlkioWriteBps},
		{"device-read-iops", f.readIOps, plain, &r.BlkioReadIOps}, {"device-write-iops", f.writeIOps, plain, &r.BlkioWriteIOps},
	} {
		for _, text := range l.list {
			dev, n, err := deviceNumber(text, l.parse)
			if err != nil {
				return fmt.Errorf("--%s %q: want /dev/NAME:NUMBER: %w", l.flag, text, err)
			}
			*l.to = append(*l.to, core.DeviceRate{Path: dev, Rate: n})
		}
	}
	for _, text := range f.ulimits {
		u, err := parseUlimit(text)
		if err != nil {
			return err
		}
		r.Ulimits = append(r.Ulimits, u)
	}
	return nil
}

// deviceNumber reads PATH:NUMBER.
func deviceNumber(text string, parse func(string) (uint64, error)) (string, uint64, error) {
	dev, number, ok := strings.Cut(text, ":")
	if !ok || !strings.HasPrefix(dev, "/dev/") || path.Clean(dev) != dev {
		return "", 0, errors.New("the device must be a path below /dev")
	}
	n, err := parse(number)
	return dev, n, err
}

// parseUlimit reads NAME=SOFT[:HARD]; soft alone is both.
func parseUlimit(text string) (core.Ulimit, error) {
	bad := func(why string) (core.Ulimit, error) { return core.Ulimit{}, fmt.Errorf("ulimit %q: %s", text, why) }
	name, limits, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return bad("want NAME=SOFT[:HARD]")
	}
	u := core.Ulimit{Name: name}
	soft, hard, both := strings.Cut(limits, ":")
	if !both {
		hard = soft
	}
	for _, l := range []struct {
		text string
		to   *int64
	}{{soft, &u.Soft}, {hard, &u.Hard}} {
		n, err := strconv.ParseInt(l.text, 10, 64)
		if err != nil || n < -1 {
			return bad("a limit is a number, or -1 for none")
		}
		*l.to = n
	}
	if u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
		return bad("the soft limit is above the hard one")
	}
	return u, nil
}

// sizeFlag reads a size that a flag was given; the empty one is 0.
func sizeFlag(flag, value string) (int64, error) {
	if value == "" {
		return 0, nil
	}
	n, err := parseBytes(value)
	if err != nil {
		return 0, fmt.Errorf("--%s: %w", flag, err)
	}
	return n, nil
}
