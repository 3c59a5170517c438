package execnative

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// shimError is a start that failed in the shim.
type shimError struct {
	report plan.Report
}

// Error says which operation failed.
func (e *shimError) Error() string { return e.report.Err().Error() }

// Unwrap is the kernel's errno.
func (e *shimError) Unwrap() error { return e.report.Errno }

// startError gives a failed start its class and its sentence. Those about the
// program are Docker's, since people search for them.
func startError(err error, s *specs.Spec, p *plan.Plan, root *os.File) error {
	var failed *shimError
	if !errors.As(err, &failed) {
		return err
	}
	switch failed.report.Op {
	case plan.KindExec:
		return programError(failed.report.Errno, s.Process.Args[0], root)
	case plan.KindChdir:
		class := errdefs.ErrInvalidArgument
		if errors.Is(err, unix.EACCES) {
			return driver.Errorf(errdefs.ErrPermissionDenied, "chdir to %q: %w", s.Process.Cwd, failed.report.Errno)
		}
		return fmt.Errorf("chdir to %q: %w: %w", s.Process.Cwd, failed.report.Errno, class)
	}
	return fmt.Errorf("start container: %s%w: %w", subject(p, failed.report), err, classOf(failed.report.Errno))
}

// subject names what the failed operation was about.
func subject(p *plan.Plan, r plan.Report) string {
	if r.Op == 0 || r.Index < 0 || r.Index >= len(p.Steps) {
		return ""
	}
	switch op := p.Steps[r.Index].Op.(type) {
	case plan.Attach:
		return op.Target + ": "
	case plan.Filesystem:
		return op.Type + " at " + op.Target + ": "
	case plan.Node:
		return op.Path + ": "
	case plan.Symlink:
		return op.Path + ": "
	case plan.Mask:
		return op.Path + ": "
	case plan.ReadOnly:
		return op.Path + ": "
	case plan.SetAttr:
		return op.Path + ": "
	case plan.Sysctl:
		return op.Path + ": "
	}
	return ""
}

// classOf is the class of an errno that no better rule knows.
func classOf(errno error) error {
	switch {
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.ENODEV), errors.Is(errno, unix.EOPNOTSUPP):
		return errdefs.ErrNotImplemented
	case errors.Is(errno, unix.EINVAL), errors.Is(errno, unix.ELOOP), errors.Is(errno, unix.ENOTDIR),
		errors.Is(errno, unix.EISDIR), errors.Is(errno, unix.ENAMETOOLONG), errors.Is(errno, unix.EROFS), errors.Is(errno, unix.ENOENT):
		return errdefs.ErrInvalidArgument
	case errors.Is(errno, unix.ENOMEM), errors.Is(errno, unix.ENOSPC), errors.Is(errno, unix.EMFILE), errors.Is(errno, unix.EAGAIN):
		return errdefs.ErrResourceExhausted
	case errors.Is(errno, unix.ECANCELED):
		return errdefs.ErrAborted
	}
	return errdefs.ErrInternal
}

// exhausted gives errors about space and tables their class, where the code that
// met them gave none.
func exhausted(err error) error {
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.ENOMEM, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, errno) && !errors.Is(err, errdefs.ErrResourceExhausted) && !errors.Is(err, errdefs.ErrInvalidArgument) {
			return driver.Errorf(errdefs.ErrResourceExhausted, "%w", err)
		}
	}
	return err
}

// programError says why the program was not executed. NotFound becomes exit
// code 127, PermissionDenied 126.
func programError(errno unix.Errno, program string, root *os.File) error {
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		if !strings.Contains(program, "/") {
			return notInPath(program)
		}
		if found, err := linux.OpenInRoot(root, program, unix.O_PATH); err == nil {
			found.Close() // it is there: its interpreter or loader is not
			return driver.Errorf(errdefs.ErrNotFound, "exec %s: %w", program, errno)
		}
		return driver.Errorf(errdefs.ErrNotFound, "exec: %q: stat %s: %w", program, program, errno)
	case unix.ENOEXEC:
		return driver.Errorf(errdefs.ErrPermissionDenied, "exec %s: exec format error", program)
	case unix.E2BIG:
		return driver.Errorf(errdefs.ErrInvalidArgument, "exec %s: argument list and environment too long", program)
	case unix.ENOMEM:
		return driver.Errorf(errdefs.ErrResourceExhausted, "exec %s: %w", program, errno)
	case unix.EACCES, unix.EPERM:
		return driver.Errorf(errdefs.ErrPermissionDenied, "exec: %q: permission denied", program)
	}
	return driver.Errorf(errdefs.ErrPermissionDenied, "exec: %q: %w", program, errno)
}

// notInPath is Docker's sentence.
func notInPath(program string) error {
	return driver.Errorf(errdefs.ErrNotFound, "exec: %q: executable file not found in $PATH", program)
}
