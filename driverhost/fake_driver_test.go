package driverhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/graphdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// TestMain lets the test's own program be the drivers, under other names, and a
// host of its own that can be killed.
func TestMain(m *testing.M) {
	base := filepath.Base(os.Args[0])
	switch {
	case strings.HasPrefix(base, "gantry-net-"):
		os.Exit(netdriver.Main(func(c driver.Config) (netdriver.Driver, error) { return fakeNet{c}, misbehave(c) }))
	case strings.HasPrefix(base, "gantry-exec-"):
		os.Exit(execdriver.Main(func(c driver.Config) (execdriver.Driver, error) { return fakeExec{c: c}, misbehave(c) }))
	case strings.HasPrefix(base, "gantry-graphdriver-"):
		os.Exit(graphdriver.Main(func(c driver.Config) (graphdriver.Driver, error) { return fakeGraph{c: c}, misbehave(c) }))
	case base == "lone-host":
		loneHost()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// mode is what a test has told the driver to be like: a file in its directory, or
// a part of its program's folder.
func mode(c driver.Config) string {
	if dir := filepath.Base(filepath.Dir(os.Args[0])); strings.HasPrefix(dir, "be-") {
		return strings.TrimPrefix(dir, "be-")
	}
	data, _ := os.ReadFile(filepath.Join(c.Root, "mode"))
	return string(data)
}

// misbehave does what a bad driver does before it is ready.
func misbehave(c driver.Config) error {
	note(c, "starts")
	switch mode(c) {
	case "failing":
		return errors.New("the moon is full")
	case "crashing":
		panic("all is lost")
	case "mute":
		c.Log.Info("thinking")
		time.Sleep(time.Hour)
	case "garbage":
		fmt.Println("hello, I am no driver")
	case "flooding":
		for i := range 50_000 {
			fmt.Fprintf(os.Stderr, "line %d\n", i)
		}
		fmt.Fprintf(os.Stderr, "%s\n", strings.Repeat("x", 1<<20))
	}
	return nil
}

// note counts what has happened: a line in a file of the driver's directory.
func note(c driver.Config, what string) {
	f, err := os.OpenFile(filepath.Join(c.Root, what), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
		_ = f.Close()
	}
}

func info(c driver.Config, name string) (driver.Info, error) {
	switch mode(c) {
	case "hung-info":
		time.Sleep(time.Hour)
	case "misnamed":
		name = "other"
	}
	return driver.Info{Name: name, Version: "fake-" + filepath.Base(filepath.Dir(os.Args[0]))}, nil
}

func list(c driver.Config) ([]driver.Item, error) {
	switch mode(c) {
	case "hung-list":
		time.Sleep(time.Hour)
	case "failing-list":
		return nil, driver.Errorf(errdefs.ErrDataLoss, "the book is burnt")
	}
	return []driver.Item{{Kind: "network", Key: "kept", State: "held"}}, nil
}

type fakeNet struct{ c driver.Config }

func (d fakeNet) Info(context.Context) (driver.Info, error) {
	return info(d.c, strings.TrimPrefix(filepath.Base(os.Args[0]), "gantry-net-"))
}
func (d fakeNet) List(context.Context) ([]driver.Item, error) { return list(d.c) }

// CreateNetwork does what its name says.
func (d fakeNet) CreateNetwork(ctx context.Context, n netdriver.Network) error {
	note(d.c, "did-"+n.Name)
	switch n.Name {
	case "slow":
		time.Sleep(300 * time.Millisecond)
	case "held": // until it is let go
		return d.until(ctx, func() bool { _, err := os.Stat(filepath.Join(d.c.Root, "let-go")); return err == nil })
	case "meets": // another one
		return d.until(ctx, func() bool { return noted(d.c.Root, "did-meets") > 1 })
	case "patient": // ends when told, after a while
		<-ctx.Done()
		time.Sleep(200 * time.Millisecond)
		note(d.c, "patient-ended")
		return ctx.Err()
	case "deaf":
		time.Sleep(time.Hour)
	case "dies":
		os.Exit(9)
	case "leaves-child": // which nothing but the cgroup finds
		child := exec.Command("setsid", "-f", "sleep", "100")
		if err := child.Run(); err != nil {
			return err
		}
		os.Exit(9)
	case "refused":
		return driver.Errorf(errdefs.ErrAlreadyExists, "the subnet is taken")
	}
	return nil
}

// until waits for what a test or another call does.
func (fakeNet) until(ctx context.Context, f func() bool) error {
	for ; !f(); time.Sleep(time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (fakeNet) RemoveNetwork(context.Context, string) error { return nil }
func (fakeNet) Attach(context.Context, netdriver.Attach) (netdriver.Endpoint, error) {
	return netdriver.Endpoint{}, nil
}
func (fakeNet) Detach(context.Context, netdriver.EndpointKey) error { return nil }

type fakeExec struct {
	execdriver.Driver
	c driver.Config
}

func (d fakeExec) Info(context.Context) (driver.Info, error) {
	i, err := info(d.c, "fake")
	i.Abilities = []string{
		execdriver.AbilityExec, execdriver.AbilityFreeze, execdriver.AbilityUpdate, execdriver.AbilityMeter,
		execdriver.AbilityCopy, execdriver.AbilityUserNS, execdriver.AbilityOOM,
	}
	return i, err
}
func (d fakeExec) List(context.Context) ([]driver.Item, error) { return nil, nil }

// Release forgets an exit.
func (d fakeExec) Release(_ context.Context, k execdriver.Key) error {
	return os.RemoveAll(filepath.Join(d.c.Root, "exits", k.Container))
}

// Exits tells every exit that is there, then what comes.
func (d fakeExec) Exits(ctx context.Context, f func(execdriver.Exit) error) error {
	told := map[string]bool{}
	for ctx.Err() == nil {
		entries, _ := os.ReadDir(filepath.Join(d.c.Root, "exits"))
		if x, err := os.ReadFile(filepath.Join(d.c.Root, "exec-ends")); err == nil && !told["exec"] {
			told["exec"] = true
			if err := f(execdriver.Exit{Key: execdriver.Key{Container: "c", Run: 1, Exec: string(x)}, Code: 5}); err != nil {
				return err
			}
		}
		for _, e := range entries {
			if told[e.Name()] {
				continue
			}
			told[e.Name()] = true
			if err := f(execdriver.Exit{Key: execdriver.Key{Container: e.Name(), Run: 1}, Code: 3}); err != nil {
				return err
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return ctx.Err()
}

type fakeGraph struct {
	graphdriver.Driver
	c driver.Config
}

func (d fakeGraph) Info(context.Context) (driver.Info, error)   { return info(d.c, "fake") }
func (d fakeGraph) List(context.Context) ([]driver.Item, error) { return nil, nil }

// ApplyLayer takes two and a half seconds, and tells so; or is silent, and does not end.
func (d fakeGraph) ApplyLayer(ctx context.Context, r graphdriver.ApplyLayer, p driver.Progress) (graphdriver.Layer, error) {
	for i := int64(0); i < 50 || r.Archive == "silent"; i++ {
		if r.Archive != "silent" {
			p(i, 50, "unpacking")
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return graphdriver.Layer{}, ctx.Err()
		}
	}
	return graphdriver.Layer{ID: r.ID, Size: 77}, nil
}
