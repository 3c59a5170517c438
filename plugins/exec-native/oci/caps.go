package oci

import (
	"slices"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// CapNames lists the capabilities by their bit, as include/uapi/linux/capability.h
// numbers them.
func CapNames() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
		"CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
		"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
		"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
		"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
		"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
		"CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
		"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
		"CAP_CHECKPOINT_RESTORE",
	}
}

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
