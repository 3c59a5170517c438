package seccomp

import (
	"encoding/binary"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxInstructions is the kernel's bound on one filter (BPF_MAXINSNS).
const maxInstructions = 4096

// Offsets in struct seccomp_data.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// Program is a filter as seccomp(2) takes it.
type Program []unix.SockFilter

// Bytes is the program as an array of struct sock_filter in the machine's byte
// order.
func (p Program) Bytes() []byte {
	b := make([]byte, 0, len(p)*8)
	for _, i := range p {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b
}

// Compile translates a profile. The native architecture is always part of the
// filter; a call through a table that the profile does not list kills the
// process.
//
// InvalidArgument: a rule that cannot be. Unimplemented: an action or
// architecture that this package does not know; a filter that is too long for
// the kernel.
func Compile(p *specs.LinuxSeccomp) (Program, error) {
	if _, err := notifies(p); err != nil {
		return nil, err
	}
	native, err := nativeArch()
	if err != nil {
		return nil, err
	}
	names := append([]specs.Arch{native}, p.Architectures...)
	var main, x32 *block
	var others []block
	done := map[specs.Arch]bool{}
	for _, name := range names {
		if done[name] {
			continue
		}
		done[name] = true
		b, err := blockOf(p, name)
		if err != nil {
			return nil, err
		}
		switch {
		case main == nil:
			main = &b
		case b.arch.x32:
			x32 = &b
		default:
			others = append(others, b)
		}
	}
	prog := shrink(join(*main, x32, others))
	if len(prog) > maxInstructions {
		return nil, errclass.Errorf(errdefs.ErrNotImplemented, "seccomp filter of %d instructions is longer than the kernel's %d", len(prog), maxInstructions)
	}
	return prog, nil
}

// block answers all calls of one table; every path through it ends in a return.
type block struct {
	arch   arch
	code   Program
	beyond uint32 // its answer to numbers above the newest
}

// blockOf compiles the profile for one table. It expects the number in the
// accumulator.
func blockOf(p *specs.LinuxSeccomp, name specs.Arch) (block, error) {
	a, err := archOf(name)
	if err != nil {
		return block{}, err
	}
	rest, err := answerOf(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return block{}, fmt.Errorf("seccomp default action: %w", err)
	}
	calls, err := callsOf(p, a)
	if err != nil {
		return block{}, err
	}
	s := spans(calls, rest, a)
	return block{a, tree(s, rest, a), s[len(s)-1].rest}, nil
}

// join puts the architectures' blocks one behind the other, the native first.
func join(main block, x32 *block, others []block) Program {
	native := main.code
	if main.arch.name == specs.ArchX86_64 {
		// Without the x32 table, a number with its bit is of no known table; but -1,
		// which programs try to see what an unknown call gives, is of none at all.
		other := branch(unix.BPF_JEQ, noCall, Program{ret(main.beyond)}, Program{ret(retKillProcess)})
		if x32 != nil {
			other = x32.code
		}
		native = branch(unix.BPF_JGE, x32Bit, other, native)
	}
	native = append(Program{load(offsetNumber)}, native...)
	tail := Program{ret(retKillProcess)}
	for i := len(others) - 1; i >= 0; i-- {
		code := append(Program{load(offsetNumber)}, others[i].code...)
		tail = branch(unix.BPF_JEQ, others[i].arch.audit, code, tail)
	}
	return append(Program{load(offsetArch)}, branch(unix.BPF_JEQ, main.arch.audit, native, tail)...)
}

// load reads one word of seccomp_data into the accumulator.
func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// ret ends the filter with an answer.
func ret(answer uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: answer}
}

// branch runs yes if the accumulator compares true with k, else no. Both end
// in returns. Conditional jumps reach 255 instructions; further, an
// unconditional one with its 32 bits takes over.
func branch(op uint16, k uint32, yes, no Program) Program {
	jump := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | op, K: k}
	out := make(Program, 0, len(yes)+len(no)+2)
	if len(yes) <= 255 {
		jump.Jf = uint8(len(yes))
		return append(append(append(out, jump), yes...), no...)
	}
	jump.Jt, jump.Jf = 1, 0
	far := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(yes))}
	return append(append(append(out, jump, far), yes...), no...)
}
