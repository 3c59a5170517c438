package runtime

import (
	"context"
	"os"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// unitGroup has systemd make the cgroup, as a transient unit.
func (c *creation) unitGroup(cgroup.Tree, *specs.LinuxResources) (cgroup.Place, *cgroup.Group, error) {
	if _, err := os.Lstat("/run/systemd/system"); err != nil { // sd_booted(3)
		return nil, nil, errclass.Errorf(errdefs.ErrNotImplemented, "systemd-cgroup: systemd is not running as system manager")
	}
	return nil, nil, errclass.Errorf(errdefs.ErrNotImplemented, "systemd-cgroup: not served")
}

// stopUnit ends the transient unit, if there is one.
func (c *container) stopUnit(context.Context) error { return nil }
