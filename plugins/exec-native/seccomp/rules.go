package seccomp

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Return values of a filter (include/uapi/linux/seccomp.h).
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retTrace       = 0x7ff00000
	retNotify      = 0x7fc00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
)

// rule answers one system call when all its conditions hold.
type rule struct {
	conditions []condition
	answer     uint32
}

// condition compares one argument.
type condition struct {
	index      uint
	value, two uint64
	op         specs.LinuxSeccompOperator
}

// call is all that is known of one system call number.
type call struct {
	number uint32
	rules  []rule // the first whose conditions hold answers; else the default does
}

// plain reports whether the call's answer does not depend on arguments, and
// what it is.
func (c call) plain() (uint32, bool) {
	if len(c.rules) > 0 && len(c.rules[0].conditions) == 0 {
		return c.rules[0].answer, true
	}
	return 0, false
}

// answerOf translates an action of the specification.
func answerOf(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	code := uint32(unix.EPERM)
	if errno != nil {
		if *errno > 4095 { // MAX_ERRNO: the kernel cuts what is above
			return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "seccomp errno %d is above 4095", *errno)
		}
		code = uint32(*errno)
	}
	switch a {
	case specs.ActAllow:
		return retAllow, nil
	case specs.ActErrno:
		return retErrno | code, nil
	case specs.ActKill, specs.ActKillThread:
		return retKillThread, nil
	case specs.ActKillProcess:
		return retKillProcess, nil
	case specs.ActTrap:
		return retTrap, nil
	case specs.ActLog:
		return retLog, nil
	case specs.ActNotify:
		return retNotify, nil
	case specs.ActTrace:
		return retTrace | code, nil
	}
	return 0, errclass.Errorf(errdefs.ErrNotImplemented, "seccomp action %q is not supported", a)
}

// callsOf gathers the profile's rules for one architecture, by number. A name
// that the architecture does not have is left out, as libseccomp does: a
// profile serves many architectures. A rule without conditions stands before
// those with, wherever it was written; among the others order is the profile's.
func callsOf(p *specs.LinuxSeccomp, a arch) ([]call, error) {
	table := a.table()
	byNumber := map[uint32]*call{}
	for _, s := range p.Syscalls {
		rules, err := rulesOf(s)
		if err != nil {
			return nil, err
		}
		for _, name := range s.Names {
			number, ok := table[name]
			if !ok {
				continue
			}
			c := byNumber[number]
			if c == nil {
				c = &call{number: number}
				byNumber[number] = c
			}
			if len(s.Args) == 0 {
				c.rules = append(rules[:1:1], c.rules...)
			} else {
				c.rules = append(c.rules, rules...)
			}
		}
	}
	calls := make([]call, 0, len(byNumber))
	for _, c := range byNumber {
		calls = append(calls, *c)
	}
	slices.SortFunc(calls, func(x, y call) int { return int(x.number) - int(y.number) })
	return calls, nil
}

// rulesOf translates one entry of a profile. Its conditions must all hold,
// unless an argument is named twice: then each is a rule of its own, so that
// "personality is 0 or 8" can be said (as runc does).
func rulesOf(s specs.LinuxSyscall) ([]rule, error) {
	answer, err := answerOf(s.Action, s.ErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("seccomp rule for %v: %w", s.Names, err)
	}
	var conditions []condition
	var seen [6]bool
	alternatives := false
	for _, arg := range s.Args {
		if arg.Index > 5 {
			return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "seccomp rule for %v: argument index %d is above 5", s.Names, arg.Index)
		}
		switch arg.Op {
		case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
			specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
		default:
			return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "seccomp rule for %v: operator %q is not known", s.Names, arg.Op)
		}
		alternatives = alternatives || seen[arg.Index]
		seen[arg.Index] = true
		conditions = append(conditions, condition{arg.Index, arg.Value, arg.ValueTwo, arg.Op})
	}
	if !alternatives {
		return []rule{{conditions, answer}}, nil
	}
	rules := make([]rule, 0, len(conditions))
	for _, c := range conditions {
		rules = append(rules, rule{[]condition{c}, answer})
	}
	return rules, nil
}
