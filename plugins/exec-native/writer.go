package execnative

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
)

// writerWait is how long one who would write waits for another who does.
const writerWait = 10 * time.Second

// writers are those who write into the files of containers that do not run, one for
// each container: an overlay that is mounted empties its work directory, so that a
// second mount with the same one takes from the first what it was about to make
// (Documentation/filesystems/overlayfs.rst, "Sharing and copying layers").
type writers struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the writer has ended, by container
}

// take makes the caller the writer until it calls done. It waits for another one,
// and tells whether that is over.
func (w *writers) take(ctx context.Context, container string) (done func(), ok bool) {
	limit := time.NewTimer(writerWait)
	defer limit.Stop()
	for {
		w.mu.Lock()
		other := w.busy[container]
		if other == nil {
			mine := make(chan struct{})
			if w.busy == nil {
				w.busy = map[string]chan struct{}{}
			}
			w.busy[container] = mine
			w.mu.Unlock()
			return func() {
				w.mu.Lock()
				delete(w.busy, container)
				w.mu.Unlock()
				close(mine)
			}, true
		}
		w.mu.Unlock()
		select {
		case <-other:
		case <-limit.C:
			return nil, false
		case <-ctx.Done():
			return nil, false
		}
	}
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
	done, ok := d.writers.take(ctx, container)
	switch {
	case !ok && ctx.Err() != nil:
		return nil, fmt.Errorf("wait for another copy into container %.12s: %w", container, ctx.Err())
	case !ok:
		return nil, driver.Errorf(errdefs.ErrFailedPrecondition, "another copy into container %.12s is under way", container)
	case d.begun(container): // meanwhile
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
	d.writers.mu.Lock()
	busy := d.writers.busy[container] != nil
	d.writers.mu.Unlock()
	if !busy {
		return nil
	}
	done, ok := d.writers.take(ctx, container)
	switch {
	case !ok && ctx.Err() != nil:
		return fmt.Errorf("wait for a copy into container %.12s: %w", container, ctx.Err())
	case !ok:
		return driver.Errorf(errdefs.ErrFailedPrecondition, "a copy into container %.12s is under way", container)
	}
	done()
	return nil
}
