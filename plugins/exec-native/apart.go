package execnative

import (
	"os"
	"time"
)

// The root filesystem of a running container is held by this process too. Its own
// mount goes in the exit of the container's last process, before anybody hears of
// that; if it were the last one, the kernel would first write back everything that
// is dirty on the disk of the upper layer, whoever's it is (ovl_sync_fs in
// fs/overlayfs/super.c). Held here, that is done once nobody waits for it.

// apartDelay is how long after its end a container's root filesystem is taken apart,
// unless somebody wants to mount it again: the engine writes its log meanwhile, and
// what is to be removed is gone by then and need not be written.
const apartDelay = 20 * time.Millisecond

// oldRoot is the root filesystem of a run that has ended.
type oldRoot struct {
	mount *os.File
	used  chan struct{} // its directories are in use until this is closed, as by a writer
}

// holdRoot keeps a start's root filesystem until letGoRoot.
func (d *native) holdRoot(r *run, root *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.root = root
}

// letGoRoot has the root filesystem of a run that has ended taken apart in a while.
// d.mu is held.
func (d *native) letGoRoot(r *run) {
	old := oldRoot{r.root, make(chan struct{})}
	r.root = nil
	switch {
	case old.mount == nil:
		return
	case d.writers.begin(r.key.Container, old.used) != nil: // it has not looked yet whether it may write
		go old.mount.Close()
		return
	}
	d.roots[r.key.Container] = old
	time.AfterFunc(apartDelay, func() { d.takeApart(r.key.Container) })
}

// takeApart takes the root filesystem of a container's ended run apart, if that has
// not been done: who would use its directories need not wait longer than it takes.
func (d *native) takeApart(container string) {
	d.mu.Lock()
	old, ok := d.roots[container]
	delete(d.roots, container)
	d.mu.Unlock()
	if ok {
		old.mount.Close()
		d.writers.end(container, old.used)
	}
}
