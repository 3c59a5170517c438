package cgroup

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of cpuacct.stat (USER_HZ), which kernels before 4.9 have
// alone.
const tick = 10 * time.Millisecond

// cpu reads processor time. Every group of version 2 has cpu.stat, also without
// the controller.
func (r *reader) cpu(c *CPU) {
	if d, ok := r.g.p.of("cpuacct"); ok {
		r.cpuV1(d, c)
		return
	}
	d, ok := r.g.p.unified()
	if !ok {
		return
	}
	micro := func(n uint64) time.Duration { return time.Duration(n) * time.Microsecond }
	fields(r.file(d, "cpu.stat"), func(name []byte, n uint64) {
		switch string(name) {
		case "usage_usec":
			c.Total = micro(n)
		case "user_usec":
			c.User = micro(n)
		case "system_usec":
			c.System = micro(n)
		case "nr_periods":
			c.Periods = n
		case "nr_throttled":
			c.Throttled = n
		case "throttled_usec":
			c.ThrottledTime = micro(n)
		case "nr_bursts":
			c.Bursts = n
		case "burst_usec":
			c.BurstTime = micro(n)
		}
	})
}

// cpuV1 reads cpuacct, and cpu.stat for the quota.
func (r *reader) cpuV1(d dir, c *CPU) {
	c.Total = time.Duration(r.number(d, "cpuacct.usage"))
	if r.what&AskMore == 0 {
		return
	}
	user := r.file(d, "cpuacct.usage_user")
	if n, ok := firstNumber(user); ok {
		c.User, c.System = time.Duration(n), time.Duration(r.number(d, "cpuacct.usage_sys"))
	} else {
		fields(r.file(d, "cpuacct.stat"), func(name []byte, n uint64) {
			switch string(name) {
			case "user":
				c.User = time.Duration(n) * tick
			case "system":
				c.System = time.Duration(n) * tick
			}
		})
	}
	for _, word := range bytes.Fields(r.file(d, "cpuacct.usage_percpu")) {
		n, _ := digits(word)
		c.PerCPU = append(c.PerCPU, time.Duration(n))
	}
	if d, ok := r.g.p.of("cpu"); ok {
		fields(r.file(d, "cpu.stat"), func(name []byte, n uint64) {
			switch string(name) {
			case "nr_periods":
				c.Periods = n
			case "nr_throttled":
				c.Throttled = n
			case "throttled_time":
				c.ThrottledTime = time.Duration(n)
			}
		})
	}
}

// memory reads the memory controller.
func (r *reader) memory(m *Memory) {
	d, ok := r.g.p.of("memory")
	switch {
	case !ok:
		m.Limit, m.SwapLimit, m.LimitWithSwap = NoLimit, NoLimit, NoLimit
	case d.Unified:
		r.memoryV2(d, m)
	default:
		r.memoryV1(d, m)
	}
}

// memoryStat reads memory.stat: known lines into m, all into Detail if asked.
func (r *reader) memoryStat(d dir, m *Memory, known func(name string) *uint64) {
	if r.what&AskDetail != 0 {
		m.Detail = map[string]uint64{}
	}
	fields(r.file(d, "memory.stat"), func(name []byte, n uint64) {
		if to := known(string(name)); to != nil {
			*to = n
		}
		if m.Detail != nil {
			m.Detail[string(name)] = n
		}
	})
}

