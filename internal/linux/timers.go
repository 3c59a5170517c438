package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// How late the timers of a thread may be, for the kernel to wake it less often.
const (
	calmSlack  = 500 * time.Microsecond
	usualSlack = 50 * time.Microsecond // the kernel's own (init_task.timer_slack_ns)
)

// CalmTimers lets every timer of this process be up to 0.5 ms late. It is for Go
// programs that work in short bursts: as long as anything runs in one, its monitor
// thread wakes up every 20 µs (runtime.sysmon), and on a virtual machine each time
// costs as much again. Threads and processes made later inherit it (prctl(2),
// PR_SET_TIMERSLACK). Needs CAP_SYS_NICE.
func CalmTimers() error {
	var errs []error
	// What a thread makes meanwhile that has not been reached is seen the second time.
	for range 2 {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		errs = nil
		for _, t := range tasks {
			err := os.WriteFile(filepath.Join("/proc", t.Name(), "timerslack_ns"), fmt.Append(nil, calmSlack.Nanoseconds()), 0)
			if err != nil && !errors.Is(err, os.ErrNotExist) { // it has ended
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// UsualTimers calls f, which makes a process that is to have the kernel's usual
// timers, whatever those of this process are.
func UsualTimers(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil && slack != int(usualSlack) {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(usualSlack), 0, 0, 0) // cannot fail
		defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0) }()
	}
	return f()
}
