package oci

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// limitOps set process.rlimits. They are for the program: what the init does
// before needs descriptors, memory and files of any number and size.
func limitOps(process *specs.Process) ([]plan.Op, error) {
	var done []string
	var ops []plan.Op
	for _, l := range process.Rlimits {
		resource, err := rlimitNumber(l.Type)
		if err != nil {
			return nil, err
		}
		if slices.Contains(done, l.Type) {
			return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "process.rlimits: %s is there twice", l.Type)
		}
		done = append(done, l.Type)
		ops = append(ops, plan.Rlimit{Resource: resource, Soft: l.Soft, Hard: l.Hard})
	}
	return ops, nil
}

// attributePart is what a process is given before anything is mounted: scores and
// priorities, which ask for capabilities that it loses later.
func attributePart(p *plan.Plan, process *specs.Process, ownScore int) error {
	if score := process.OOMScoreAdj; score != nil && *score != ownScore {
		p.Add(plan.StageChild, plan.ProcWrite{Name: "oom_score_adj", Data: fmt.Sprint(*score)})
	}
	if process.Scheduler != nil {
		op, err := schedulerOf(process.Scheduler)
		if err != nil {
			return err
		}
		p.Add(plan.StageChild, op)
	}
	if process.IOPriority != nil {
		op, err := ioPriorityOf(process.IOPriority)
		if err != nil {
			return err
		}
		p.Add(plan.StageChild, op)
	}
	return nil
}

// rlimitNames lists the limits by the kernel's number.
func rlimitNames() []string {
	return []string{
		"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
		"MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
	}
}

// rlimitName is a limit's name.
func rlimitName(number uint32) string {
	if names := rlimitNames(); int(number) < len(names) {
		return "RLIMIT_" + names[number]
	}
	return "RLIMIT"
}

// rlimitNumber is the kernel's number of a limit.
func rlimitNumber(name string) (uint32, error) {
	for i, n := range rlimitNames() {
		if name == "RLIMIT_"+n {
			return uint32(i), nil
		}
	}
	return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "rlimit %q is not known", name)
}

// schedulerOf reads process.scheduler: numbers of include/uapi/linux/sched.h.
func schedulerOf(s *specs.Scheduler) (plan.Scheduler, error) {
	invalid := func(format string, args ...any) (plan.Scheduler, error) {
		return plan.Scheduler{}, errclass.Errorf(errdefs.ErrInvalidArgument, "process.scheduler: "+format, args...)
	}
	policies := map[specs.LinuxSchedulerPolicy]uint32{
		specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3,
		specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6,
	}
	flags := map[specs.LinuxSchedulerFlag]uint64{
		specs.SchedFlagResetOnFork: 0x01, specs.SchedFlagReclaim: 0x02, specs.SchedFlagDLOverrun: 0x04,
		specs.SchedFlagKeepPolicy: 0x08, specs.SchedFlagKeepParams: 0x10,
		specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40,
	}
	policy, ok := policies[s.Policy]
	if !ok {
		return invalid("policy %q is not known", s.Policy)
	}
	op := plan.Scheduler{
		Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	for _, f := range s.Flags {
		bit, ok := flags[f]
		if !ok {
			return invalid("flag %q is not known", f)
		}
		op.Flags |= bit
	}
	realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	switch {
	case s.Nice < -20 || s.Nice > 19:
		return invalid("nice %d: want -20 to 19", s.Nice)
	case s.Priority != 0 && !realtime:
		return invalid("priority %d with %s: only SCHED_FIFO and SCHED_RR have one", s.Priority, s.Policy)
	case realtime && (s.Priority < 1 || s.Priority > 99):
		return invalid("priority %d: want 1 to 99", s.Priority)
	case s.Policy != specs.SchedDeadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0):
		return invalid("runtime, deadline and period are of SCHED_DEADLINE, not %s", s.Policy)
	}
	return op, nil
}

