package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runDelete is the command delete.
func runDelete(ctx context.Context, g *globals, args []string) (int, error) {
	fs := newFlags("delete")
	var force bool
	both(fs, "force", "f", func(n string) {
		fs.BoolVar(&force, n, false, "kill a container that runs; one that is not there is fine")
	})
	ids, err := parse(fs, g, args, 1, 1)
	if err != nil {
		return exitUsage, err
	}
	c, err := load(g, ids[0])
	switch {
	case err != nil:
	case force:
		c.giveUp(ctx) // before the lock: who holds it may be waiting for what is killed
	case c.making && c.Init.PID != 0:
		return exitFailed, c.notStopped(specs.StateCreating)
	}
	var lock *os.File
	if err == nil {
		c, lock, err = open(g, ids[0])
	}
	if force && errors.Is(err, errdefs.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return exitFailed, err
	}
	defer lock.Close()
	return 0, c.remove(ctx, g, force)
}

// giveUp kills the first process.
func (c *container) giveUp(context.Context) {
	if pidfd := c.Init.open(); pidfd != nil {
		_, _ = sendSignal(pidfd, unix.SIGKILL)
		pidfd.Close()
		_ = c.thaw()
	}
}

// remove deletes a container that has stopped; with force any.
func (c *container) remove(ctx context.Context, g *globals, force bool) error {
	switch status, _ := c.status(); {
	case status == specs.StateStopped, force:
	case c.Init.PID == 0: // a creation that broke off at its beginning: the lock is ours
	default:
		return c.notStopped(status)
	}
	return c.destroy(ctx, g)
}

func (c *container) notStopped(status specs.ContainerState) error {
	return errclass.Errorf(errdefs.ErrFailedPrecondition, "cannot delete container %s that is not stopped: %s", c.ID, status)
}

// destroy ends what runs, removes the cgroup and the directory, and tells the
// hooks. The caller holds the lock, or is the only one to know the container.
func (c *container) destroy(ctx context.Context, g *globals) error {
	c.giveUp(ctx)
	if err := c.awaitEnd(ctx); err != nil {
		return err
	}
	if err := c.discard(ctx, g); err != nil {
		return err
	}
	c.tellPoststop(ctx, g)
	return nil
}

// awaitEnd waits for the first process to be dead; its parent may take its time
// to ask for it.
func (c *container) awaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	pidfd := c.Init.open()
	if pidfd == nil {
		return nil
	}
	defer pidfd.Close()
	if awaitPidfd(ctx, pidfd) {
		return nil
	}
	return errclass.Errorf(errdefs.ErrUnavailable, "container %s does not end: its first process %d is still there %v after SIGKILL", c.ID, c.Init.PID, undoTimeout)
}

// discard removes cgroup, mounts and directory.
func (c *container) discard(ctx context.Context, g *globals) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout+time.Second)
	defer cancel()
	if err := c.detachRoot(); err != nil {
		return err
	}
	if err := c.removeGroups(ctx); err != nil {
		return err
	}
	if err := c.removeClass(); err != nil {
		return err
	}
	if err := c.stopUnit(ctx); err != nil {
		g.log.warn("%v", err)
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}

// removeGroups removes the cgroup. In one that was only wanted there may be an init
// that has come to its gate before anybody noted it.
func (c *container) removeGroups(ctx context.Context) error {
	if len(c.Cgroup)+len(c.Wanted) == 0 {
		return nil
	}
	tree, err := cgroup.ReadTree()
	if err != nil {
		return err
	}
	if len(c.Wanted) > 0 {
		if err := tree.Sweep(ctx, c.Wanted); err != nil {
			return fmt.Errorf("container %s was not made to its end: %w", c.ID, err)
		}
	}
	if len(c.Cgroup) == 0 {
		return nil
	}
	return tree.Remove(ctx, c.Cgroup)
}
