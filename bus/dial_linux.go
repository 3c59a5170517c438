package bus

import (
	"errors"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// dialError says what a person can do when the socket does not open.
func dialError(path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return errclass.WithHint(errclass.Errorf(errdefs.ErrUnavailable, "no engine answers at %s", path),
			"start gantryd, or name another engine with -H or GANTRY_HOST")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return errclass.WithHint(errclass.Errorf(errdefs.ErrPermissionDenied, "the socket %s may not be opened", path),
			"run as root, or as a member of the group the engine was started with")
	}
	return errclass.Errorf(errdefs.ErrUnavailable, "connect to %s: %w", path, err)
}
