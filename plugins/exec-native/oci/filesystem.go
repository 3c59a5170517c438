package oci

import (
	"fmt"
	"os"

	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"golang.org/x/sys/unix"
)

// MakeFilesystem makes a detached mount of a new file system, tmpfs say, with the
// mount's flags in attrs (MOUNT_ATTR_…).
func MakeFilesystem(kind string, params []plan.Param, attrs uint64) (linux.Detached, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return linux.Detached{}, fmt.Errorf("open %s: %w", kind, err)
	}
	defer unix.Close(fs)
	for _, p := range params {
		if p.Type == plan.ParamString {
			err = unix.FsconfigSetString(fs, p.Key, p.Value)
		} else {
			err = unix.FsconfigSetFlag(fs, p.Key)
		}
		if err != nil {
			return linux.Detached{}, fmt.Errorf("parameter %s=%s of a %s: %w", p.Key, p.Value, kind, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return linux.Detached{}, fmt.Errorf("make %s: %w", kind, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return linux.Detached{}, fmt.Errorf("make %s: %w", kind, err)
	}
	return linux.Detached{File: os.NewFile(uintptr(fd), kind)}, nil
}