// memoryV1 reads version 1, the lines that count the groups below too.
func (r *reader) memoryV1(d dir, m *Memory) {
	r.memoryStat(d, m, func(name string) *uint64 {
		switch name {
		case "total_cache":
			return &m.Cache
		case "total_rss":
			return &m.RSS
		case "total_active_file":
			return &m.ActiveFile
		case "total_inactive_file":
			return &m.InactiveFile
		case "total_mapped_file":
			return &m.Mapped
		case "total_swap":
			return &m.Swap
		case "total_pgfault":
			return &m.Faults
		case "total_pgmajfault":
			return &m.MajorFaults
		}
		return nil
	})
	m.Usage = r.number(d, "memory.usage_in_bytes")
	m.Limit = r.boundV1(d, "memory.limit_in_bytes")
	if r.what&AskMore == 0 {
		return
	}
	m.Peak = r.number(d, "memory.max_usage_in_bytes")
	m.Failures = r.number(d, "memory.failcnt")
	m.LimitWithSwap = r.boundV1(d, "memory.memsw.limit_in_bytes")
	m.UsageWithSwap = r.number(d, "memory.memsw.usage_in_bytes")
	m.PeakWithSwap = r.number(d, "memory.memsw.max_usage_in_bytes")
	m.SwapFailures = r.number(d, "memory.memsw.failcnt")
	m.Kernel = r.number(d, "memory.kmem.usage_in_bytes")
	m.KernelTCP = r.number(d, "memory.kmem.tcp.usage_in_bytes")
	m.SwapLimit = NoLimit
	if m.LimitWithSwap != NoLimit && m.Limit != NoLimit {
		m.SwapLimit = m.LimitWithSwap - m.Limit
	}
	fields(r.file(d, "memory.oom_control"), func(name []byte, n uint64) {
		switch string(name) {
		case "oom_kill_disable":
			m.OOMDisabled = n == 1
		case "under_oom":
			m.UnderOOM = n == 1
		}
	})
	m.OOMKills = r.oomKills()
}

// boundV1 reads a limit of version 1, whose largest number means none.
func (r *reader) boundV1(d dir, name string) uint64 {
	n, ok := firstNumber(r.file(d, name))
	if !ok || n >= uint64(mostBytes(int64(os.Getpagesize()))) {
		return NoLimit
	}
	return n
}

// memoryV2 reads version 2.
func (r *reader) memoryV2(d dir, m *Memory) {
	r.memoryStat(d, m, func(name string) *uint64 {
		switch name {
		case "file":
			return &m.Cache
		case "anon":
			return &m.RSS
		case "active_file":
			return &m.ActiveFile
		case "inactive_file":
			return &m.InactiveFile
		case "file_mapped":
			return &m.Mapped
		case "kernel":
			return &m.Kernel
		case "sock":
			return &m.KernelTCP
		case "pgfault":
			return &m.Faults
		case "pgmajfault":
			return &m.MajorFaults
		}
		return nil
	})
	m.Usage = r.number(d, "memory.current")
	m.Limit = r.bound(d, "memory.max")
	if r.what&AskMore == 0 {
		return
	}
	m.Peak = r.number(d, "memory.peak") // Linux 5.19
	m.Swap = r.number(d, "memory.swap.current")
	m.SwapLimit = r.bound(d, "memory.swap.max")
	m.UsageWithSwap, m.LimitWithSwap = m.Usage+m.Swap, NoLimit
	if m.Limit != NoLimit && m.SwapLimit != NoLimit {
		m.LimitWithSwap = m.Limit + m.SwapLimit
	}
	fields(r.file(d, "memory.events"), func(name []byte, n uint64) {
		switch string(name) {
		case "max":
			m.Failures = n
		case "oom_kill":
			m.OOMKills = n
		}
	})
	fields(r.file(d, "memory.swap.events"), func(name []byte, n uint64) {
		if string(name) == "max" {
			m.SwapFailures = n
		}
	})
}

// bound reads a limit of version 2; a file that is not there limits nothing.
func (r *reader) bound(d dir, name string) uint64 {
	n, ok := firstNumber(r.file(d, name))
	if !ok {
		return NoLimit
	}
	return n
}

// oomKills adds up the counters of the group and those below it.
func (r *reader) oomKills() uint64 {
	n, err := r.g.OOMKills()
	if err != nil && r.err == nil {
		r.err = err
	}
	return n
}

