package seccomp

import (
	"runtime"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// x32Bit marks a call through the x32 table. The kernel reports x32 calls as
// of the architecture x86-64, so this bit is all that tells them apart.
const x32Bit = 0x40000000

// noCall is -1, the number of no call.
const noCall = 0xffffffff

// arch is one system call table of a filter.
type arch struct {
	name    specs.Arch
	audit   uint32 // what the kernel puts into seccomp_data.arch
	numbers string // "name=number …"
	words32 bool   // arguments are 32 bits wide: the upper halves mean nothing
	x32     bool   // numbers carry x32Bit
	private uint32 // where numbers of its own begin, far above the common ones; 0: nowhere
}

// archOf finds a table by the specification's name.
func archOf(name specs.Arch) (arch, error) {
	switch name {
	case specs.ArchX86_64:
		return arch{name: name, audit: 0xc000003e, numbers: numbersAMD64}, nil
	case specs.ArchX86:
		return arch{name: name, audit: 0x40000003, numbers: numbers386, words32: true}, nil
	case specs.ArchX32:
		return arch{name: name, audit: 0xc000003e, numbers: numbersX32, x32: true}, nil
	case specs.ArchAARCH64:
		return arch{name: name, audit: 0xc00000b7, numbers: numbersARM64}, nil
	case specs.ArchARM:
		return arch{name: name, audit: 0x40000028, numbers: numbersARM, words32: true, private: 0x0f0000}, nil
	}
	return arch{}, errclass.Errorf(errdefs.ErrNotImplemented, "seccomp architecture %s: no system call table", name)
}

// nativeArch is the architecture that this program was built for.
func nativeArch() (specs.Arch, error) {
	switch runtime.GOARCH {
	case "amd64":
		return specs.ArchX86_64, nil
	case "386":
		return specs.ArchX86, nil
	case "arm64":
		return specs.ArchAARCH64, nil
	case "arm":
		return specs.ArchARM, nil
	}
	return "", errclass.Errorf(errdefs.ErrNotImplemented, "seccomp on %s: no system call table", runtime.GOARCH)
}

// table returns the architecture's numbers by name.
func (a arch) table() map[string]uint32 {
	t := make(map[string]uint32, 480)
	for _, word := range strings.Fields(a.numbers) {
		name, number, _ := strings.Cut(word, "=")
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			panic("seccomp: broken table of " + string(a.name) + ": " + word)
		}
		t[name] = uint32(n)
	}
	return t
}
