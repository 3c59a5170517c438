package execnative

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
)

// capNames lists the capabilities by their bit, as include/uapi/linux/capability.h
// numbers them.
func capNames() []string {
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

// defaultCaps is Docker's default set.
func defaultCaps() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
		"CAP_AUDIT_WRITE",
	}
}

// capBits turns names into a set of bits.
func capBits(names []string) (uint64, error) {
	var bits uint64
	all := capNames()
	for _, n := range names {
		i := slices.Index(all, n)
		if i < 0 {
			return 0, driver.Errorf(errdefs.ErrInvalidArgument, "capability %q is not known", n)
		}
		bits |= 1 << i
	}
	return bits, nil
}

// capList turns bits into names, in the order of the bits. Bits without a name
// are newer than this program and are left out.
func capList(bits uint64) []string {
	var out []string
	for i, n := range capNames() {
		if bits&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// capsWanted is the set a container gets, by Docker's rules: privileged and
// ALL mean all we have ourselves (bounding); what is named must be among those.
func capsWanted(privileged bool, add, drop []string, bounding uint64) (uint64, error) {
	addBits, addAll, err := capRequest("CapAdd", add)
	if err != nil {
		return 0, err
	}
	dropBits, dropAll, err := capRequest("CapDrop", drop)
	if err != nil {
		return 0, err
	}
	if lacking := addBits &^ bounding; lacking != 0 {
		return 0, driver.Errorf(errdefs.ErrNotImplemented, "CapAdd %s: not in this machine's own bounding set", strings.Join(capList(lacking), ", "))
	}
	base, err := capBits(defaultCaps())
	if err != nil {
		return 0, err
	}
	switch {
	case privileged:
		return bounding, nil
	case addAll:
		base = bounding
	case dropAll:
		return addBits, nil
	}
	return (base&^dropBits | addBits) & bounding, nil
}

// capRequest reads a list as people write it: "NET_ADMIN", "cap_net_admin", "ALL".
func capRequest(field string, names []string) (bits uint64, all bool, err error) {
	for _, n := range names {
		full := strings.ToUpper(n)
		if full == "ALL" || full == "CAP_ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(full, "CAP_") {
			full = "CAP_" + full
		}
		bit, err := capBits([]string{full})
		if err != nil {
			return 0, false, fmt.Errorf("%s %q: %w", field, n, err)
		}
		bits |= bit
	}
	return bits, all, nil
}
