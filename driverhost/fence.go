package driverhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockPath is the lock of a generation. There are two, 0 and 1: one serves, the
// other is there for the moment of a replacement only, when both run.
func (d *hosted) lockPath(generation int) string {
	return filepath.Join(d.runDir(), fmt.Sprintf("lock.%d", generation))
}

// fence takes the lock of a generation, after it has ended whatever holds it.
// The descriptor goes to the new process; the caller closes its own copy.
func (d *hosted) fence(ctx context.Context, generation int) (*os.File, error) {
	f, err := os.OpenFile(d.lockPath(generation), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(d.host.patience.fence)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock driver %s: %w", d.id, err), f.Close())
		}
		d.host.cage.kill(d.cageName(generation))
		if time.Now().After(end) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("an earlier instance of driver %s does not end: %s",
				d.id, d.host.cage.describe(d.cageName(generation))), f.Close())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// cageName is the cgroup of a generation.
func (d *hosted) cageName(generation int) string {
	return fmt.Sprintf("%s-%s.%d", d.kind, d.name, generation)
}
