package cli

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/query"
)

// lateLook is how often is looked whether a container that was killed is there
// still: nothing that can die takes so long.
const lateLook = 4 * time.Second

// ending does what ends a container, and says once, if it is so, that the
// container has been killed and does not end: a process that sleeps in the kernel
// dies only when it wakes, and whoever waits is to know.
func (a *app) ending(ctx context.Context, ref string, do func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	looking.Go(func() { a.tellLate(ctx, ref) })
	err := do()
	cancel()
	looking.Wait()
	return err
}

// tellLate looks until the context is done.
func (a *app) tellLate(ctx context.Context, ref string) {
	for killed := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lateLook):
		}
		var d query.ContainerDetail
		if err := a.query(ctx, query.ContainerInspect, query.RefIn{Ref: ref}, &d); err != nil {
			return // it is gone, or whoever waits is told
		}
		now := d.Running && d.State.Process.Stop.Sent && d.State.Process.Stop.Signal == int(unix.SIGKILL)
		if now && killed {
			a.complain(fmt.Sprintf("container %s was killed and has not ended: one of its processes sleeps in the kernel, perhaps on a disk that does not answer", d.Name),
				"the engine goes on without you: Ctrl-C to leave, gantry why "+short(string(d.ID))+" to look")
			return
		}
		killed = now
	}
}
