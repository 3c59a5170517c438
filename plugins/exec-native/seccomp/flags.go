package seccomp

import (
	"slices"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// FlagNewListener asks the kernel for a listener (include/uapi/linux/seccomp.h).
const FlagNewListener = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER

// flagBits are the specification's flags as the kernel's. A filter is loaded by
// a process with one thread, so that TSYNC changes nothing; and with a listener
// the kernel takes it no longer.
func flagBits() map[specs.LinuxSeccompFlag]uint32 {
	return map[specs.LinuxSeccompFlag]uint32{
		"SECCOMP_FILTER_FLAG_TSYNC":            0,
		specs.LinuxSeccompFlagLog:              unix.SECCOMP_FILTER_FLAG_LOG,
		specs.LinuxSeccompFlagSpecAllow:        unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
		specs.LinuxSeccompFlagWaitKillableRecv: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
	}
}

// Flags lists the flags that are known, and those of them that this kernel
// takes, sorted.
func Flags() (known, taken []specs.LinuxSeccompFlag) {
	for name, bit := range flagBits() {
		known = append(known, name)
		if bit == 0 || kernelTakes(bit) {
			taken = append(taken, name)
		}
	}
	slices.Sort(known)
	slices.Sort(taken)
	return known, taken
}

// kernelTakes asks the kernel about a flag: with a filter at address 0 it says
// EFAULT when it knows the flag, EINVAL when it does not.
func kernelTakes(bit uint32) bool {
	if bit == unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV {
		bit |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER // it goes with a listener only
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(bit), 0)
	return errno == unix.EFAULT
}

// FlagsOf are the flags that a profile's filter is loaded with. Without a word
// about them it is SPEC_ALLOW, as runc's. A profile that notifies has a listener.
//
// InvalidArgument: a listener without rules that notify, or the reverse; a rule
// that would have the loading process wait for its own listener.
// NotImplemented: a flag that this kernel does not take.
func FlagsOf(p *specs.LinuxSeccomp) (uint32, error) {
	var flags uint32
	known := flagBits()
	for _, f := range p.Flags {
		bit, ok := known[f]
		if !ok {
			return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.seccomp.flags: %q is not known", f)
		}
		if bit != 0 && !kernelTakes(bit) {
			return 0, errclass.Errorf(errdefs.ErrNotImplemented, "linux.seccomp.flags: this kernel does not take %s", f)
		}
		flags |= bit
	}
	if p.Flags == nil {
		flags = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	notifies, err := notifies(p)
	switch {
	case err != nil:
		return 0, err
	case !notifies && p.ListenerPath != "":
		return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.seccomp.listenerPath without a rule that notifies")
	case p.ListenerMetadata != "" && p.ListenerPath == "":
		return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.seccomp.listenerMetadata without listenerPath")
	case notifies && p.ListenerPath == "":
		return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.seccomp: %s without listenerPath", specs.ActNotify)
	case notifies:
		return flags | FlagNewListener, nil
	case flags&unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0:
		return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.seccomp.flags: %s without a rule that notifies", specs.LinuxSeccompFlagWaitKillableRecv)
	}
	return flags, nil
}

// notifies reports whether a profile hands calls to a listener. What the loading
// process itself does until the listener has been handed over cannot be.
func notifies(p *specs.LinuxSeccomp) (bool, error) {
	if p.DefaultAction == specs.ActNotify {
		return false, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.seccomp: %s as the default action would stop the container's start", specs.ActNotify)
	}
	found := false
	for _, s := range p.Syscalls {
		if s.Action != specs.ActNotify {
			continue
		}
		found = true
		for _, own := range []string{"read", "write", "sendmsg", "recvmsg", "close", "exit_group"} {
			if slices.Contains(s.Names, own) {
				return false, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.seccomp: %s for %s would stop the container's start", specs.ActNotify, own)
			}
		}
	}
	return found, nil
}

// Actions lists what a rule may answer.
func Actions() []specs.LinuxSeccompAction {
	return []specs.LinuxSeccompAction{
		specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActLog,
		specs.ActNotify, specs.ActTrace, specs.ActTrap,
	}
}

// Operators lists how a rule may compare an argument.
func Operators() []specs.LinuxSeccompOperator {
	return []specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpLessEqual, specs.OpLessThan,
		specs.OpMaskedEqual, specs.OpNotEqual,
	}
}

// Architectures lists those with a system call table.
func Architectures() []specs.Arch {
	return []specs.Arch{specs.ArchAARCH64, specs.ArchARM, specs.ArchX32, specs.ArchX86, specs.ArchX86_64}
}
