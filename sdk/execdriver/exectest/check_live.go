package exectest

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
)

func (f fixture) liveChecks() []check {
	return []check{
		{Name: "exec", Promise: "Exec (ability \"exec\") runs a process in a running run; signals, exits, List and Release know it; it ends with the run at the latest.", Run: f.checkExec},
		{Name: "probe", Promise: "Probe (ability \"exec\") tells code and output; at its timeout what it has started is killed; nothing of it is left.", Run: f.checkProbe},
		{Name: "freeze", Promise: "A frozen run (ability \"freeze\") stands still, refuses execs, and can be killed.", Run: f.checkFreeze},
		{Name: "update", Promise: "Update (ability \"update\") is all or nothing, and NotFound for what is not running.", Run: f.checkUpdate},
		{Name: "meter", Promise: "Stats and Processes (ability \"meter\") tell what a run uses; Stats leaves out what is not running.", Run: f.checkMeter},
		{Name: "copy", Promise: "What CopyIn has put into a running run, CopyOut and Stat (ability \"copy\") tell.", Run: f.checkCopy},
		{Name: "userns", Promise: "HoldUserNS (ability \"userns\") repeated tells the same namespace; List tells it until ReleaseUserNS.", Run: f.checkUserNS},
		{Name: "oom", Promise: "OOMs (ability \"oom\") ends with its caller.", Run: f.checkOOM},
	}
}

// able is the driver with an ability, if it says that it has it.
func able[A any](ctx context.Context, b *bench, ability string) (A, bool) {
	b.Helper()
	a, ok := b.Driver().(A)
	switch {
	case !execdriver.Has(ctx, b.Driver(), ability):
		b.Logf("the driver does not have the ability %q: nothing to check", ability)
		return a, false
	case !ok:
		b.Fatalf("the driver says that it has the ability %q, and has not its methods", ability)
	}
	return a, ok
}

// idle starts a run that does nothing.
func (f fixture) idle(ctx context.Context, b *bench) execdriver.Start {
	b.Helper()
	r := f.script(b, "echo up > /out/up; while :; do sleep 0.05; done")
	start(ctx, b, r)
	awaitFile(ctx, b, r, "up")
	return r
}

func shell(script string) execdriver.Process {
	return execdriver.Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}}
}

func (f fixture) checkExec(ctx context.Context, b *bench) {
	d, ok := able[execdriver.Execer](ctx, b, execdriver.AbilityExec)
	if !ok {
		return
	}
	r := f.idle(ctx, b)
	ask := func(script string) execdriver.Exec {
		k := r.Key
		k.Exec = conform.ID()
		return execdriver.Exec{Key: k, Process: shell(script), Stdio: execdriver.Stdio{Log: execdriver.LogConfig{Driver: "none"}}}
	}
	one := ask("echo $GREETING > /out/exec; exit 7")
	one.Process.Env = append(one.Process.Env, "GREETING=hi")
	if _, err := d.Exec(ctx, one); err != nil {
		b.Fatalf("Exec: %v", err)
	}
	if e := awaitExit(ctx, b, one.Key); e.Code != 7 || e.Exec != one.Exec {
		b.Errorf("the exec ended with %+v", e)
	}
	if got := said(b, r, "exec"); got != "hi" {
		b.Errorf("the exec said %q", got)
	}
	release(ctx, b, one.Key)
	two := ask("sleep 1000")
	first, err := d.Exec(ctx, two)
	if err != nil {
		b.Fatalf("Exec: %v", err)
	}
	if again, err := d.Exec(ctx, two); err != nil || again != first {
		b.Errorf("Exec repeated: %+v (%v), first %+v", again, err, first)
	}
	item := runningItem(two.Key, first.PID)
	item.Exec = two.Exec
	items, err := b.Driver().List(ctx)
	if err != nil || len(items) != 2 {
		b.Errorf("List: %+v (%v), want the run and %+v", items, err, item)
	}
	missing := ask("")
	missing.Process.Args = []string{"/no/such"}
	_, err = d.Exec(ctx, missing)
	conform.WantClass(b, "Exec of what is not there", err, "not-found")
	if err := b.Driver().Signal(ctx, r.Key, 9); err != nil {
		b.Errorf("Signal: %v", err)
	}
	awaitExits(ctx, b, two.Key, r.Key)
	_, err = d.Exec(ctx, ask("true"))
	conform.WantClass(b, "Exec in what has ended", err, "failed-precondition")
	release(ctx, b, two.Key)
	release(ctx, b, r.Key)
}

