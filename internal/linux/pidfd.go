package linux

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// AwaitExit waits until the process of a pidfd has ended, at most so long, and
// reports whether it has. Signals, of which the Go runtime sends itself some, do not
// cut it short: poll(2) is never restarted.
func AwaitExit(pidfd *os.File, patience time.Duration) bool {
	for end := time.Now().Add(patience); ; {
		left := max(0, time.Until(end))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}
