package execnative

import (
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/plugins/exec-native/seccomp"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// filter is a compiled seccomp filter, and the flags it is installed with.
type filter struct {
	code  []byte // empty for none
	flags uint32
}

// filterOf is the filter of a process: the default one, none, or one of a
// profile in Docker's form.
func (d *native) filterOf(s execdriver.Security, p *specs.Process) (filter, error) {
	switch {
	case s.Seccomp == "" && !s.Privileged:
		code, err := d.filters.Default(p.Capabilities.Bounding)
		return filter{code: code}, err
	case s.Seccomp == "", s.Seccomp == "unconfined": // a profile that was asked for holds for privileged ones too
		return filter{}, nil
	}
	profile, err := seccomp.LoadProfile(s.Seccomp, p.Capabilities.Bounding)
	if err != nil {
		return filter{}, driver.Errorf(errdefs.ErrInvalidArgument, "Security.Seccomp: %w", err)
	}
	if err := checkProfile(profile); err != nil {
		return filter{}, err
	}
	flags, err := seccomp.FlagsOf(profile)
	if err != nil {
		return filter{}, err
	}
	code, err := d.filters.Compile(profile)
	if err != nil {
		return filter{}, fmt.Errorf("Security.Seccomp: %w", err)
	}
	return filter{code, flags}, nil
}

// stoppedByFilter says that a start failed because of its profile: the init has
// ended without a word. nil for what failed otherwise.
func stoppedByFilter(err error, s execdriver.Security) error {
	var failed *oci.ShimError
	if s.Seccomp == "" || !errors.As(err, &failed) || failed.Report.Errno != unix.ESRCH {
		return nil
	}
	if failed.Report.Stage == plan.StageExec {
		return driver.Errorf(errdefs.ErrInvalidArgument, "Security.Seccomp: the profile does not let the program be executed")
	}
	return driver.Errorf(errdefs.ErrInvalidArgument, "Security.Seccomp: the profile let the container's init be killed before its program ran")
}

// checkProfile refuses profiles that ask somebody outside: this driver hands
// listeners to nobody, and a program would hang at its first such call.
func checkProfile(p *specs.LinuxSeccomp) error {
	notifies := func(s specs.LinuxSyscall) bool { return s.Action == specs.ActNotify }
	if p.DefaultAction == specs.ActNotify || slices.ContainsFunc(p.Syscalls, notifies) || p.ListenerPath != "" {
		return driver.Errorf(errdefs.ErrNotImplemented, "Security.Seccomp: SCMP_ACT_NOTIFY is not supported by this driver (gantry-oci has it)")
	}
	return nil
}