func (f fixture) checkProbe(ctx context.Context, b *bench) {
	d, ok := able[execdriver.Execer](ctx, b, execdriver.AbilityExec)
	if !ok {
		return
	}
	r := f.idle(ctx, b)
	p := execdriver.Probe{Key: r.Key, Process: shell("echo fine; exit 3"), Timeout: 10 * time.Second, Keep: 3}
	if got, err := d.Probe(ctx, p); err != nil || got.Code != 3 || string(got.Output) != "fin" || got.TimedOut {
		b.Errorf("Probe: %+v (%v)", got, err)
	}
	p.Process, p.Timeout = shell("sleep 1000"), 100*time.Millisecond
	if got, err := d.Probe(ctx, p); err != nil || !got.TimedOut {
		b.Errorf("Probe that takes too long: %+v (%v)", got, err)
	}
	if items, err := b.Driver().List(ctx); err != nil || len(items) != 1 {
		b.Errorf("List after probes: %+v (%v)", items, err)
	}
	release(ctx, b, r.Key)
}

func (f fixture) checkFreeze(ctx context.Context, b *bench) {
	d, ok := able[execdriver.Freezer](ctx, b, execdriver.AbilityFreeze)
	if !ok {
		return
	}
	conform.WantClass(b, "Freeze of what is not running", d.Freeze(ctx, execdriver.Key{Container: conform.ID(), Run: 1}), "not-found")
	r := f.idle(ctx, b)
	for range 2 {
		if err := d.Freeze(ctx, r.Key); err != nil {
			b.Fatalf("Freeze: %v", err)
		}
	}
	if x, ok := b.Driver().(execdriver.Execer); ok && execdriver.Has(ctx, b.Driver(), execdriver.AbilityExec) {
		k := r.Key
		k.Exec = conform.ID()
		_, err := x.Exec(ctx, execdriver.Exec{Key: k, Process: shell("true")})
		conform.WantClass(b, "Exec in a frozen run", err, "failed-precondition")
	}
	for range 2 {
		if err := d.Thaw(ctx, r.Key); err != nil {
			b.Fatalf("Thaw: %v", err)
		}
	}
	if err := errors.Join(d.Freeze(ctx, r.Key), b.Driver().Signal(ctx, r.Key, 9)); err != nil {
		b.Errorf("kill a frozen run: %v", err)
	}
	awaitExit(ctx, b, r.Key)
	release(ctx, b, r.Key)
}

func (f fixture) checkUpdate(ctx context.Context, b *bench) {
	d, ok := able[execdriver.Updater](ctx, b, execdriver.AbilityUpdate)
	if !ok {
		return
	}
	conform.WantClass(b, "Update of what is not running", d.Update(ctx, execdriver.Key{Container: conform.ID(), Run: 1}, execdriver.Resources{}), "not-found")
	r := f.idle(ctx, b)
	if err := d.Update(ctx, r.Key, execdriver.Resources{PidsLimit: 77}); err != nil {
		b.Errorf("Update: %v", err)
	}
	conform.WantClass(b, "Update to too little memory", d.Update(ctx, r.Key, execdriver.Resources{MemoryBytes: 1}), "invalid-argument")
	if m, ok := b.Driver().(execdriver.Meter); ok && execdriver.Has(ctx, b.Driver(), execdriver.AbilityMeter) {
		if s, err := m.Stats(ctx, []execdriver.Key{r.Key}); err != nil || len(s) != 1 || s[0].PidsLimit != 77 {
			b.Errorf("after the updates: %+v (%v)", s, err)
		}
	}
	release(ctx, b, r.Key)
}

func (f fixture) checkMeter(ctx context.Context, b *bench) {
	d, ok := able[execdriver.Meter](ctx, b, execdriver.AbilityMeter)
	if !ok {
		return
	}
	r := f.idle(ctx, b)
	s, err := d.Stats(ctx, []execdriver.Key{{Container: conform.ID(), Run: 1}, r.Key})
	if err != nil || len(s) != 1 || s[0].Key != r.Key || s[0].CPUs < 1 || s[0].Pids < 1 || s[0].Time.IsZero() {
		b.Errorf("Stats: %+v (%v)", s, err)
	}
	tasks, err := d.Processes(ctx, r.Key)
	if err != nil || len(tasks) < 1 || tasks[0].PID <= 0 || tasks[0].Name == "" {
		b.Errorf("Processes: %+v (%v)", tasks, err)
	}
	_, err = d.Processes(ctx, execdriver.Key{Container: conform.ID(), Run: 1})
	conform.WantClass(b, "Processes of what is not running", err, "not-found")
	release(ctx, b, r.Key)
}

