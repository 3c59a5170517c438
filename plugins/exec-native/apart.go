package execnative

import "os"

// The root filesystem of a running container is held by this process too. Its own
// mount goes in the exit of the container's last process, before anybody hears of
// that; if it were the last one, the kernel would first write back everything that
// is dirty on the disk of the upper layer, whoever's it is (ovl_sync_fs in
// fs/overlayfs/super.c). Held here, that is done beside what follows from the exit.

// holdRoot keeps a start's root filesystem until letGoRoot. After the death of this
// process the kernel does all of it in the exit again.
func (d *native) holdRoot(r *run, root *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.root = root
}

// letGoRoot takes the root filesystem of a run that has ended apart. As long as that
// takes, its directories are in use: who would mount them again waits, as for a
// writer. d.mu is held.
func (d *native) letGoRoot(r *run) {
	root := r.root
	if root == nil {
		return
	}
	r.root = nil
	mine := make(chan struct{})
	first := d.writers.begin(r.key.Container, mine) == nil // else one is there that has not looked yet whether it may
	go func() {
		root.Close()
		if first {
			d.writers.end(r.key.Container, mine)
		}
	}()
}
