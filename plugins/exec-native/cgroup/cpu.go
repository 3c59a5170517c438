package cgroup

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultPeriod is the kernel's scheduling period in microseconds.
const defaultPeriod = 100_000

// Bounds of shares (kernel/sched/sched.h, MIN_SHARES and MAX_SHARES).
const (
	minShares = 2
	maxShares = 1 << 18
)

// cpu plans the controller cpu.
func (l *limits) cpu(c *specs.LinuxCPU) {
	if !set(c.Shares) && !set(c.Quota) && !set(c.Period) && c.Burst == nil && c.Idle == nil && !set(c.RealtimeRuntime) && !set(c.RealtimePeriod) {
		return
	}
	if c.Idle != nil && *c.Idle != 0 && *c.Idle != 1 {
		l.invalid("cpu.idle", "%d: want 0 or 1", *c.Idle)
	}
	if c.Burst != nil && set(c.Quota) && *c.Quota > 0 && *c.Burst > uint64(*c.Quota) {
		l.invalid("cpu.burst", "%d microseconds are more than the quota of %d", *c.Burst, *c.Quota)
	}
	switch l.on("cpu", "cpu", "cpu") {
	case 1:
		l.cpuV1(c)
	case 2:
		l.cpuV2(c)
	}
}

// idle plans cpu.idle. The kernel refuses a weight for an idle group (EINVAL),
// so 0 goes before the weight and 1 after it.
func (l *limits) idle(c *specs.LinuxCPU, unified bool, when int64) {
	if c.Idle != nil && *c.Idle == when {
		l.add(Write{Field: "cpu.idle", Controller: "cpu", Unified: unified, File: "cpu.idle", Value: number(when), Back: number(when)})
	}
}

// cpuV1 plans for version 1.
func (l *limits) cpuV1(c *specs.LinuxCPU) {
	write := func(field, file, value string) Write {
		return Write{Field: "cpu." + field, Controller: "cpu", File: file, Value: value, Back: value}
	}
	l.idle(c, false, 0)
	if set(c.Shares) { // what the kernel clamps is refused when it is read back
		l.add(write("shares", "cpu.shares", unsigned(*c.Shares)))
	}
	l.idle(c, false, 1)
	const burst = "cpu.cfs_burst_us"
	if present, ok := l.number("cpu", burst); c.Burst != nil && ok && present != 0 {
		l.add(write("burst", burst, "0")) // it may not be above the quota, not even for a moment
	}
	var both []Write
	if set(c.Period) {
		both = append(both, write("period", "cpu.cfs_period_us", unsigned(*c.Period)))
	}
	if set(c.Quota) {
		both = append(both, write("quota", "cpu.cfs_quota_us", number(max(*c.Quota, -1))))
	}
	if len(both) == 2 && l.quotaFirst(c) {
		both[0], both[1] = both[1], both[0]
	}
	for _, w := range both {
		l.add(w)
	}
	if c.Burst != nil {
		l.add(write("burst", burst, unsigned(*c.Burst)))
	}
	l.realtime(c, write)
}

// quotaFirst decides the order of quota and period: a group may not have a
// larger part of a processor than its parent, not even between the two writes
// (kernel/sched/core.c, tg_cfs_schedulable_down). So the one goes first after
// which the part is smaller.
func (l *limits) quotaFirst(c *specs.LinuxCPU) bool {
	quota, ok1 := l.number("cpu", "cpu.cfs_quota_us")
	period, ok2 := l.number("cpu", "cpu.cfs_period_us")
	switch {
	case !ok1 || !ok2 || quota < 0 || period <= 0:
		return false
	case *c.Quota < 0:
		return true
	}
	return float64(*c.Quota)/float64(period) < float64(quota)/float64(*c.Period)
}

// realtime plans the time of realtime scheduling, of version 1 alone. The
// runtime may not be above the period.
func (l *limits) realtime(c *specs.LinuxCPU, write func(field, file, value string) Write) {
	const runtime = "cpu.rt_runtime_us"
	var both []Write
	if set(c.RealtimePeriod) {
		both = append(both, write("realtimePeriod", "cpu.rt_period_us", unsigned(*c.RealtimePeriod)))
	}
	if set(c.RealtimeRuntime) {
		both = append(both, write("realtimeRuntime", runtime, number(*c.RealtimeRuntime)))
	}
	if present, ok := l.number("cpu", runtime); len(both) == 2 && ok && uint64(max(present, 0)) > *c.RealtimePeriod {
		both[0], both[1] = both[1], both[0]
	}
	for _, w := range both {
		l.add(w)
	}
}

// cpuV2 plans for version 2.
func (l *limits) cpuV2(c *specs.LinuxCPU) {
	write := func(field, file, value string) Write {
		return Write{Field: "cpu." + field, Controller: "cpu", Unified: true, File: file, Value: value, Back: value}
	}
	if set(c.RealtimePeriod) || set(c.RealtimeRuntime) {
		l.lack("cpu.realtimeRuntime", "cgroup version 2 has no such limit")
	}
	l.idle(c, true, 0)
	if set(c.Shares) {
		l.add(write("shares", "cpu.weight", unsigned(Weight(*c.Shares))))
	}
	l.idle(c, true, 1)
	const burst = "cpu.max.burst"
	if present, ok := l.number("cpu", burst); c.Burst != nil && ok && present != 0 {
		l.add(write("burst", burst, "0"))
	}
	if set(c.Quota) || set(c.Period) {
		l.add(write("quota", "cpu.max", l.cpuMax(c)))
	}
	if c.Burst != nil {
		l.add(write("burst", burst, unsigned(*c.Burst)))
	}
}

// cpuMax is quota and period as one value; what is not asked for stays.
func (l *limits) cpuMax(c *specs.LinuxCPU) string {
	quota, period := "max", uint64(defaultPeriod)
	if words := strings.Fields(l.now("cpu", "cpu.max")); len(words) == 2 {
		quota = words[0]
		if n, err := strconv.ParseUint(words[1], 10, 64); err == nil {
			period = n
		}
	}
	switch {
	case set(c.Quota) && *c.Quota < 0:
		quota = "max"
	case set(c.Quota):
		quota = number(*c.Quota)
	}
	if set(c.Period) {
		period = *c.Period
	}
	return fmt.Sprintf("%s %d", quota, period)
}

// Weight turns version 1's shares (2 to 262144, 1024 by default) into version
// 2's weight (1 to 10000, 100 by default): the curve through these three
// points that runc since 1.3.2 and crun since 1.23 draw, 10 to the power of
// (l² + 125 l)/612 - 7/34 with l = log2(shares), rounded up. The line that both
// drew before made 39 of the default.
func Weight(shares uint64) uint64 {
	switch {
	case shares <= minShares:
		return 1
	case shares >= maxShares:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}
