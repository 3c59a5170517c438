// Package peercred asks the kernel who is at the other end of a unix socket.
// The answer is what was true when the peer connected (SO_PEERCRED, unix(7));
// nothing that the peer says enters it.
package peercred

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// soPeerPIDFD is SO_PEERPIDFD of asm-generic/socket.h, Linux 6.5.
const soPeerPIDFD = 77

// Cred is who connected.
type Cred struct {
	UID uint32
	GID uint32
	PID int32
	// Start is when the process began, in clock ticks since boot (field 22 of
	// /proc/PID/stat). With the pid it names one process for ever. It is 0 if
	// that process is gone, or if the kernel cannot say that the pid is still
	// the same process (before Linux 6.5).
	Start uint64
}

// Of asks who is at the other end of c.
func Of(c *net.UnixConn) (Cred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Cred{}, err
	}
	var cred *unix.Ucred
	var credErr error
	pidfd := -1
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, soPeerPIDFD); err == nil {
			pidfd = n
		}
	})
	if pidfd >= 0 {
		defer unix.Close(pidfd)
	}
	if err != nil {
		return Cred{}, err
	}
	if credErr != nil {
		return Cred{}, fmt.Errorf("ask for the peer's credentials: %w", credErr)
	}
	return Cred{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid, Start: startOf(cred.Pid, pidfd)}, nil
}

// startOf reads the start time of pid, then makes sure by its descriptor that
// the pid has not become another process in between.
func startOf(pid int32, pidfd int) uint64 {
	if pidfd < 0 {
		return 0
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || unix.PidfdSendSignal(pidfd, 0, nil, 0) == unix.ESRCH {
		return 0
	}
	return parseStart(stat)
}

// parseStart finds field 22. The second field is the program's name in brackets
// and may hold anything, also brackets and spaces; so it counts from the last one.
func parseStart(stat []byte) uint64 {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 20 {
		return 0
	}
	n, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
