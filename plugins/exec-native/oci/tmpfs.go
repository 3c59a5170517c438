package oci

import (
	"fmt"
	"os"

	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"golang.org/x/sys/unix"
)

// tmpfs makes a detached tmpfs with the flags of attrs.
func tmpfs(params []plan.Param, attrs uint64) (linux.Detached, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return linux.Detached{}, fmt.Errorf("open tmpfs: %w", err)
	}
	defer unix.Close(fs)
	for _, p := range params {
		if p.Type == plan.ParamString {
			err = unix.FsconfigSetString(fs, p.Key, p.Value)
		} else {
			err = unix.FsconfigSetFlag(fs, p.Key)
		}
		if err != nil {
			return linux.Detached{}, fmt.Errorf("parameter %s=%s of a tmpfs: %w", p.Key, p.Value, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return linux.Detached{}, fmt.Errorf("make tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return linux.Detached{}, fmt.Errorf("make tmpfs: %w", err)
	}
	return linux.Detached{File: os.NewFile(uintptr(fd), "tmpfs")}, nil
}
