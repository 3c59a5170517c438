package execnative

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// warmShims is how many shims wait, executed, for a start: two for containers
// that start in a row. Each has some 30 kB.
const warmShims = 2

// warmDelay is how long after a start the next shim is executed: not while the
// program takes its own first steps, or ends already.
const warmDelay = 10 * time.Millisecond

// program is the shim's executable, as this process names it.
func (d *native) program() string { return fmt.Sprintf("/proc/self/fd/%d", d.shim.Fd()) }

// warmUp fills up the waiting shims and what else starts need. It is called
// where nobody waits for it: without them a start makes its own.
func (d *native) warmUp() {
	for d.fillWarm() || d.fillAhead() {
	}
}

// fillWarm makes one more waiting shim; false when there are enough, or none can
// be made: the next start will say what is wrong.
func (d *native) fillWarm() bool {
	d.mu.Lock()
	full := len(d.warm)+d.warming >= warmShims || d.closed
	if !full {
		d.warming++
		d.spawning.Add(1)
	}
	d.mu.Unlock()
	if full {
		return false
	}
	defer d.spawning.Done()
	w, err := d.spawn()
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
	return kept
}

// fillAhead is fillWarm for what else is made ahead. One makes them at a time:
// whoever closes the driver waits for that one.
func (d *native) fillAhead() bool {
	d.aheadMaker.Lock()
	defer d.aheadMaker.Unlock()
	d.mu.Lock()
	full := len(d.aheads) >= warmShims || d.closed
	d.mu.Unlock()
	if full {
		return false
	}
	a := d.makeAhead()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.aheads = append(d.aheads, a)
	return true
}

// spawn makes a shim that stands by in the shims' cgroup.
func (d *native) spawn() (*plan.Warm, error) {
	var w *plan.Warm
	err := linux.UsualTimers(func() (err error) { // the program inherits them
		w, err = plan.Spawn(d.program())
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := w.Standby(d.shimEntry.Dir, d.shimEntry.Tasks); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
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

// coolDown lets the waiting shims leave, and those that are just being made.
func (d *native) coolDown() {
	d.mu.Lock()
	warm := d.warm
	d.warm, d.closed = nil, true
	d.mu.Unlock()
	for _, w := range warm {
		w.Close()
	}
	d.spawning.Wait()   // they need what is closed next
	d.aheadMaker.Lock() // nobody makes more
	defer d.aheadMaker.Unlock()
	d.mu.Lock()
	aheads := d.aheads
	d.aheads = nil
	d.mu.Unlock()
	for _, a := range aheads {
		a.discard()
	}
	_ = d.dropLogs(false) // else the next driver does
}

// early lets a waiting shim make the init of a start whose plan is still to be
// made, since its namespaces are known: dir is its cgroup of version 2 or nil.
// What goes wrong is seen when the plan is handed over.
func (d *native) early(w *plan.Warm, r execdriver.Start, dir *os.File) {
	flags, fits := oci.CloneFlags(namespacesOf(r))
	if w == nil || !fits {
		return
	}
	_ = w.Early(plan.Early{Clone: flags, ShimCgroup: d.shimEntry.Dir, Cgroup: dir})
}

// startShim hands a plan to a shim: to w or, where that is nil, to any. One that
// was killed while it waited is replaced.
func (d *native) startShim(ctx context.Context, w *plan.Warm, encoded []byte, files []*os.File) (c *plan.Conn, err error) {
	if w == nil {
		w = d.takeWarm()
	}
	for ; w != nil; w = d.takeWarm() {
		c, err := w.Start(ctx, encoded, files)
		if !errors.Is(err, plan.ErrLost) {
			return c, err
		}
	}
	err = linux.UsualTimers(func() (err error) {
		c, err = plan.Start(ctx, d.program(), encoded, files)
		return err
	})
	return c, err
}
