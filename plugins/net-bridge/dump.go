package bridge

import (
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/vishvananda/netlink"
)

const dumpTries = 100

// whole repeats a list that a change has interrupted: the kernel hands lists
// out in pieces and says so when they may not fit together (NLM_F_DUMP_INTR).
// With containers starting and ending all the time that happens.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	for try := range dumpTries {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
		time.Sleep(time.Duration(try) * 100 * time.Microsecond)
	}
	return nil, driver.Errorf(errdefs.ErrUnavailable, "interrupted %d times by changes", dumpTries)
}

func links(h *netlink.Handle) ([]netlink.Link, error) { return whole(h.LinkList) }
