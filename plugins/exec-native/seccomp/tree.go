package seccomp

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// span is a range of numbers that are answered alike, from first up to the
// next span's first.
type span struct {
	first uint32
	rules []rule // as in call; empty means rest
	rest  uint32 // answer when no rule holds
}

// spans covers all numbers of a table: those of the profile with their rules,
// those between with the default, those above the newest with ENOSYS; so also those
// that are below an architecture's own, far above the newest.
func spans(calls []call, rest uint32, a arch) []span {
	base := uint32(0)
	if a.x32 {
		base = x32Bit
	}
	out := []span{{first: base, rest: rest}}
	next := base // the first number not covered yet
	add := func(s span) {
		last := &out[len(out)-1]
		switch {
		case last.first == s.first:
			*last = s
		case len(last.rules) == 0 && len(s.rules) == 0 && last.rest == s.rest:
		default:
			out = append(out, s)
		}
	}
	beyond := rest
	if len(calls) > 0 && hidesNew(rest) { // a profile that names none has no newest
		beyond = retErrno | uint32(unix.ENOSYS)
	}
	for _, c := range calls {
		number := base + c.number
		if next > base && next < a.private && number >= a.private {
			add(span{first: next, rest: beyond})
			next = a.private
		}
		if number > next {
			add(span{first: next, rest: rest})
		}
		if answer, ok := c.plain(); ok {
			add(span{first: number, rest: answer})
		} else {
			add(span{first: number, rules: c.rules, rest: rest})
		}
		next = number + 1
	}
	add(span{first: next, rest: beyond})
	return out
}

// hidesNew reports whether unknown new calls shall look as if the kernel were
// older. A profile that lets through or only logs by default must not.
func hidesNew(rest uint32) bool {
	return rest != retAllow && rest != retLog && rest&0xffff0000 != retTrace
}

// tree finds the span of the number in the accumulator by bisection.
func tree(s []span, rest uint32, a arch) Program {
	if len(s) == 1 {
		return leaf(s[0], a)
	}
	mid := len(s) / 2
	return branch(unix.BPF_JGE, s[mid].first, tree(s[mid:], rest, a), tree(s[:mid], rest, a))
}

// leaf answers one span.
func leaf(s span, a arch) Program {
	out := Program{ret(s.rest)}
	for i := len(s.rules) - 1; i >= 0; i-- {
		out = ruleCode(s.rules[i], a, out)
	}
	return out
}

// ruleCode answers if all conditions of r hold, else goes on with no. The code
// of no is entered from several places, so it is laid out behind the last.
func ruleCode(r rule, a arch, no Program) Program {
	code := Program{ret(r.answer)}
	for i := len(r.conditions) - 1; i >= 0; i-- {
		code = conditionCode(r.conditions[i], a, code)
	}
	return append(patch(code), no...)
}

// miss is the jump target "behind this code": where a condition that does not
// hold leads. patch turns it into a distance. Code of one rule is at most six
// conditions of at most eight instructions, so 255 is never a real distance.
const miss = 255

// patch resolves the misses of one rule's code.
func patch(code Program) Program {
	for i := range code {
		if code[i].Code&7 != unix.BPF_JMP {
			continue
		}
		behind := uint8(len(code) - i - 1)
		if code[i].Jt == miss {
			code[i].Jt = behind
		}
		if code[i].Jf == miss {
			code[i].Jf = behind
		}
	}
	return code
}

// jump compares the accumulator with k.
func jump(op uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | op, Jt: jt, Jf: jf, K: k}
}

// conditionCode tests one argument, as two words of 32 bits, the upper first;
// if it holds, it goes on with yes, which follows.
func conditionCode(c condition, a arch, yes Program) Program {
	lo, hi := load(offsetArgs+8*uint32(c.index)+lowHalf), load(offsetArgs+8*uint32(c.index)+highHalf)
	low, high := uint32(c.value), uint32(c.value>>32)
	if a.words32 {
		return append(wordCode(c, lo, low), yes...)
	}
	var code Program
	switch c.op {
	case specs.OpEqualTo:
		code = Program{hi, jump(unix.BPF_JEQ, high, 0, miss), lo, jump(unix.BPF_JEQ, low, 0, miss)}
	case specs.OpNotEqual:
		code = Program{hi, jump(unix.BPF_JEQ, high, 0, 2), lo, jump(unix.BPF_JEQ, low, miss, 0)}
	case specs.OpMaskedEqual:
		code = Program{
			hi, and(high), jump(unix.BPF_JEQ, uint32(c.two>>32), 0, miss),
			lo, and(low), jump(unix.BPF_JEQ, uint32(c.two), 0, miss),
		}
	case specs.OpGreaterThan:
		code = Program{hi, jump(unix.BPF_JGT, high, 3, 0), jump(unix.BPF_JEQ, high, 0, miss), lo, jump(unix.BPF_JGT, low, 0, miss)}
	case specs.OpGreaterEqual:
		code = Program{hi, jump(unix.BPF_JGT, high, 3, 0), jump(unix.BPF_JEQ, high, 0, miss), lo, jump(unix.BPF_JGE, low, 0, miss)}
	case specs.OpLessThan:
		code = Program{hi, jump(unix.BPF_JGT, high, miss, 0), jump(unix.BPF_JEQ, high, 0, 2), lo, jump(unix.BPF_JGE, low, miss, 0)}
	case specs.OpLessEqual:
		code = Program{hi, jump(unix.BPF_JGT, high, miss, 0), jump(unix.BPF_JEQ, high, 0, 2), lo, jump(unix.BPF_JGT, low, miss, 0)}
	}
	return append(code, yes...)
}

// wordCode tests an argument of an architecture whose arguments have 32 bits.
func wordCode(c condition, lo unix.SockFilter, low uint32) Program {
	switch c.op {
	case specs.OpEqualTo:
		return Program{lo, jump(unix.BPF_JEQ, low, 0, miss)}
	case specs.OpNotEqual:
		return Program{lo, jump(unix.BPF_JEQ, low, miss, 0)}
	case specs.OpMaskedEqual:
		return Program{lo, and(low), jump(unix.BPF_JEQ, uint32(c.two), 0, miss)}
	case specs.OpGreaterThan:
		return Program{lo, jump(unix.BPF_JGT, low, 0, miss)}
	case specs.OpGreaterEqual:
		return Program{lo, jump(unix.BPF_JGE, low, 0, miss)}
	case specs.OpLessThan:
		return Program{lo, jump(unix.BPF_JGE, low, miss, 0)}
	default: // OpLessEqual; rulesOf lets nothing else through
		return Program{lo, jump(unix.BPF_JGT, low, miss, 0)}
	}
}

// and masks the accumulator.
func and(mask uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
}

// Where the halves of a 64-bit argument stand: all architectures of this
// package are little-endian.
const (
	lowHalf  = 0
	highHalf = 4
)
