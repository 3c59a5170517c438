package seccomp

import "golang.org/x/sys/unix"

// reach is how far a conditional jump goes.
const reach = 255

// shrink leaves out returns that stand elsewhere too: a jump to one goes to the
// last equal one in its reach. Each start of a container makes the kernel check
// and translate the whole filter, which is long only by its returns. It expects
// code of this package: jumps forward, a return behind jumps and returns alone.
func shrink(p Program) Program {
	jumps := make([][2]int, len(p)) // where each instruction may go; len(p) is nowhere
	for i := range p {
		jumps[i] = targets(p, i)
	}
	needed := make([]bool, len(p)+1)
	needed[0] = true
	for i := range p {
		if needed[i] {
			needed[jumps[i][0]], needed[jumps[i][1]] = true, true
		}
	}
	place := make([]int, len(p)+1) // of each instruction in what is left
	for i := range p {
		place[i+1] = place[i]
		if needed[i] {
			place[i+1]++
		}
	}
	out := make(Program, 0, place[len(p)])
	for i, in := range p {
		if !needed[i] {
			continue
		}
		yes, no := place[jumps[i][0]]-place[i]-1, place[jumps[i][1]]-place[i]-1
		switch {
		case in.Code == unix.BPF_JMP|unix.BPF_JA:
			in.K = uint32(yes)
		case in.Code&7 == unix.BPF_JMP:
			in.Jt, in.Jf = uint8(yes), uint8(no)
		}
		out = append(out, in)
	}
	return out
}

// targets are the two instructions that may follow the one at i; the same for
// most, behind the end for a return.
func targets(p Program, i int) [2]int {
	in := p[i]
	switch {
	case in.Code&7 == unix.BPF_RET:
		return [2]int{len(p), len(p)}
	case in.Code == unix.BPF_JMP|unix.BPF_JA:
		to := lastEqual(p, i, i+1+int(in.K))
		return [2]int{to, to}
	case in.Code&7 == unix.BPF_JMP:
		return [2]int{lastEqual(p, i, i+1+int(in.Jt)), lastEqual(p, i, i+1+int(in.Jf))}
	}
	return [2]int{i + 1, i + 1}
}

// lastEqual is the last return equal to the one at to within reach of from; to
// itself if that is none.
func lastEqual(p Program, from, to int) int {
	if p[to].Code&7 != unix.BPF_RET {
		return to
	}
	for i := min(from+1+reach, len(p)-1); i > to; i-- {
		if p[i] == p[to] {
			return i
		}
	}
	return to
}
