package oci

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ShimError is a start that failed in the shim.
type ShimError struct {
	Report plan.Report
}

// Error says which operation failed.
func (e *ShimError) Error() string { return e.Report.Err().Error() }

// Unwrap is the kernel's errno.
func (e *ShimError) Unwrap() error { return e.Report.Errno }

// StartError gives a failed start its class and its sentence. Those about the
// program are Docker's, since people search for them.
func StartError(err error, s *specs.Spec, p *plan.Plan, root *os.File) error {
	var failed *ShimError
	if !errors.As(err, &failed) {
		return err
	}
	switch failed.Report.Op {
	case plan.KindExec:
		return programError(failed.Report.Errno, s.Process.Args[0], root)
	case plan.KindChdir:
		class := errdefs.ErrInvalidArgument
		if errors.Is(err, unix.EACCES) {
			return errclass.Errorf(errdefs.ErrPermissionDenied, "chdir to %q: %w", s.Process.Cwd, failed.Report.Errno)
		}
		return errclass.Errorf(class, "chdir to %q: %w", s.Process.Cwd, failed.Report.Errno)
	}
	act := "start container"
	if s.Root == nil {
		act = "exec" // a further program has only a process
	}
	switch {
	case failed.Report.Op == plan.KindHook:
		return hookError(p, failed.Report)
	// Into a cgroup of version 2 it is the joiner that is cloned, which no operation names.
	case (failed.Report.Op == plan.KindClone || failed.Report.Op == 0 && failed.Report.Stage == plan.StageJoin) && errors.Is(err, unix.EAGAIN):
		return errclass.Errorf(errdefs.ErrResourceExhausted,
			"%s: no further process can be made: the pids limit or the user's limit of processes is reached: end some, or raise --pids-limit or --ulimit nproc", act)
	case failed.Report.Op == plan.KindRlimit && errors.Is(err, unix.EPERM):
		return errclass.Errorf(errdefs.ErrInvalidArgument,
			"%s: %smore than the engine has itself (ulimit -H), or than the kernel gives anybody: ask for less", act, subject(p, failed.Report))
	}
	return errclass.Errorf(classOf(failed.Report.Errno), "%s: %s%w", act, subject(p, failed.Report), err)
}

// hookError names the hook and says how it has failed.
func hookError(p *plan.Plan, r plan.Report) error {
	kind := "createContainer"
	if r.Stage > plan.StageMounts {
		kind = "startContainer"
	}
	what := "hook " + kind
	if r.Index >= 0 && r.Index < len(p.Steps) {
		if h, ok := p.Steps[r.Index].Op.(plan.Hook); ok {
			what += " " + h.Path
		}
	}
	switch r.Errno {
	case unix.ECHILD: // it has run; the report has its wait status
		w := unix.WaitStatus(r.Signal)
		if w.Signaled() {
			return errclass.Errorf(errdefs.ErrFailedPrecondition, "%s: ended by signal %v", what, w.Signal())
		}
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "%s: exit status %d", what, w.ExitStatus())
	case unix.ETIMEDOUT:
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "%s: timed out: it was killed", what)
	}
	return errclass.Errorf(classOf(r.Errno), "%s: %w", what, r.Errno)
}

// subject names what the failed operation was about.
func subject(p *plan.Plan, r plan.Report) string {
	if r.Op == 0 || r.Index < 0 || r.Index >= len(p.Steps) {
		return ""
	}
	switch op := p.Steps[r.Index].Op.(type) {
	case plan.Attach:
		return op.Target + ": "
	case plan.Bind:
		if r.Errno == unix.ESTALE {
			return fmt.Sprintf("mount %s: %s has been replaced since it was looked at: ", op.Target, op.Source)
		}
		return fmt.Sprintf("mount %s: bind mount of %s: ", op.Target, op.Source)
	case plan.Filesystem:
		return op.Type + " at " + op.Target + paramWords(op.Params) + ": "
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
	case plan.Rlimit:
		return fmt.Sprintf("%s %d:%d: ", rlimitName(op.Resource), op.Soft, op.Hard)
	case plan.ProcWrite:
		return fmt.Sprintf("%s %q: ", op.Name, op.Data)
	case plan.Label:
		if profile, ok := strings.CutPrefix(op.Value, "exec "); ok { // AppArmor's word before the name
			return fmt.Sprintf("AppArmor profile %q, which must be loaded: ", profile)
		}
		return fmt.Sprintf("%s %q: ", op.Attr, op.Value)
	case plan.Join:
		return namespaceWords(op.Flags) + ": "
	}
	return ""
}

// paramWords names what a filesystem was asked for: the kernel says no to it
// without saying to which.
func paramWords(params []plan.Param) string {
	var words []string
	for _, p := range params {
		words = append(words, strings.TrimSuffix(p.Key+"="+p.Value, "="))
	}
	if len(words) == 0 {
		return ""
	}
	return " (" + strings.Join(words, ",") + ")"
}

// namespaceWords names the namespaces of some flags.
func namespaceWords(flags uint32) string {
	var out []string
	for _, t := range []specs.LinuxNamespaceType{
		specs.CgroupNamespace, specs.IPCNamespace, specs.MountNamespace, specs.NetworkNamespace, specs.PIDNamespace,
		specs.TimeNamespace, specs.UserNamespace, specs.UTSNamespace,
	} {
		if flag, _ := NamespaceFlag(t); uint32(flag)&flags != 0 {
			out = append(out, string(t))
		}
	}
	return "namespace " + strings.Join(out, ", ")
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

// Exhausted gives errors about space and tables their class, where the code that
// met them gave none.
func Exhausted(err error) error {
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.ENOMEM, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, errno) && !errors.Is(err, errdefs.ErrResourceExhausted) && !errors.Is(err, errdefs.ErrInvalidArgument) {
			return errclass.Errorf(errdefs.ErrResourceExhausted, "%w", err)
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
			return NotInPath(program)
		}
		if found, err := linux.OpenInRoot(root, program, unix.O_PATH); err == nil {
			found.Close() // it is there: its interpreter or loader is not
			return errclass.Errorf(errdefs.ErrNotFound, "exec %s: %w", program, errno)
		}
		return errclass.Errorf(errdefs.ErrNotFound, "exec: %q: stat %s: %w", program, program, errno)
	case unix.ENOEXEC:
		return errclass.Errorf(errdefs.ErrPermissionDenied, "exec %s: exec format error", program)
	case unix.E2BIG:
		return errclass.Errorf(errdefs.ErrInvalidArgument, "exec %s: argument list and environment too long", program)
	case unix.ENOMEM:
		return errclass.Errorf(errdefs.ErrResourceExhausted, "exec %s: %w", program, errno)
	case unix.EACCES, unix.EPERM:
		return errclass.Errorf(errdefs.ErrPermissionDenied, "exec: %q: permission denied", program)
	}
	return errclass.Errorf(errdefs.ErrPermissionDenied, "exec: %q: %w", program, errno)
}

// NotInPath is Docker's sentence.
func NotInPath(program string) error {
	return errclass.Errorf(errdefs.ErrNotFound, "exec: %q: executable file not found in $PATH", program)
}
