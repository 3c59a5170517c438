package exectest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// patience is how long a check waits for what must happen.
const patience = 20 * time.Second

// script asks for a shell script to be run. It may write to /out.
func (f fixture) script(b *bench, text string) execdriver.Start {
	b.Helper()
	out := b.TempDir()
	if err := os.Chmod(out, 0o777); err != nil { // users inside write there
		b.Fatalf("make a directory for the script's words: %v", err)
	}
	return execdriver.Start{
		Key:      execdriver.Key{Container: conform.ID(), Run: 1},
		Name:     "conform",
		Hostname: "box",
		Rootfs:   []driver.Mount{{Type: "bind", Source: f.rootfs, Target: "/", Options: []string{"rbind"}}},
		Mounts:   []driver.Mount{{Type: "bind", Source: out, Target: "/out", Options: []string{"rbind"}}},
		Network:  netdriver.Namespace{Mode: netdriver.NamespaceNew},
		Process: execdriver.Process{
			Args: []string{"/bin/sh", "-c", text},
			Env:  []string{"PATH=/bin", "GREETING=hello"},
		},
		Stdio: execdriver.Stdio{Log: execdriver.LogConfig{Driver: "local"}},
	}
}

// said is what the script has written to a file below /out, without its last
// line end.
func said(b *bench, r execdriver.Start, name string) string {
	b.Helper()
	raw, err := os.ReadFile(filepath.Join(r.Mounts[0].Source, name))
	if err != nil {
		b.Errorf("the script has not written /out/%s: %v", name, err)
	}
	return strings.TrimRight(string(raw), "\n")
}

// awaitFile waits until the script has written a file below /out.
func awaitFile(ctx context.Context, b *bench, r execdriver.Start, name string) {
	b.Helper()
	path := filepath.Join(r.Mounts[0].Source, name)
	for {
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			return
		}
		select {
		case <-ctx.Done():
			b.Fatalf("the script does not write /out/%s", name)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// start starts a process and ends the check if that fails.
func start(ctx context.Context, b *bench, r execdriver.Start) execdriver.Started {
	b.Helper()
	s, err := b.Driver().Start(ctx, r)
	if err != nil {
		b.Fatalf("Start %q: %v", r.Process.Args, err)
	}
	if s.PID <= 0 {
		b.Errorf("Start answered pid %d", s.PID)
	}
	return s
}

// awaitExit waits for the end of a run.
func awaitExit(ctx context.Context, b *bench, k execdriver.Key) execdriver.Exit {
	b.Helper()
	exits := awaitExits(ctx, b, k)
	if len(exits) == 0 {
		return execdriver.Exit{}
	}
	return exits[len(exits)-1]
}

// awaitExits gathers what Exits tells until it has told the end of each run
// asked for.
func awaitExits(ctx context.Context, b *bench, keys ...execdriver.Key) []execdriver.Exit {
	b.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var told []execdriver.Exit
	enough := errors.New("enough")
	err := b.Driver().Exits(ctx, func(e execdriver.Exit) error {
		told = append(told, e)
		for _, k := range keys {
			if !slices.ContainsFunc(told, func(e execdriver.Exit) bool { return e.Key == k }) {
				return nil
			}
		}
		return enough
	})
	if !errors.Is(err, enough) {
		b.Fatalf("Exits told %+v in %v (%v), want the end of %+v", told, patience, err, keys)
	}
	return told
}

// toldNow gathers what Exits tells within a moment.
func toldNow(ctx context.Context, b *bench) []execdriver.Exit {
	b.Helper()
	ctx, cancel := context.WithCancel(ctx) // no deadline: that would end it at the driver's side, too
	defer time.AfterFunc(500*time.Millisecond, cancel).Stop()
	var told []execdriver.Exit
	err := b.Driver().Exits(ctx, func(e execdriver.Exit) error {
		told = append(told, e)
		return nil
	})
	cancelled := ctx.Err() != nil
	cancel()
	if err != nil && !cancelled {
		b.Errorf("Exits: %v", err)
	}
	return told
}

// release releases a run and ends the check if that fails.
func release(ctx context.Context, b *bench, k execdriver.Key) {
	b.Helper()
	if err := b.Driver().Release(ctx, k); err != nil {
		b.Fatalf("Release: %v", err)
	}
}

// run runs a script to its end and wants it to exit with 0.
func run(ctx context.Context, b *bench, r execdriver.Start) {
	b.Helper()
	start(ctx, b, r)
	if e := awaitExit(ctx, b, r.Key); e.Code != 0 {
		b.Errorf("the script %q ended with %+v", r.Process.Args, e)
	}
	release(ctx, b, r.Key)
}

// wantItems compares what List tells with what it should; order is free.
func wantItems(ctx context.Context, b *bench, want ...driver.Item) {
	b.Helper()
	got, err := b.Driver().List(ctx)
	if err != nil {
		b.Fatalf("List: %v", err)
	}
	for _, i := range want {
		if !slices.Contains(got, i) {
			b.Errorf("List lacks %+v\n\tit tells %+v", i, got)
		}
	}
	if len(got) > len(want) {
		b.Errorf("List has %d items, want %d: %+v", len(got), len(want), got)
	}
}

func runningItem(k execdriver.Key, pid int) driver.Item {
	return driver.Item{Kind: "process", Key: k.Container, Run: k.Run, State: "running", PID: pid}
}

func exitedItem(k execdriver.Key) driver.Item {
	return driver.Item{Kind: "process", Key: k.Container, Run: k.Run, State: "exited"}
}
