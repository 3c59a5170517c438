package driverhost

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// tell writes down what the driver was asked for, for the test to read.
func (d fakeExec) tell(what string, v any) {
	data, err := json.Marshal(v)
	if err == nil {
		_ = put(filepath.Join(d.c.Root, "asked-"+what), data)
	}
	note(d.c, what)
}

func (d fakeExec) Start(_ context.Context, s execdriver.Start) (execdriver.Started, error) {
	d.tell("start", s)
	return execdriver.Started{PID: 7}, nil
}

func (d fakeExec) Signal(_ context.Context, k execdriver.Key, signal int) error {
	d.tell("signal", k)
	return nil
}

func (d fakeExec) Exec(_ context.Context, x execdriver.Exec) (execdriver.Started, error) {
	d.tell("exec", x)
	return execdriver.Started{PID: 8}, nil
}

func (d fakeExec) Probe(ctx context.Context, p execdriver.Probe) (execdriver.Probed, error) {
	d.tell("probe", p)
	switch mode(d.c) {
	case "sick":
		return execdriver.Probed{Code: 1, Output: []byte("ill")}, nil
	case "dies":
		os.Exit(9)
	}
	return execdriver.Probed{Output: []byte("well")}, nil
}

func (d fakeExec) Freeze(_ context.Context, k execdriver.Key) error {
	d.tell("freeze", k)
	if mode(d.c) == "unfreezable" {
		return driver.Errorf(errdefs.ErrNotFound, "it does not run")
	}
	return nil
}

func (d fakeExec) Thaw(_ context.Context, k execdriver.Key) error { d.tell("thaw", k); return nil }

func (d fakeExec) Update(_ context.Context, _ execdriver.Key, r execdriver.Resources) error {
	d.tell("update", r)
	return nil
}

func (d fakeExec) Stats(ctx context.Context, runs []execdriver.Key) ([]execdriver.Stats, error) {
	d.tell("stats", runs)
	if mode(d.c) == "hung" {
		<-ctx.Done()
		note(d.c, "stats-ended")
		return nil, ctx.Err()
	}
	return []execdriver.Stats{{Key: runs[0], Pids: 3, Interfaces: []execdriver.InterfaceStats{{Name: "eth0", RxBytes: 9}}}}, nil
}

func (d fakeExec) Processes(context.Context, execdriver.Key) ([]execdriver.Task, error) {
	return []execdriver.Task{{PID: 1, Name: "sh", Args: []string{"sh"}}}, nil
}

func (d fakeExec) CopyOut(_ context.Context, c execdriver.Copy) error { d.tell("copy", c); return nil }
func (d fakeExec) CopyIn(_ context.Context, c execdriver.Copy) error  { d.tell("copy", c); return nil }

func (d fakeExec) Stat(_ context.Context, c execdriver.Copy) (execdriver.PathStat, error) {
	if c.Path != "/there" {
		return execdriver.PathStat{}, driver.Errorf(errdefs.ErrNotFound, "no %s", c.Path)
	}
	return execdriver.PathStat{Name: "there", Size: 4}, nil
}

func (d fakeExec) HoldUserNS(_ context.Context, c string, m driver.IDMap) (netdriver.Namespace, error) {
	d.tell("userns", m)
	return netdriver.Namespace{Mode: "path", Path: "/proc/1/ns/user", Inode: 4}, nil
}

func (d fakeExec) ReleaseUserNS(context.Context, string) error { note(d.c, "userns-gone"); return nil }

// OOMs tells one kill.
func (d fakeExec) OOMs(ctx context.Context, f func(execdriver.OOM) error) error {
	if mode(d.c) == "out-of-memory" {
		if err := f(execdriver.OOM{Key: execdriver.Key{Container: "c", Run: 1}, Count: 2, Time: time.Unix(1, 0)}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}
