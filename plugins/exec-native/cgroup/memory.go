package cgroup

import (
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// memory plans the memory controller (memory.rst of cgroup-v1; "Memory" of
// cgroup-v2.rst).
func (l *limits) memory(m *specs.LinuxMemory) {
	if !memoryAsks(m) {
		return
	}
	for _, v := range []struct {
		field string
		value *int64
	}{{"limit", m.Limit}, {"reservation", m.Reservation}, {"swap", m.Swap}} {
		if v.value != nil && *v.value < -1 {
			l.invalid("memory."+v.field, "%d bytes: want -1 for no limit, or more than 0", *v.value)
		}
	}
	//lint:ignore SA1019 a deprecated field must be refused, so it must be read
	if n := m.Kernel; n != nil && *n > 0 {
		l.lack("memory.kernel", "kernels keep no such limit any more: version 1 takes the value and ignores it, version 2 has no file")
	}
	switch l.on("memory", "memory", "memory") {
	case 1:
		l.memoryV1(m)
	case 2:
		l.memoryV2(m)
	}
}

// memoryAsks reports whether anything is asked for at all.
func memoryAsks(m *specs.LinuxMemory) bool {
	//lint:ignore SA1019 a deprecated field must be refused, so it must be read
	kernel, tcp := m.Kernel, m.KernelTCP
	for _, n := range []*int64{m.Limit, m.Reservation, m.Swap, kernel, tcp} {
		if n != nil && *n != 0 {
			return true
		}
	}
	return m.Swappiness != nil || m.DisableOOMKiller != nil || m.UseHierarchy != nil
}

// memoryV1 plans for version 1.
func (l *limits) memoryV1(m *specs.LinuxMemory) {
	write := func(field, file string, n int64) Write {
		back := pages(n, l.page)
		if n < 0 {
			back = unlimited(l.page)
		}
		return Write{Field: "memory." + field, Controller: "memory", File: file, Value: number(n), Back: back}
	}
	if m.UseHierarchy != nil { // before all others: only a group without limits and children takes it
		value := "0"
		if *m.UseHierarchy {
			value = "1"
		}
		l.add(Write{Field: "memory.useHierarchy", Controller: "memory", File: "memory.use_hierarchy", Value: value, Back: value})
	}
	if set(m.Limit) {
		l.checkUsage(m, "memory.usage_in_bytes")
	}
	l.limitAndSwap(m, write)
	if set(m.Reservation) {
		l.add(write("reservation", "memory.soft_limit_in_bytes", *m.Reservation))
	}
	if set(m.KernelTCP) {
		l.add(write("kernelTCP", "memory.kmem.tcp.limit_in_bytes", *m.KernelTCP))
	}
	if m.Swappiness != nil && int64(*m.Swappiness) != -1 { // runc's callers say -1 for "as it is"
		value := unsigned(*m.Swappiness)
		if *m.Swappiness > 100 {
			l.invalid("memory.swappiness", "%s: want 0 to 100", value)
		}
		l.add(Write{Field: "memory.swappiness", Controller: "memory", File: "memory.swappiness", Value: value, Back: value})
	}
	if m.DisableOOMKiller != nil {
		value := "0"
		if *m.DisableOOMKiller {
			value = "1"
		}
		l.add(Write{Field: "memory.disableOOMKiller", Controller: "memory", File: "memory.oom_control", Value: value,
			Key: "oom_kill_disable", Back: value, Rule: sameLine, Reset: "0"})
	}
}

// limitAndSwap orders the two: the kernel keeps memory <= memory and swap at
// every moment (mm/memcontrol-v1.c, mem_cgroup_resize_max). If the new limit
// fits below the present sum it goes first, else the sum does.
func (l *limits) limitAndSwap(m *specs.LinuxMemory, write func(field, file string, n int64) Write) {
	const sum = "memory.memsw.limit_in_bytes"
	var both []Write
	if set(m.Limit) {
		both = append(both, write("limit", "memory.limit_in_bytes", *m.Limit))
	}
	swap := m.Swap
	if !set(swap) && set(m.Limit) && *m.Limit < 0 {
		swap = m.Limit // no limit of memory means none of the sum
	}
	if set(swap) {
		w := write("swap", sum, *swap)
		w.Optional = *swap < 0 || set(m.Limit) && *swap == *m.Limit && !haveSwap()
		both = append(both, w)
	}
	if len(both) == 2 {
		present, bounded := l.number("memory", sum)
		if bounded && (*m.Limit < 0 || *m.Limit > present) {
			both[0], both[1] = both[1], both[0]
		}
	}
	for _, w := range both {
		l.add(w)
	}
}

// haveSwap reports whether this machine swaps at all. It is asked only where
// the kernel does not count swap.
func haveSwap() bool {
	text, err := os.ReadFile("/proc/swaps")
	return err != nil || strings.Count(string(text), "\n") > 1
}

// checkUsage refuses a limit below the present usage, if that is asked for:
// version 1's kernel tries to reclaim first, version 2's kills.
func (l *limits) checkUsage(m *specs.LinuxMemory, file string) {
	if m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate || *m.Limit < 0 {
		return
	}
	if usage, ok := l.number("memory", file); ok && usage > *m.Limit {
		l.invalid("memory.limit", "%d bytes are below the %d in use, and checkBeforeUpdate is set", *m.Limit, usage)
	}
}

// memoryV2 plans for version 2.
func (l *limits) memoryV2(m *specs.LinuxMemory) {
	write := func(field, file string, n int64) Write {
		value, back := number(n), pages(n, l.page)
		if n < 0 {
			value, back = "max", "max"
		} else if n >= mostBytes(l.page) {
			back = "max"
		}
		return Write{Field: "memory." + field, Controller: "memory", Unified: true, File: file, Value: value, Back: back}
	}
	if set(m.Limit) {
		l.checkUsage(m, "memory.current")
		l.add(write("limit", "memory.max", *m.Limit))
	}
	if swap, ok := l.swapV2(m); ok {
		w := write("swap", "memory.swap.max", swap)
		w.Optional = swap < 0 || swap == 0 && !haveSwap()
		l.add(w)
	}
	if set(m.Reservation) {
		l.add(write("reservation", "memory.low", *m.Reservation))
	}
	if m.KernelTCP != nil && *m.KernelTCP > 0 {
		l.lack("memory.kernelTCP", "cgroup version 2 has no such limit: it counts in memory.limit")
	}
	if m.Swappiness != nil && int64(*m.Swappiness) != -1 {
		l.lack("memory.swappiness", "cgroup version 2 has no such setting for a group")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		l.lack("memory.disableOOMKiller", "cgroup version 2 cannot switch it off")
	}
	if m.UseHierarchy != nil && !*m.UseHierarchy {
		l.lack("memory.useHierarchy", "cgroup version 2 always counts in hierarchies")
	}
}

// swapV2 turns version 1's sum of memory and swap into swap alone: the sum
// minus the limit, as runc and crun do (runc docs/cgroup-v2.md).
func (l *limits) swapV2(m *specs.LinuxMemory) (int64, bool) {
	switch {
	case !set(m.Swap):
		return -1, set(m.Limit) && *m.Limit < 0 // no limit of memory means none of the sum
	case *m.Swap < 0:
		return -1, true
	}
	limit, known := int64(-1), true
	if set(m.Limit) {
		limit = *m.Limit
	} else if limit, known = l.number("memory", "memory.max"); !known {
		limit = -1
	}
	if limit < 0 {
		l.invalid("memory.swap", "%d bytes for memory and swap together need a limit of memory as well", *m.Swap)
	} else if *m.Swap < limit {
		l.invalid("memory.swap", "%d bytes for memory and swap together are below the %s for memory", *m.Swap, strconv.FormatInt(limit, 10))
	}
	return *m.Swap - limit, true
}

// set reports whether a number is there and not zero.
func set[T int64 | uint64 | uint16](n *T) bool { return n != nil && *n != 0 }