func (f fixture) checkUserNS(ctx context.Context, b *bench) {
	d, ok := able[execdriver.UserNamespacer](ctx, b, execdriver.AbilityUserNS)
	if !ok {
		return
	}
	ids := []driver.IDMapping{{Container: 0, Host: 500_000, Size: 65536}}
	c, m := conform.ID(), driver.IDMap{UIDs: ids, GIDs: ids}
	first, err := d.HoldUserNS(ctx, c, m)
	if err != nil {
		b.Fatalf("HoldUserNS: %v", err)
	}
	if again, err := d.HoldUserNS(ctx, c, m); err != nil || again != first {
		b.Errorf("HoldUserNS repeated: %+v (%v), first %+v", again, err, first)
	}
	if items, err := b.Driver().List(ctx); err != nil || len(items) != 1 || items[0].Kind != "userns" || items[0].Key != c {
		b.Errorf("List: %+v (%v)", items, err)
	}
	for range 2 {
		if err := d.ReleaseUserNS(ctx, c); err != nil {
			b.Errorf("ReleaseUserNS: %v", err)
		}
	}
	wantItems(ctx, b)
}

func (f fixture) checkOOM(ctx context.Context, b *bench) {
	d, ok := able[execdriver.OOMWatcher](ctx, b, execdriver.AbilityOOM)
	if !ok {
		return
	}
	short, cancel := context.WithCancel(ctx)
	defer time.AfterFunc(100*time.Millisecond, cancel).Stop()
	defer cancel()
	if err := d.OOMs(short, func(o execdriver.OOM) error { b.Errorf("OOMs told %+v", o); return nil }); err != nil && short.Err() == nil {
		b.Errorf("OOMs: %v", err)
	}
}

func (f fixture) checkCopy(ctx context.Context, b *bench) {
	d, ok := able[execdriver.Copier](ctx, b, execdriver.AbilityCopy)
	if !ok {
		return
	}
	r := f.idle(ctx, b)
	c := execdriver.Copy{Key: r.Key, Path: "/out", Socket: "0123456789abcdef"}
	tarred, err := copyThrough(ctx, b, c, d.CopyOut, nil)
	if err != nil || !strings.Contains(string(tarred), "out/up") {
		b.Errorf("CopyOut: %d bytes (%v)", len(tarred), err)
	}
	if _, err := copyThrough(ctx, b, c, d.CopyIn, tarred); err != nil {
		b.Errorf("CopyIn: %v", err)
	}
	c.Path = "/out/out/up"
	if st, err := d.Stat(ctx, c); err != nil || st.Name != "up" || st.Size != 3 {
		b.Errorf("Stat: %+v (%v)", st, err)
	}
	c.Path = "/no/such"
	_, err = d.Stat(ctx, c)
	conform.WantClass(b, "Stat of nothing", err, "not-found")
	conform.WantClass(b, "CopyOut of nothing", d.CopyOut(ctx, c), "not-found")
	release(ctx, b, r.Key)
}

// copyThrough runs a copy, gives it what is to be sent and takes what comes.
func copyThrough(ctx context.Context, b *bench, c execdriver.Copy, do func(context.Context, execdriver.Copy) error, send []byte) ([]byte, error) {
	done := make(chan error, 1)
	go func() { done <- do(ctx, c) }()
	for {
		conn, err := net.Dial("unix", execdriver.CopySocket(b.Config.Run, c.Socket))
		if err != nil {
			select {
			case err := <-done:
				return nil, err
			case <-time.After(time.Millisecond):
				continue
			}
		}
		defer conn.Close()
		if send == nil {
			got, err := io.ReadAll(conn)
			return got, errors.Join(err, <-done)
		}
		_, err = conn.Write(send)
		return nil, errors.Join(err, conn.(*net.UnixConn).CloseWrite(), <-done)
	}
}
