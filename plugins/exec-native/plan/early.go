package plan

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/linux"
)

// Bits of an early message.
const (
	earlyLeave      = 1
	earlyShimCgroup = 2
	earlyCgroup     = 4
)

// standbyPatience is how long a shim may take to say that it stands by, and to
// leave when it is not needed.
const standbyPatience = 10 * time.Second

// Standby makes the shim fork its monitor at once, into the shims' cgroup: its
// version 2 directory, or nil, and its version 1 tasks files. What Start takes
// for that is saved, and the shim is out of the driver's cgroup from here on. A
// plan's ShimCgroup must name the same group. Not for plans of Leave. After an
// error the shim is to be closed.
func (w *Warm) Standby(dir *os.File, tasks []*os.File) error {
	var what uint32
	var fds []int
	if dir != nil {
		what = earlyShimCgroup
		fds = append(fds, int(dir.Fd()))
	}
	for _, f := range tasks {
		fds = append(fds, int(f.Fd()))
	}
	if err := w.conn.message(sendStandby, 0, what, nil, fds); err != nil {
		return fmt.Errorf("let shim stand by: %w", err)
	}
	w.conn.c.SetReadDeadline(time.Now().Add(standbyPatience))
	r, err := w.conn.read()
	w.conn.c.SetReadDeadline(time.Time{})
	switch {
	case err != nil:
		return fmt.Errorf("let shim stand by: %w", err)
	case r.Kind != ReportShim:
		return fmt.Errorf("let shim stand by: %w", r.Err())
	}
	fd, err := unix.PidfdOpen(r.PID, 0)
	if err != nil {
		return fmt.Errorf("hold shim that stands by: %w", err)
	}
	w.conn.shim = os.NewFile(uintptr(fd), "pidfd of shim")
	_, err = w.helper.Wait()
	w.helper = nil
	return err
}

// awaitMonitor gives a monitor that was not needed a moment to be gone. It is nil if
// it could not be held.
func awaitMonitor(pidfd *os.File) {
	if pidfd != nil {
		linux.AwaitExit(pidfd, standbyPatience)
		pidfd.Close()
	}
}

// TakeShim gives the pidfd of a monitor that stood by, or nil. It is the
// caller's to close.
func (c *Conn) TakeShim() *os.File {
	f := c.shim
	c.shim = nil
	return f
}

func (c *Conn) letGoShim() {
	if c.shim != nil {
		c.shim.Close()
		c.shim = nil
	}
}

// Early says what is known of a start before its plan is.
type Early struct {
	Clone      uint64   // the flags of the plan's Clone
	Leave      bool     // the plan will be handed over by Warm.Leave
	ShimCgroup *os.File // directory of the plan's ShimCgroup of version 2, or nil
	Cgroup     *os.File // directory of the plan's Clone.Cgroup, or nil
}

// Early makes the shim clone the init at once, which takes as long as a plan
// does to be prepared. The plan that follows must be such a one: an init that
// does not fit is thrown away and another one made, or, if nobody stays, the
// plan is refused. A plan with a stage join never fits. To be called once at
// most; whoever does not hand over a plan afterwards closes the shim.
func (w *Warm) Early(e Early) error {
	var what uint32
	var fds []int
	if e.Leave {
		what |= earlyLeave
	}
	if e.ShimCgroup != nil {
		what |= earlyShimCgroup
		fds = append(fds, int(e.ShimCgroup.Fd()))
	}
	if e.Cgroup != nil {
		what |= earlyCgroup
		fds = append(fds, int(e.Cgroup.Fd()))
	}
	if err := w.conn.message(sendEarly, uint32(e.Clone), what, nil, fds); err != nil {
		return fmt.Errorf("make init early: %w", err)
	}
	w.child = e.Leave
	return nil
}