// io reads what went to and from disks. Version 1 counts it in the layer that
// throttles, whatever the scheduler; its recursive files are of Linux 5.2.
func (r *reader) io(s *Stats) {
	d, ok := r.g.p.of("blkio")
	if !ok {
		if d, ok = r.g.p.of("io"); ok {
			for line := range bytes.Lines(r.file(d, "io.stat")) {
				if one, ok := diskV2(line); ok {
					s.IO = append(s.IO, one)
				}
			}
		}
		return
	}
	recursive := func(name string) []byte {
		if text := r.file(d, name+"_recursive"); text != nil {
			return text
		}
		return r.file(d, name)
	}
	s.IO = disksV1(s.IO, recursive("blkio.throttle.io_service_bytes"), func(one *DiskIO, operation string, n uint64) {
		switch operation {
		case "Read":
			one.ReadBytes = n
		case "Write":
			one.WriteBytes = n
		case "Discard":
			one.DiscardBytes = n
		}
	})
	if r.what&AskMore == 0 {
		return
	}
	s.IO = disksV1(s.IO, recursive("blkio.throttle.io_serviced"), func(one *DiskIO, operation string, n uint64) {
		switch operation {
		case "Read":
			one.Reads = n
		case "Write":
			one.Writes = n
		case "Discard":
			one.Discards = n
		}
	})
}

// pids reads numbers of tasks, by the same names in both versions.
func (r *reader) pids(p *Pids) {
	d, ok := r.g.p.of("pids")
	if !ok {
		p.Limit = NoLimit
		return
	}
	p.Current = r.number(d, "pids.current")
	p.Limit = r.bound(d, "pids.max")
	if r.what&AskMore == 0 {
		return
	}
	fields(r.file(d, "pids.events"), func(name []byte, n uint64) {
		if string(name) == "max" {
			p.Failures = n
		}
	})
}

// huge reads huge pages of every size that the group has files for.
func (r *reader) huge(s *Stats) {
	d, ok := r.g.p.of("hugetlb")
	if !ok {
		return
	}
	usage, peak, limit := ".usage_in_bytes", ".max_usage_in_bytes", ".limit_in_bytes"
	if d.Unified {
		usage, peak, limit = ".current", ".peak", ".max"
	}
	for _, size := range hugeSizes(d, r.g.name, usage) {
		one := Huge{Size: size}
		prefix := "hugetlb." + size
		one.Usage, one.Peak = r.number(d, prefix+usage), r.number(d, prefix+peak)
		one.Limit = r.bound(d, prefix+limit)
		if d.Unified {
			fields(r.file(d, prefix+".events"), func(name []byte, n uint64) { one.Failures = n })
		} else {
			one.Failures = r.number(d, prefix+".failcnt")
			if page, ok := hugeSize(size); ok && one.Limit >= uint64(mostBytes(int64(os.Getpagesize())))/page*page {
				one.Limit = NoLimit
			}
		}
		s.Huge = append(s.Huge, one)
	}
}

// hugeSizes finds the sizes by the names of a group's files.
func hugeSizes(d dir, name, usage string) []string {
	fd, err := openAt(int(d.f.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	sizes := map[string]bool{}
	for _, n := range names {
		size, ok := strings.CutPrefix(n, "hugetlb.")
		if size, ok2 := strings.CutSuffix(size, usage); ok && ok2 && !strings.Contains(size, ".") {
			sizes[size] = true
		}
	}
	return slices.Sorted(maps.Keys(sizes))
}

// pressure reads how long tasks waited, which only version 2 counts.
func (r *reader) pressure(p *Pressure) {
	d, ok := r.g.p.unified()
	if !ok {
		return
	}
	p.CPU, p.Memory, p.IO = stall(r.file(d, "cpu.pressure")), stall(r.file(d, "memory.pressure")), stall(r.file(d, "io.pressure"))
}
