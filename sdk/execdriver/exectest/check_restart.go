package exectest

import (
	"context"
	"syscall"
	"time"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/execdriver"
)

func (f fixture) restartChecks() []check {
	return []check{
		{Name: "outlives-the-driver", Promise: "Processes outlive the driver; after a restart it finds, signals and releases them.", Run: f.checkOutlives},
		{Name: "exit-while-away", Promise: "An exit that happens while no driver runs is told by the next one, with its code.", Run: f.checkExitWhileAway},
		{Name: "exits-until-released", Promise: "Exits tells every exit that was not released, again and again, old ones first; then no more.", Run: f.checkExitsUntilReleased},
	}
}

// away ends the driver, by force if it is a process.
func away(b *bench) {
	if b.CanKill() {
		b.Kill()
	} else {
		b.Close()
	}
}

func (f fixture) checkOutlives(ctx context.Context, b *bench) {
	r := f.script(b, `trap 'exit 8' TERM; `+forever)
	s := start(ctx, b, r)
	awaitFile(ctx, b, r, "up")
	away(b)
	time.Sleep(100 * time.Millisecond)
	if err := syscall.Kill(s.PID, 0); err != nil {
		b.Fatalf("the process has ended with its driver: %v", err)
	}
	wantItems(ctx, b, runningItem(r.Key, s.PID))
	if err := b.Driver().Signal(ctx, r.Key, int(syscall.SIGTERM)); err != nil {
		b.Errorf("Signal after a restart: %v", err)
	}
	if e := awaitExit(ctx, b, r.Key); e.Code != 8 || e.Lost {
		b.Errorf("the process ended with %+v, want code 8", e)
	}
	away(b)
	wantItems(ctx, b, exitedItem(r.Key))
	release(ctx, b, r.Key)
	wantItems(ctx, b)
}

func (f fixture) checkExitWhileAway(ctx context.Context, b *bench) {
	r := f.script(b, `sleep 0.3; exit 6`)
	s := start(ctx, b, r)
	away(b)
	for deadline := time.Now().Add(patience); alive(s.PID) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if e := awaitExit(ctx, b, r.Key); e.Code != 6 || e.Lost {
		b.Errorf("a process that exited with 6 while no driver ran is said to have ended with %+v", e)
	}
}

func (f fixture) checkExitsUntilReleased(ctx context.Context, b *bench) {
	var keys []execdriver.Key
	for _, text := range []string{"exit 1", "exit 2", "exit 3"} {
		r := f.script(b, text)
		start(ctx, b, r)
		if e := awaitExit(ctx, b, r.Key); e.Key != r.Key {
			b.Errorf("Exits told %+v last, want the end of %+v", e, r.Key)
		}
		keys = append(keys, r.Key)
		time.Sleep(20 * time.Millisecond) // so that old and new can be told apart
	}
	for _, when := range []string{"again", "after a restart"} {
		exits := awaitExits(ctx, b, keys...)
		for i, e := range exits {
			if e.Key != keys[min(i, 2)] || e.Code != i+1 {
				b.Errorf("Exits %s told %+v in place %d", when, e, i)
			}
		}
		b.Reopen()
	}
	release(ctx, b, keys[1])
	for _, e := range toldNow(ctx, b) {
		if e.Key == keys[1] {
			b.Errorf("Exits tells a released run: %+v", e)
		}
	}
	for _, k := range keys {
		release(ctx, b, k)
	}
	if told := toldNow(ctx, b); len(told) > 0 {
		b.Errorf("Exits tells released runs: %+v", told)
	}
	conform.WantClass(b, "Signal after Release", b.Driver().Signal(ctx, keys[0], 9), "not-found")
}
