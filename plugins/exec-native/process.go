package execnative

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openPidfd opens a process and makes sure that it is the one meant: it must be
// in the run's cgroup, which a stranger with a reused pid is not.
func openPidfd(pid int, group string) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("pidfd of %d", pid))
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("look at process %d: %w", pid, err)
	}
	if !inGroup(string(text), group) {
		f.Close()
		return nil, fmt.Errorf("process %d is not in cgroup %s: %w", pid, group, unix.ESRCH)
	}
	return f, nil
}

// inGroup reports whether a process is in a cgroup of that name, or below it, by
// /proc/PID/cgroup.
func inGroup(text, group string) bool {
	for line := range strings.Lines(text) {
		if strings.Contains(strings.TrimSuffix(line, "\n")+"/", "/"+group+"/") {
			return true
		}
	}
	return false
}

// pidfdInfo is struct pidfd_info of 6.15 (include/uapi/linux/pidfd.h).
type pidfdInfo struct {
	mask, cgroup                                     uint64
	pid, tgid, ppid                                  uint32
	ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid uint32
	exitCode                                         int32
}

const (
	pidfdInfoExit   = 1 << 3     // PIDFD_INFO_EXIT
	pidfdGetInfo    = 0xc000ff0b // _IOWR(0xff, 11, …) without the size
	ioctlSizeShift  = 16
	waitSignalMask  = 0x7f
	waitStatusShift = 8

	reapTries = 50
	reapPause = 10 // milliseconds
)

// trueExit asks the kernel how a process ended that somebody else has reaped, or
// will some time. Kernels before 6.15 keep it only until it is reaped.
func trueExit(pidfd *os.File) (code, signal int, ok bool) {
	if pidfd == nil {
		return 0, 0, false
	}
	// The kernel tells it once the process was reaped, which POLLHUP may say
	// early; older ones do not say it.
	for range reapTries {
		info := pidfdInfo{mask: pidfdInfoExit}
		request := uintptr(pidfdGetInfo) | uintptr(unsafe.Sizeof(info))<<ioctlSizeShift
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, pidfd.Fd(), request, uintptr(unsafe.Pointer(&info)))
		if errno == 0 && info.mask&pidfdInfoExit != 0 {
			code, signal = decodeStatus(int(info.exitCode))
			return code, signal, true
		}
		if status, dead := zombieStatus(pidfd); dead {
			code, signal = decodeStatus(status)
			return code, signal, true
		}
		if errno != 0 && errno != unix.ESRCH {
			break // the kernel does not know the call
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pidfd.Fd())}}, reapPause)
	}
	return 0, 0, false
}

// zombieStatus is the wait status of a process that has ended and that its new
// parent has not reaped yet: the last field of /proc/PID/stat. The pid is this
// process's as long as the pidfd says so afterwards.
func zombieStatus(pidfd *os.File) (status int, dead bool) {
	pid := pidOf(pidfd)
	if pid <= 0 {
		return 0, false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || pidOf(pidfd) != pid {
		return 0, false
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // behind the program's name
	if len(fields) == 0 || fields[0] != "Z" {
		return 0, false
	}
	status, err = strconv.Atoi(fields[len(fields)-1])
	return status, err == nil
}

// pidOf is the pid of a pidfd's process; -1 when it was reaped, 0 when it is not
// known.
func pidOf(pidfd *os.File) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd.Fd()))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "\nPid:")
	pid, _ := strconv.Atoi(append(strings.Fields(after), "0")[0]) // an old kernel has no such line
	return pid
}

// decodeStatus reads a wait status as a shell shows it.
func decodeStatus(status int) (code, signal int) {
	if s := status & waitSignalMask; s != 0 {
		return 128 + s, s
	}
	return status >> waitStatusShift & 0xff, 0
}
