package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// prepareHooks writes down what the hooks inside are told, and decides whether
// the init has to wait for those outside.
func (c *creation) prepareHooks() error {
	s := c.b.spec
	c.h.Sync = len(s.Linux.NetDevices) > 0
	if s.Hooks == nil {
		return nil
	}
	c.h.Sync = c.h.Sync || len(outsideHooks(s.Hooks)) > 0
	c.Poststop = s.Hooks.Poststop
	var err error
	if c.h.States.Create, err = c.insideState(specs.StateCreating); err != nil {
		return err
	}
	c.h.States.Start, err = c.insideState(specs.StateCreated)
	return err
}

// outsideHooks are those that are run in the runtime's namespaces before the
// pivot, in their order.
func outsideHooks(h *specs.Hooks) []specs.Hook {
	//lint:ignore SA1019 a deprecated kind is run as long as specifications name it
	return append(append([]specs.Hook{}, h.Prestart...), h.CreateRuntime...)
}

// insideState is the state for a hook that the init runs, with room for the pid.
func (c *creation) insideState(status specs.ContainerState) ([]byte, error) {
	const mark = 1<<31 - 1 // no pid: above PID_MAX_LIMIT
	text, err := json.Marshal(c.specState(status, mark))
	if err != nil {
		return nil, err
	}
	return bytes.Replace(text, []byte(fmt.Sprintf(`"pid":%d`, mark)), []byte(`"pid":`+strings.Repeat(" ", plan.PIDRoom)), 1), nil
}

// runHooks runs hooks in this process's namespaces, one after the other, with
// the state on standard input. The first that fails ends it.
func runHooks(ctx context.Context, kind string, hooks []specs.Hook, state specs.State) error {
	return eachHook(ctx, kind, hooks, state, func(err error) error { return err })
}

// warnHooks is runHooks, but that a hook that fails is a warning, and the others
// are run.
func warnHooks(ctx context.Context, g *globals, kind string, hooks []specs.Hook, state specs.State) {
	err := eachHook(ctx, kind, hooks, state, func(err error) error {
		g.log.warn("%v", err)
		return nil
	})
	if err != nil {
		g.log.warn("%v", err)
	}
}

// eachHook runs hooks until one fails in a way that failed does not let pass.
func eachHook(ctx context.Context, kind string, hooks []specs.Hook, state specs.State, failed func(error) error) error {
	if len(hooks) == 0 {
		return nil
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	for i, hook := range hooks {
		if err := runHook(ctx, hook, text); err != nil {
			if err := failed(errclass.Errorf(errdefs.ErrAborted, "hook %s[%d] %s: %w", kind, i, hook.Path, err)); err != nil {
				return err
			}
		}
	}
	return nil
}

// failedHook reports whether an error is that of a hook, run here or by the init.
func failedHook(err error) bool {
	var inside *oci.ShimError
	return errors.Is(err, errdefs.ErrAborted) || errors.As(err, &inside) && inside.Report.Op == plan.KindHook
}

// runHook runs one. When its time is over, its process group is killed.
func runHook(ctx context.Context, hook specs.Hook, state []byte) error {
	if hook.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*hook.Timeout)*time.Second)
		defer cancel()
	}
	args := hook.Args
	if len(args) == 0 {
		args = []string{hook.Path}
	}
	var said bytes.Buffer
	cmd := &exec.Cmd{
		Path: hook.Path, Args: args, Env: append([]string{}, hook.Env...), Dir: "/",
		Stdin: bytes.NewReader(state), Stdout: &said, Stderr: &said,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
		WaitDelay:   hookDrain,
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if stop(); errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("timed out: %w", ctx.Err())
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrWaitDelay) || errors.Is(err, syscall.EPIPE) {
		return nil // it has left its output to somebody, or not read its input
	}
	if err != nil {
		return fmt.Errorf("%w%s", err, lastLines(said.Bytes()))
	}
	return nil
}

// hookDrain bounds the wait for output that others hold after a hook's end.
const hookDrain = 100 * time.Millisecond

// lastLines is the end of what a hook has said: ": …" or nothing.
func lastLines(b []byte) string {
	const most = 1024
	text := strings.TrimSpace(string(b))
	if text == "" {
		return ""
	}
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return ": " + text
}

// tellPoststop runs the hooks after the end. What fails is a warning: the
// container is gone.
func (c *container) tellPoststop(ctx context.Context, g *globals) {
	warnHooks(ctx, g, "poststop", c.Poststop, c.specState(specs.StateStopped, 0))
}
