package linux

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// RemoveCgroup removes a cgroup once the last process has left it, and waits that
// long for it.
func RemoveCgroup(dir string, wait time.Duration) error {
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		err := os.Remove(dir)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}
