package plan

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"golang.org/x/sys/unix"
)

// highFD is where programs' descriptors begin. Spawn puts descriptors 0 to 3 in
// place before it executes the program by its descriptor's name: it must not be
// one of them.
const highFD = 16

// Seal makes a program's file that all shims of a driver share, and that cannot
// be changed from inside a container: a sealed memfd, which nobody else can
// change either, or where memfds may not be executed (vm.memfd_noexec=2) a
// detached read-only mount of the file. Start takes "/proc/self/fd/N" of it as
// program.
func Seal(program string) (*os.File, error) {
	if weak.Off(weak.Seal) {
		return openHigh(program)
	}
	f, err := sealCopy(program)
	if errors.Is(err, unix.EACCES) {
		return sealMount(program)
	}
	return f, err
}

// openHigh is the program's own file: what a container must never get hold of.
func openHigh(program string) (*os.File, error) {
	f, err := os.Open(program)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, highFD)
	return os.NewFile(uintptr(fd), program), err
}

// sealMount is the program's own file, on a mount that no table shows.
func sealMount(program string) (*os.File, error) {
	m, err := linux.CloneMount(program, false)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if err := m.SetAttr(unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, 0, unix.MS_PRIVATE, false); err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(m.Fd(), unix.F_DUPFD_CLOEXEC, highFD)
	if err != nil {
		return nil, fmt.Errorf("mount of %s: %w", program, err)
	}
	return os.NewFile(uintptr(fd), "gantry-shim"), nil
}

// sealCopy copies a program into a sealed memfd.
func sealCopy(program string) (*os.File, error) {
	src, err := os.Open(program)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	fd, err := unix.MemfdCreate("gantry-shim", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before 6.3 there is no MFD_EXEC, and all may be executed
		fd, err = unix.MemfdCreate("gantry-shim", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd for %s: %w", program, err)
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, highFD)
	unix.Close(fd)
	if err != nil {
		return nil, fmt.Errorf("memfd for %s: %w", program, err)
	}
	fd = high
	dst := os.NewFile(uintptr(fd), "gantry-shim")
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return nil, fmt.Errorf("copy %s: %w", program, err)
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		dst.Close()
		return nil, fmt.Errorf("seal %s: %w", program, err)
	}
	return dst, nil
}
