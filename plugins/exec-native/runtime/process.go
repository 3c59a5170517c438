package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/linux"
)

// process names one process for ever: pids are used again, and after a restart
// of the machine start times too.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks from the boot
	Boot  string `json:"boot"`
}

// processStat is of /proc/PID/stat.
type processStat struct {
	state byte
	start uint64
}

// Fields of /proc/PID/stat after the name, which may hold anything: the state
// is the third of all, the start time the twenty-second.
const (
	statState = 0
	statStart = 22 - 3
)

// readStat reads a process's state and start time.
func readStat(pid int) (processStat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return processStat{}, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) <= statStart {
		return processStat{}, fmt.Errorf("stat of process %d: %q", pid, text)
	}
	start, err := strconv.ParseUint(fields[statStart], 10, 64)
	return processStat{fields[statState][0], start}, err
}

// bootID names the time since the machine's start.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // no procfs of the host's: the start time must do
	}
	return strings.TrimSpace(string(text))
}

// identify names a process that is alive now, whoever its parent is.
func identify(pid int) (process, error) {
	stat, err := readStat(pid)
	if err != nil {
		return process{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return process{PID: pid, Start: stat.start, Boot: bootID()}, nil
}

// alive reports whether the process runs. One that has ended, and waits for its
// parent to ask, does not.
func (p process) alive() bool {
	stat, err := readStat(p.PID)
	return err == nil && stat.start == p.Start && stat.state != 'Z' && stat.state != 'X' && p.Boot == bootID()
}

// open is a pidfd of the process; nil if it has ended.
func (p process) open() *os.File {
	if p.PID <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	if !p.alive() { // looked at while the descriptor holds the pid
		f.Close()
		return nil
	}
	return f
}

// openChild is a pidfd of a child of this process that nobody has waited for.
func openChild(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// sendSignal sends one through a pidfd. It reports false for a process that has
// ended.
func sendSignal(pidfd *os.File, sig unix.Signal) (bool, error) {
	err := unix.PidfdSendSignal(int(pidfd.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	return true, err
}

// awaitPidfd waits until a process has ended; it reports false when it was told
// to stop waiting.
func awaitPidfd(ctx context.Context, pidfd *os.File) bool {
	const pause = 100 * time.Millisecond
	for ctx.Err() == nil {
		if linux.AwaitExit(pidfd, pause) {
			return true
		}
	}
	return false
}
