package runtime

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// runPause is the command pause.
func runPause(ctx context.Context, g *globals, args []string) (int, error) {
	return withRunning(g, "pause", args, func(c *container, status specs.ContainerState) error {
		if status != specs.StateRunning && status != specs.StateCreated {
			return errclass.Errorf(errdefs.ErrFailedPrecondition, "container not running or created: %s", status)
		}
		group, err := c.group()
		if err != nil {
			return err
		}
		defer group.Close()
		return group.Freeze(ctx)
	})
}

// runResume is the command resume.
func runResume(_ context.Context, g *globals, args []string) (int, error) {
	return withRunning(g, "resume", args, func(c *container, status specs.ContainerState) error {
		if status != statusPaused {
			return errclass.Errorf(errdefs.ErrFailedPrecondition, "container not paused: %s", status)
		}
		group, err := c.group()
		if err != nil {
			return err
		}
		defer group.Close()
		return group.Thaw()
	})
}

// withRunning runs a command that has no flags on a container that nobody else
// changes meanwhile.
func withRunning(g *globals, name string, args []string, do func(*container, specs.ContainerState) error) (int, error) {
	ids, err := parse(newFlags(name), g, args, 1, 1)
	if err != nil {
		return exitUsage, err
	}
	c, err := load(g, ids[0])
	if err != nil {
		return exitFailed, err
	}
	if c.making { // it is not waited for: a hook of the creation may be who asks
		return exitFailed, errclass.Errorf(errdefs.ErrFailedPrecondition, "container not running or created: %s", specs.StateCreating)
	}
	c, lock, err := open(g, ids[0])
	if err != nil {
		return exitFailed, err
	}
	defer lock.Close()
	status, _ := c.status()
	return 0, do(c, status)
}
