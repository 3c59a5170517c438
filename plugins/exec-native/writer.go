package execnative

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
)

// writerWait is how long one who would write, or start, waits for one who writes.
const writerWait = 10 * time.Second

// writers are those who write into the files of containers that do not run, one for
// each container: an overlay that is mounted empties its work directory, so that a
// second mount with the same one takes from the first what it was about to make
// (Documentation/filesystems/overlayfs.rst, "Sharing and copying layers").
type writers struct {
	wait time.Duration // how long one waits for another: writerWait

	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the writer has ended, by container
}

// take makes the caller the writer until it calls done. It waits for another one
// whose turn it is.
//
// FailedPrecondition: that one does not come to its end.
func (w *writers) take(ctx context.Context, container string) (done func(), err error) {
	mine := make(chan struct{})
	var limit <-chan time.Time // from the first wait on
	for {
		other := w.begin(container, mine)
		if other == nil {
			return func() { w.end(container, mine) }, nil
		}
		if limit == nil {
			limit = time.After(w.wait)
		}
		select {
		case <-other:
		case <-limit:
			return nil, driver.Errorf(errdefs.ErrFailedPrecondition, "a copy into container %.12s is under way", container)
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a copy into container %.12s: %w", container, ctx.Err())
		}
	}
}

// begin makes mine a container's writer, if there is no other one.
func (w *writers) begin(container string, mine chan struct{}) (other chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if other = w.busy[container]; other == nil {
		w.busy[container] = mine
	}
	return other
}

func (w *writers) end(container string, mine chan struct{}) {
	w.mu.Lock()
	delete(w.busy, container)
	w.mu.Unlock()
	close(mine)
}

// write begins to write into the files of a container that does not run.
//
// FailedPrecondition: it is being started, or runs by now, or another writer does not
// come to its end.
func (d *native) write(ctx context.Context, container string) (done func(), err error) {
	underWay := driver.Errorf(errdefs.ErrFailedPrecondition, "a start of container %.12s is under way", container)
	if d.begun(container) {
		return nil, underWay
	}
	d.takeApart(container)
	if done, err = d.writers.take(ctx, container); err != nil {
		return nil, err
	}
	if d.begun(container) { // meanwhile
		done()
		return nil, underWay
	}
	return done, nil
}

// begun reports whether a container's start has begun and its run has not ended.
func (d *native) begun(container string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, r := range d.runs {
		if k.Container == container && k.Exec == "" && (r.state == starting || r.state == running) {
			return true
		}
	}
	return false
}

// awaitWriter waits until nobody writes into a container that is to start. Its run
// is in the list already: who comes later is refused.
func (d *native) awaitWriter(ctx context.Context, container string) error {
	d.takeApart(container)
	done, err := d.writers.take(ctx, container)
	if err == nil {
		done()
	}
	return err
}
