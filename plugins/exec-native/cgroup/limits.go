package cgroup

import (
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Write is one value for one file of a group.
type Write struct {
	Controller string // version 1: decides the hierarchy
	File       string
	Value      string
	Back       string // what the file must say afterwards; empty to not look
	Optional   bool   // leave out silently where the kernel has no such file
}

// defaultPeriod is the kernel's scheduling period in microseconds.
const defaultPeriod = 100_000

// refuse names the first limit that this package does not serve.
func refuse(r *specs.LinuxResources) error {
	name := ""
	switch {
	case r.BlockIO != nil:
		name = "blockIO"
	case len(r.HugepageLimits) > 0:
		name = "hugepageLimits"
	case r.Network != nil:
		name = "network"
	case len(r.Rdma) > 0:
		name = "rdma"
	case len(r.Unified) > 0:
		name = "unified"
	//lint:ignore SA1019 a deprecated field must be refused, so it must be read
	case r.Memory != nil && (r.Memory.Kernel != nil || r.Memory.KernelTCP != nil):
		name = "memory.kernel" // accepted by the kernel, but ignored
	case r.CPU != nil && (r.CPU.RealtimePeriod != nil || r.CPU.RealtimeRuntime != nil):
		name = "cpu.realtime"
	}
	if name == "" {
		return nil
	}
	return errclass.Errorf(errdefs.ErrNotImplemented, "resource limit %s is not supported", name)
}

// writesV1 computes what version 1 has to be told, in order.
func writesV1(r *specs.LinuxResources) ([]Write, error) {
	if err := refuse(r); err != nil {
		return nil, err
	}
	var w []Write
	if m := r.Memory; m != nil {
		if m.Limit != nil {
			w = append(w, Write{"memory", "memory.limit_in_bytes", number(*m.Limit), pages(*m.Limit), false})
		}
		if m.Reservation != nil {
			w = append(w, Write{"memory", "memory.soft_limit_in_bytes", number(*m.Reservation), pages(*m.Reservation), false})
		}
		if m.Swap != nil { // after the limit: it may not be below it
			w = append(w, Write{"memory", "memory.memsw.limit_in_bytes", number(*m.Swap), pages(*m.Swap), true})
		}
	}
	if c := r.CPU; c != nil {
		w = append(w, cpuV1(c)...)
	}
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0 {
		w = append(w, Write{"pids", "pids.max", number(*r.Pids.Limit), number(*r.Pids.Limit), false})
	}
	for _, d := range r.Devices {
		rule, err := deviceRule(d)
		if err != nil {
			return nil, err
		}
		file := "devices.deny"
		if d.Allow {
			file = "devices.allow"
		}
		w = append(w, Write{"devices", file, rule, "", false})
	}
	return w, nil
}

// cpuV1 computes the writes of the controllers cpu and cpuset.
func cpuV1(c *specs.LinuxCPU) []Write {
	var w []Write
	if c.Shares != nil {
		w = append(w, Write{"cpu", "cpu.shares", unsigned(*c.Shares), "", false}) // the kernel clamps
	}
	if c.Period != nil {
		w = append(w, Write{"cpu", "cpu.cfs_period_us", unsigned(*c.Period), unsigned(*c.Period), false})
	}
	if c.Quota != nil {
		w = append(w, Write{"cpu", "cpu.cfs_quota_us", number(*c.Quota), number(*c.Quota), false})
	}
	if c.Cpus != "" {
		w = append(w, Write{"cpuset", "cpuset.cpus", c.Cpus, "", false}) // read back in another spelling
	}
	if c.Mems != "" {
		w = append(w, Write{"cpuset", "cpuset.mems", c.Mems, "", false})
	}
	return w
}

// writesV2 computes what version 2 has to be told. Devices are a program
// there (devices.go).
func writesV2(r *specs.LinuxResources) ([]Write, error) {
	if err := refuse(r); err != nil {
		return nil, err
	}
	var w []Write
	if m := r.Memory; m != nil {
		if m.Limit != nil {
			w = append(w, Write{"memory", "memory.max", number(*m.Limit), pages(*m.Limit), false})
		}
		if m.Reservation != nil {
			w = append(w, Write{"memory", "memory.low", number(*m.Reservation), pages(*m.Reservation), false})
		}
		if m.Swap != nil {
			swap, err := swapV2(m)
			if err != nil {
				return nil, err
			}
			w = append(w, Write{"memory", "memory.swap.max", swap, swap, true})
		}
	}
	if c := r.CPU; c != nil {
		w = append(w, cpuV2(c)...)
	}
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0 {
		w = append(w, Write{"pids", "pids.max", number(*r.Pids.Limit), number(*r.Pids.Limit), false})
	}
	return w, nil
}

// swapV2 turns version 1's sum of memory and swap into swap alone.
func swapV2(m *specs.LinuxMemory) (string, error) {
	switch {
	case *m.Swap < 0:
		return "max", nil
	case m.Limit == nil || *m.Swap < *m.Limit:
		return "", errclass.Errorf(errdefs.ErrInvalidArgument, "memory with swap %d is below the memory limit", *m.Swap)
	}
	return pages(*m.Swap - *m.Limit), nil
}

// cpuV2 computes the writes of the controllers cpu and cpuset.
func cpuV2(c *specs.LinuxCPU) []Write {
	var w []Write
	if c.Shares != nil && *c.Shares > 0 {
		// The specification's line from 2..262144 shares to 1..10000 weight.
		shares := min(max(*c.Shares, 2), 262144)
		weight := unsigned(1 + (shares-2)*9999/262142)
		w = append(w, Write{"cpu", "cpu.weight", weight, weight, false})
	}
	if c.Quota != nil || c.Period != nil {
		quota, period := "max", uint64(defaultPeriod)
		if c.Quota != nil && *c.Quota > 0 {
			quota = number(*c.Quota)
		}
		if c.Period != nil {
			period = *c.Period
		}
		value := quota + " " + unsigned(period)
		w = append(w, Write{"cpu", "cpu.max", value, value, false})
	}
	if c.Cpus != "" {
		w = append(w, Write{"cpuset", "cpuset.cpus", c.Cpus, "", false})
	}
	if c.Mems != "" {
		w = append(w, Write{"cpuset", "cpuset.mems", c.Mems, "", false})
	}
	return w
}

// deviceRule spells a rule as version 1 reads it: "c 1:3 rwm".
func deviceRule(d specs.LinuxDeviceCgroup) (string, error) {
	kind := d.Type
	if kind == "" {
		kind = "a"
	}
	if kind != "a" && kind != "b" && kind != "c" {
		return "", errclass.Errorf(errdefs.ErrInvalidArgument, "device rule of type %q: want a, b or c", d.Type)
	}
	part := func(n *int64) string {
		if n == nil || *n < 0 {
			return "*"
		}
		return number(*n)
	}
	access := d.Access
	if access == "" {
		access = "rwm"
	}
	for _, a := range access {
		if a != 'r' && a != 'w' && a != 'm' {
			return "", errclass.Errorf(errdefs.ErrInvalidArgument, "device rule with access %q: want some of rwm", d.Access)
		}
	}
	return kind + " " + part(d.Major) + ":" + part(d.Minor) + " " + access, nil
}

func number(n int64) string    { return strconv.FormatInt(n, 10) }
func unsigned(n uint64) string { return strconv.FormatUint(n, 10) }

// pages rounds bytes down to whole pages, as the kernel does with limits it
// stores. Page sizes other than 4096 make the value read back differ further
// and are caught by sameNumber, which allows one page of 64 KiB.
func pages(n int64) string {
	if n < 0 {
		return ""
	}
	return number(n &^ 4095)
}