// ioPriorityOf reads process.ioPriority (include/uapi/linux/ioprio.h).
func ioPriorityOf(p *specs.LinuxIOPriority) (plan.IOPriority, error) {
	const classShift = 13
	classes := map[specs.IOPriorityClass]uint32{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}
	class, ok := classes[p.Class]
	if !ok {
		return plan.IOPriority{}, errclass.Errorf(errdefs.ErrInvalidArgument, "process.ioPriority: class %q is not known", p.Class)
	}
	if p.Priority < 0 || p.Priority > 7 {
		return plan.IOPriority{}, errclass.Errorf(errdefs.ErrInvalidArgument, "process.ioPriority: priority %d: want 0 to 7", p.Priority)
	}
	return plan.IOPriority{Value: class<<classShift | uint32(p.Priority)}, nil
}

// ParseSet reads a list of processors or memory nodes as the kernel writes it,
// "0-3,7", into a set: bit 0 of the first byte is number 0.
func ParseSet(field, list string) ([]byte, error) {
	var set []byte
	for _, part := range strings.Split(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || a > b || b >= plan.MaxMask*8 {
			return nil, errclass.Errorf(errdefs.ErrInvalidArgument, `%s %q: want a list like "0-3,7"`, field, list)
		}
		for ; a <= b; a++ {
			for int(a/8) >= len(set) {
				set = append(set, 0)
			}
			set[a/8] |= 1 << (a % 8)
		}
	}
	return set, nil
}

// personalityOf reads linux.personality.
func personalityOf(p *specs.LinuxPersonality) (plan.Personality, error) {
	if len(p.Flags) > 0 { // the specification defines none
		return plan.Personality{}, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.personality: flag %q is not known", p.Flags[0])
	}
	switch p.Domain {
	case specs.PerLinux:
		return plan.Personality{Persona: 0}, nil
	case specs.PerLinux32:
		return plan.Personality{Persona: 8}, nil // PER_LINUX32
	}
	return plan.Personality{}, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.personality: domain %q is not known", p.Domain)
}

// memoryModes are the modes of memory policies (include/uapi/linux/mempolicy.h).
func memoryModes() map[specs.MemoryPolicyModeType]uint32 {
	return map[specs.MemoryPolicyModeType]uint32{
		specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3,
		specs.MpolLocal: 4, specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
	}
}

// memoryFlags are their flags.
func memoryFlags() map[specs.MemoryPolicyFlagType]uint32 {
	return map[specs.MemoryPolicyFlagType]uint32{
		specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15,
	}
}

// MemoryModes lists the modes of linux.memoryPolicy, sorted.
func MemoryModes() []string { return sortedNames(memoryModes()) }

// MemoryFlags lists the flags of linux.memoryPolicy, sorted.
func MemoryFlags() []string { return sortedNames(memoryFlags()) }

func sortedNames[K ~string](m map[K]uint32) []string {
	var out []string
	for k := range m {
		out = append(out, string(k))
	}
	slices.Sort(out)
	return out
}

// memoryPolicyOf reads linux.memoryPolicy.
func memoryPolicyOf(m *specs.LinuxMemoryPolicy) (plan.MemoryPolicy, error) {
	flags := memoryFlags()
	mode, ok := memoryModes()[m.Mode]
	if !ok {
		return plan.MemoryPolicy{}, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.memoryPolicy: mode %q is not known", m.Mode)
	}
	for _, f := range m.Flags {
		bit, ok := flags[f]
		if !ok {
			return plan.MemoryPolicy{}, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.memoryPolicy: flag %q is not known", f)
		}
		mode |= bit
	}
	op := plan.MemoryPolicy{Mode: mode}
	if m.Nodes == "" {
		return op, nil
	}
	var err error
	op.Nodes, err = ParseSet("linux.memoryPolicy.nodes", m.Nodes)
	return op, err
}
