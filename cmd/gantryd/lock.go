package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errclass"
)

// leftover is how long a lock may outlive the process that held it: one that was
// killed while it started a driver leaves a child behind that has every descriptor
// until it has executed its program.
const leftover = 2 * time.Second

// lock makes this process the only one that holds path, or says who does. The
// file is removed by unlock, while it is still held: whoever waited on the old file
// looks again.
func lock(path, what string) (unlock func(), err error) {
	for begun := time.Now(); ; {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", what, err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) && !alive(f) && time.Since(begun) < leftover {
				if err := f.Close(); err != nil {
					return nil, err
				}
				time.Sleep(2 * time.Millisecond)
				continue
			}
			return nil, errors.Join(held(f, what, err), f.Close())
		}
		if same(f, path) {
			if err := writePID(f); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return func() {
				_ = os.Remove(path) // left behind, it does no harm
				_ = f.Close()       // the lock falls with the process anyway
			}, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// alive reports whether the process that is named in the lock is there. One that is
// just writing its name down is.
func alive(f *os.File) bool {
	text := make([]byte, 32)
	n, _ := f.ReadAt(text, 0) // short as it is, the end of the file comes with it
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return err != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// held names the process that has the lock.
func held(f *os.File, what string, err error) error {
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: %w", what, err)
	}
	pid, _ := io.ReadAll(io.LimitReader(f, 32)) // best effort: for a message
	return errclass.WithHint(errclass.Errorf(errdefs.ErrFailedPrecondition, "%s is in use by process %s", what, strings.TrimSpace(string(pid))),
		"an engine runs there already: use it, end it, or start this one with another --root, --run and --name")
}

// same reports whether path still names the open file.
func same(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(fmt.Sprintln(os.Getpid())), 0)
	return err
}
