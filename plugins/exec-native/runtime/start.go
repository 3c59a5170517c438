package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runStart is the command start.
func runStart(ctx context.Context, g *globals, args []string) (int, error) {
	ids, err := parse(newFlags("start"), g, args, 1, 1)
	if err != nil {
		return exitUsage, err
	}
	c, lock, err := open(g, ids[0])
	if err != nil {
		return exitFailed, err
	}
	defer lock.Close()
	return 0, c.start(ctx, g)
}

// start lets a created container's program run. The caller holds the lock.
func (c *container) start(ctx context.Context, g *globals) error {
	switch status, _ := c.status(); {
	case status == specs.StateStopped:
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "cannot start a container that has stopped")
	case !c.waits():
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "cannot start an already running container")
	case status == statusPaused: // its init would not hear of it
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "cannot start a paused container: resume it first")
	}
	b, err := c.config()
	if err != nil {
		return err
	}
	if b.spec.Process == nil { // as if it were never attempted: the container stays created
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "cannot start container %s: it was made without a process", c.ID)
	}
	pidfd := c.Init.open()
	if pidfd == nil {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "cannot start a container that has stopped")
	}
	defer pidfd.Close()
	_, flags, err := b.filter(g)
	if err != nil {
		return err
	}
	listen, err := b.listener(flags, func() *os.File { return pidfd }, func() specs.State { return c.specState(specs.StateCreated, c.Init.PID) })
	if err != nil {
		return err
	}
	conn, err := plan.OpenGate(ctx, c.dir, gateName)
	if err != nil {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "start container %s: %w", c.ID, err)
	}
	defer conn.Close()
	if err := os.Remove(filepath.Join(c.dir, gateName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start container %s: %w", c.ID, err)
	}
	follow := &progress{g: g, conn: conn, listen: listen}
	if err := follow.until(ctx, plan.ReportRunning); err != nil {
		return c.startError(err, b)
	}
	return c.poststart(ctx, g, b)
}

// startError puts a program that could not be executed into words. The plan is
// no longer known: what failed is named by its kind.
func (c *container) startError(err error, b *bundle) error {
	root, openErr := os.OpenFile(c.Rootfs, unix.O_PATH|unix.O_DIRECTORY, 0)
	if openErr != nil {
		return err
	}
	defer root.Close()
	return oci.StartError(err, b.spec, &plan.Plan{}, root)
}

// poststart runs the hooks after the start. One that fails is an error, and the
// end of the container (runtime specification, runtime.md "Lifecycle", step 9);
// for a bundle of a version before 1.3 it is a warning, and the others are run.
func (c *container) poststart(ctx context.Context, g *globals, b *bundle) error {
	if b.spec.Hooks == nil {
		return nil
	}
	hooks, state := b.spec.Hooks.Poststart, c.specState(specs.StateRunning, c.Init.PID)
	if oci.Older(b.spec.Version, 3) {
		warnHooks(ctx, g, "poststart", hooks, state)
		return nil
	}
	err := runHooks(ctx, "poststart", hooks, state)
	if err == nil {
		return nil
	}
	return errors.Join(err, c.destroy(ctx, g))
}
