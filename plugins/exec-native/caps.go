package execnative

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/sdk/driver"
)

// defaultCaps is Docker's default set.
func defaultCaps() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
		"CAP_AUDIT_WRITE",
	}
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
		return 0, driver.Errorf(errdefs.ErrNotImplemented, "CapAdd %s: not in this machine's own bounding set", strings.Join(oci.CapList(lacking), ", "))
	}
	base, err := oci.CapBits(defaultCaps())
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
		bit, err := oci.CapBits([]string{full})
		if err != nil {
			return 0, false, fmt.Errorf("%s %q: %w", field, n, err)
		}
		bits |= bit
	}
	return bits, all, nil
}
