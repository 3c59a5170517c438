package seccomp

import (
	"encoding/binary"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// data is struct seccomp_data.
type data struct {
	number, arch uint32
	args         [6]uint64
}

func (d data) bytes() []byte {
	b := binary.LittleEndian.AppendUint32(nil, d.number)
	b = binary.LittleEndian.AppendUint32(b, d.arch)
	b = binary.LittleEndian.AppendUint64(b, 0)
	for _, a := range d.args {
		b = binary.LittleEndian.AppendUint64(b, a)
	}
	return b
}

// interpret runs a filter as the kernel does, and says how many instructions
// it took. It knows only what the compiler emits; anything else is an error.
func interpret(p Program, d data) (answer uint32, steps int, err error) {
	in := d.bytes()
	var acc uint32
	for pc := 0; pc < len(p); steps++ {
		i := p[pc]
		pc++
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.LittleEndian.Uint32(in[i.K:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= i.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			pc += jumpBy(i, acc == i.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			pc += jumpBy(i, acc > i.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			pc += jumpBy(i, acc >= i.K)
		case unix.BPF_RET | unix.BPF_K:
			return i.K, steps + 1, nil
		default:
			return 0, steps, fmt.Errorf("instruction %d: code %#x", pc-1, i.Code)
		}
	}
	return 0, steps, fmt.Errorf("ran off the end")
}

func jumpBy(i unix.SockFilter, yes bool) int {
	if yes {
		return int(i.Jt)
	}
	return int(i.Jf)
}

// linear answers a call by reading the profile from top to bottom: what the
// filter must do, said without any tree.
func linear(p *specs.LinuxSeccomp, a arch, table map[string]uint32, number uint32, args [6]uint64) uint32 {
	rest, _ := answerOf(p.DefaultAction, p.DefaultErrnoRet)
	var plain, conditional *uint32
	newest := uint32(0)
	for _, s := range p.Syscalls {
		answer, _ := answerOf(s.Action, s.ErrnoRet)
		for _, name := range s.Names {
			n, ok := table[name]
			if !ok {
				continue
			}
			if number >= a.private || n < a.private {
				newest = max(newest, n)
			}
			switch {
			case n != number:
			case len(s.Args) == 0:
				plain = &answer
			case conditional == nil && holds(s, a, args):
				conditional = &answer
			}
		}
	}
	switch {
	case plain != nil:
		return *plain
	case conditional != nil:
		return *conditional
	case number > newest && hidesNew(rest):
		return retErrno | uint32(unix.ENOSYS)
	}
	return rest
}

// holds says whether the conditions of one entry hold.
func holds(s specs.LinuxSyscall, a arch, args [6]uint64) bool {
	var seen [6]bool
	all, any, twice := true, false, false
	for _, c := range s.Args {
		twice = twice || seen[c.Index]
		seen[c.Index] = true
		ok := compares(c, a, args[c.Index])
		all, any = all && ok, any || ok
	}
	if twice {
		return any
	}
	return all
}

func compares(c specs.LinuxSeccompArg, a arch, x uint64) bool {
	value, two := c.Value, c.ValueTwo
	if a.words32 {
		x, value, two = x&0xffffffff, value&0xffffffff, two&0xffffffff
	}
	switch c.Op {
	case specs.OpNotEqual:
		return x != value
	case specs.OpLessThan:
		return x < value
	case specs.OpLessEqual:
		return x <= value
	case specs.OpEqualTo:
		return x == value
	case specs.OpGreaterEqual:
		return x >= value
	case specs.OpGreaterThan:
		return x > value
	case specs.OpMaskedEqual:
		return x&value == two
	}
	panic("operator " + string(c.Op))
}
