package runtime

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runKill is the command kill. It takes no lock: a start that hangs in a hook must
// be killable.
func runKill(ctx context.Context, g *globals, args []string) (int, error) {
	fs := newFlags("kill")
	var all bool
	both(fs, "all", "a", func(n string) { fs.BoolVar(&all, n, false, "signal all processes of the container") })
	words, err := parse(fs, g, args, 1, 2)
	if err != nil {
		return exitUsage, err
	}
	sig := unix.SIGTERM
	if len(words) > 1 {
		if sig, err = parseSignal(words[1]); err != nil {
			return exitUsage, err
		}
	}
	c, err := load(g, words[0])
	if err != nil {
		return exitFailed, err
	}
	return 0, c.kill(ctx, sig, all)
}

// kill sends a signal. With a PID namespace that is not the container's own,
// SIGKILL to the first process would leave the others: all are killed, also those
// that have outlived it.
func (c *container) kill(ctx context.Context, sig unix.Signal, all bool) error {
	if all || sig == unix.SIGKILL && !c.OwnPIDs && (c.Init.alive() || c.left()) {
		return c.killAll(ctx, sig)
	}
	pidfd := c.Init.open()
	if pidfd == nil {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "container not running")
	}
	defer pidfd.Close()
	there, err := sendSignal(pidfd, sig)
	switch {
	case err != nil:
		return fmt.Errorf("signal container %s: %w", c.ID, err)
	case !there:
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "container not running")
	}
	if sig == unix.SIGKILL {
		return c.thaw() // version 1 keeps a frozen process from dying
	}
	return nil
}

// left reports whether processes are in the container's cgroup.
func (c *container) left() bool {
	group, err := c.group()
	if err != nil {
		return false
	}
	defer group.Close()
	pids, err := group.Pids()
	return err == nil && len(pids) > 0
}

// thaw lets a frozen container go on; one that is not frozen, or gone, is fine.
func (c *container) thaw() error {
	group, err := c.group()
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer group.Close()
	frozen, err := group.Frozen()
	if err != nil || !frozen {
		return nil // no freezer: nothing is frozen
	}
	return group.Thaw()
}

// killAll signals every process of the cgroup.
func (c *container) killAll(ctx context.Context, sig unix.Signal) error {
	group, err := c.group()
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer group.Close()
	if sig == unix.SIGKILL {
		return group.KillAll(ctx)
	}
	pids, err := group.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		one, err := identify(pid)
		if err != nil {
			continue // it has ended
		}
		if pidfd := one.open(); pidfd != nil {
			_, err = sendSignal(pidfd, sig)
			pidfd.Close()
			if err != nil {
				return fmt.Errorf("signal process %d: %w", pid, err)
			}
		}
	}
	return nil
}

// parseSignal reads "KILL", "SIGKILL", "RTMIN+1" or a number.
func parseSignal(word string) (unix.Signal, error) {
	const last = 64
	if n, err := strconv.Atoi(word); err == nil {
		if n < 0 || n > last {
			return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "unknown signal %q", word)
		}
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(word)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if s := unix.SignalNum(name); s != 0 {
		return s, nil
	}
	for _, base := range []struct {
		name   string
		number int
	}{{"SIGRTMIN", 34}, {"SIGRTMAX", last}} {
		if rest, ok := strings.CutPrefix(name, base.name); ok {
			offset := 0
			var err error
			if rest != "" {
				offset, err = strconv.Atoi(rest)
			}
			if n := base.number + offset; err == nil && n >= 34 && n <= last {
				return unix.Signal(n), nil
			}
		}
	}
	return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "unknown signal %q", word)
}

// notRunning refuses a container that has no process to work on.
func (c *container) notRunning() error {
	status, _ := c.status()
	if status == specs.StateStopped || status == specs.StateCreating {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "container %s is not running: %s", c.ID, status)
	}
	return nil
}
