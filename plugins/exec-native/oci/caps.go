package oci

import (
	"slices"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"golang.org/x/sys/unix"
)

// CapNames lists the capabilities by their bit.
func CapNames() []string { return linux.CapNames() }

// CapBits turns names into a set of bits.
func CapBits(names []string) (uint64, error) {
	var bits uint64
	all := CapNames()
	for _, n := range names {
		i := slices.Index(all, n)
		if i < 0 {
			return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "capability %q is not known", n)
		}
		bits |= 1 << i
	}
	return bits, nil
}

// CapList turns bits into names, in the order of the bits. Bits without a name
// are newer than this program and are left out.
func CapList(bits uint64) []string {
	var out []string
	for i, n := range CapNames() {
		if bits&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// OwnBounding reads this process's bounding set.
func OwnBounding() uint64 {
	var bits uint64
	for i := range CapNames() {
		if on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(i), 0, 0, 0); err == nil && on == 1 {
			bits |= 1 << i
		}
	}
	return bits
}
