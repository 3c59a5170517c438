package driverhost

import (
	"context"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/graphdriver"
	"github.com/gantryd/gantry/sdk/imagedriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// called stands for a driver whose methods exist: a runner that reaches one panics
// there, one that is missing says noRunner.
func called(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = nil // it came as far as the driver
		}
	}()
	return f()
}

// able is an exec driver with every ability, whose methods panic.
type able struct {
	execdriver.Driver
	execdriver.Execer
	execdriver.Freezer
	execdriver.Updater
	execdriver.UserNamespacer
}

// Every step of the core has a runner.
func TestEveryStepHasARunner(t *testing.T) {
	names := core.StepNames()
	if len(names) < 15 {
		t.Fatalf("only %v", names)
	}
	ctx := context.Background()
	progress := driver.Progress(func(int64, int64, string) {})
	for _, name := range names {
		bodies := []string{`{"container":"0123456789abcdef"}`}
		if name == "driver.give-back" {
			bodies = nil // a rootfs that nobody knows is quarantined, never given back
			for _, kind := range []string{"layer", "network", "endpoint", "process", "image", "userns"} {
				bodies = append(bodies, `{"item":{"kind":"`+kind+`","key":"k"}}`)
			}
		}
		for _, body := range bodies {
			st, err := core.DecodeStep(name, []byte(body))
			if err != nil {
				t.Fatal(err)
			}
			switch st.(type) {
			case *core.ReplaceDriver, *core.StopDriver, *core.Reconcile, *core.WatchHealth, *core.UnwatchHealth:
				continue // the host's own: run and dispatch, tested with processes
			}
			ran := 0
			for _, f := range []func() error{
				func() error { _, err := runGraph(ctx, graphdriver.Driver(nil), st, progress); return err },
				func() error { _, err := runNet(ctx, netdriver.Driver(nil), st); return err },
				func() error { _, err := runExec(ctx, able{}, st); return err },
				func() error { _, err := runImage(ctx, imagedriver.Driver(nil), st, progress); return err },
			} {
				if err := called(f); !errdefs.IsNotImplemented(err) {
					ran++
				}
			}
			if ran != 1 {
				t.Errorf("%d kinds of drivers run %s %s, want one", ran, name, body)
			}
		}
	}
}

// A driver that lacks an ability refuses what needs it, and has nothing to give
// back: what is owed for ever otherwise.
func TestADriverWithoutAbilities(t *testing.T) {
	plain := struct{ execdriver.Driver }{}
	for _, st := range []core.Step{&core.StartExec{}, &core.Freeze{}, &core.UpdateResources{}, &core.HoldUserNS{}} {
		if _, err := runExec(t.Context(), plain, st); !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v", core.StepName(st), err)
		}
	}
	for _, st := range []core.Step{&core.Thaw{}, &core.ReleaseUserNS{}, &core.GiveBack{Item: core.Item{Kind: "userns", Key: "c"}}} {
		if _, err := runExec(t.Context(), plain, st); err != nil {
			t.Errorf("%s: %v", core.StepName(st), err)
		}
	}
}

func TestSignalNumber(t *testing.T) {
	for s, want := range map[string]int{
		"SIGTERM": 15, "term": 15, "15": 15, "SIGRTMIN+3": 0, "": 0, "nonsense": 0, "99": 0, "-1": 0, "64": 64, "1\n": 0,
	} {
		if got := signalNumber(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}
