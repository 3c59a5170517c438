package execnative

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gantryd/gantry/plugins/exec-native/plan"
)

// warmShims is how many shims wait, executed, for a start: two for containers
// that start in a row. Each has some 30 kB.
const warmShims = 2

// warmDelay is how long after a start the next shim is executed: not while the
// program takes its own first steps, or ends already.
const warmDelay = 10 * time.Millisecond

// program is the shim's executable, as this process names it.
func (d *native) program() string { return fmt.Sprintf("/proc/self/fd/%d", d.shim.Fd()) }

// warmUp fills up the waiting shims. It is called where nobody waits for it:
// without them a start makes its own.
func (d *native) warmUp() {
	for {
		d.mu.Lock()
		full := len(d.warm)+d.warming >= warmShims || d.closed
		if !full {
			d.warming++
		}
		d.mu.Unlock()
		if full {
			return
		}
		w, err := plan.Spawn(d.program())
		d.mu.Lock()
		d.warming--
		kept := err == nil && !d.closed
		if kept {
			d.warm = append(d.warm, w)
		}
		d.mu.Unlock()
		if err == nil && !kept {
			w.Close()
		}
		if !kept {
			return // the next start will say what is wrong
		}
	}
}

// takeWarm is a waiting shim, or nil.
func (d *native) takeWarm() *plan.Warm {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.warm) == 0 {
		return nil
	}
	w := d.warm[len(d.warm)-1]
	d.warm = d.warm[:len(d.warm)-1]
	return w
}

// coolDown lets the waiting shims leave.
func (d *native) coolDown() {
	d.mu.Lock()
	warm := d.warm
	d.warm, d.closed = nil, true
	d.mu.Unlock()
	for _, w := range warm {
		w.Close()
	}
}

// startShim hands a plan to a shim. One that was killed while it waited is
// replaced.
func (d *native) startShim(ctx context.Context, encoded []byte, files []*os.File) (*plan.Conn, error) {
	for w := d.takeWarm(); w != nil; w = d.takeWarm() {
		c, err := w.Start(ctx, encoded, files)
		if !errors.Is(err, plan.ErrLost) {
			return c, err
		}
	}
	return plan.Start(ctx, d.program(), encoded, files)
}
