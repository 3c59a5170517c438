package driverhost

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
)

// capabilities is what the drivers of a kind may have: what their work needs of
// the kernel and no more. The exec driver hands capabilities on to containers,
// so it keeps all that this process has.
func capabilities(kind, name string) (keep []int, all bool) {
	switch {
	case kind == driver.KindExec:
		return nil, true
	case kind == driver.KindNet && (name == "null" || name == "host"):
		return nil, false
	case kind == driver.KindNet:
		return []int{
			unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, // links, addresses, nftables
			unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, // setns, unshare, namespaces of other processes
			unix.CAP_DAC_OVERRIDE, unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_KILL,
		}, false
	case kind == driver.KindGraph:
		return []int{
			unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_FSETID,
			unix.CAP_MKNOD, unix.CAP_SETFCAP, unix.CAP_SYS_ADMIN, // trusted.* attributes, mounts
			unix.CAP_SYS_RESOURCE, unix.CAP_LINUX_IMMUTABLE,
		}, false
	}
	return []int{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER}, false
}

// confine takes from the calling thread whatever the kind does not need: from its
// bounding set, and from the sets that outlive an execve by themselves. A program
// that root executes there gets the rest only (capabilities(7), "Transformation
// of capabilities during execve").
func confine(kind, name string) error {
	keep, all := capabilities(kind, name)
	if all {
		return nil
	}
	kept := make(map[int]bool, len(keep))
	for _, c := range keep {
		kept[c] = true
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if kept[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear the ambient capabilities: %w", err)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	err := unix.Capget(&head, &sets[0])
	if err == nil {
		sets[0].Inheritable, sets[1].Inheritable = 0, 0
		err = unix.Capset(&head, &sets[0])
	}
	if err != nil {
		return fmt.Errorf("clear the inheritable capabilities: %w", err)
	}
	return nil
}
