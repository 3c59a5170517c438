package exectest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// forever is a script that says "up" and stays.
const forever = `echo up > /out/up; while :; do sleep 0.05; done`

func (f fixture) lifeChecks() []check {
	return []check{
		{Name: "info", Promise: "Info names the driver.", Run: checkInfo},
		{Name: "exit-code", Promise: "Exits tells a program's exit status.", Run: f.checkExitCode},
		{Name: "signal", Promise: "Signal reaches the first process; a program that ends by signal n exits with 128+n.", Run: f.checkSignal},
		{Name: "signal-not-running", Promise: "Signal of a run that is not running is NotFound.", Run: f.checkSignalNotRunning},
		{Name: "start-repeated", Promise: "Start, repeated, answers with the run that was started, also when it has ended.", Run: f.checkStartRepeated},
		{Name: "list", Promise: "List tells a run with its state and pid until it is released.", Run: f.checkList},
		{Name: "release", Promise: "Release kills what still runs and removes the run; it may be repeated, and succeeds for what is not held.", Run: f.checkRelease},
		{Name: "release-all-processes", Promise: "Release leaves no process of the run behind.", Run: f.checkReleaseAll},
		{Name: "next-run", Promise: "A container runs again under the next number.", Run: f.checkNextRun},
		{Name: "log", Promise: "Started tells the log file; it stays after Release and goes by RemoveLog; log driver none keeps none.", Run: f.checkLog},
		{Name: "attach-socket", Promise: "The shim's socket is there before Start returns; with WaitAttach the program waits for a client.", Run: f.checkSocket},
		{Name: "side-by-side", Promise: "Several containers are started, signalled and released side by side.", Run: f.checkSideBySide},
	}
}

func checkInfo(ctx context.Context, b *bench) {
	info, err := b.Driver().Info(ctx)
	if err != nil {
		b.Fatalf("Info: %v", err)
	}
	if info.Name == "" || info.Version == "" {
		b.Errorf("Info has no name or no version: %+v", info)
	}
	for _, w := range info.Warnings {
		b.Logf("the driver warns: %s", w)
	}
}

func (f fixture) checkExitCode(ctx context.Context, b *bench) {
	for text, code := range map[string]int{"exit 0": 0, "exit 3": 3, "exit 255": 255} {
		r := f.script(b, text)
		began := time.Now()
		start(ctx, b, r)
		e := awaitExit(ctx, b, r.Key)
		if e.Key != r.Key || e.Code != code || e.Signal != 0 || e.OOMKilled || e.Lost {
			b.Errorf("the script %q ended with %+v, want code %d", text, e, code)
		}
		if e.Time.Before(began.Add(-time.Second)) || e.Time.After(time.Now().Add(time.Second)) {
			b.Errorf("the exit is said to be at %v; it was between %v and now", e.Time, began)
		}
		release(ctx, b, r.Key)
	}
}

func (f fixture) checkSignal(ctx context.Context, b *bench) {
	r := f.script(b, `trap 'exit 7' TERM; `+forever)
	start(ctx, b, r)
	awaitFile(ctx, b, r, "up")
	if err := b.Driver().Signal(ctx, r.Key, int(syscall.SIGTERM)); err != nil {
		b.Errorf("Signal: %v", err)
	}
	if e := awaitExit(ctx, b, r.Key); e.Code != 7 || e.Signal != 0 {
		b.Errorf("a program that exits with 7 on SIGTERM ended with %+v", e)
	}
	r = f.script(b, forever)
	start(ctx, b, r)
	awaitFile(ctx, b, r, "up")
	if err := b.Driver().Signal(ctx, r.Key, int(syscall.SIGKILL)); err != nil {
		b.Errorf("Signal: %v", err)
	}
	if e := awaitExit(ctx, b, r.Key); e.Code != 137 || e.Signal != 9 || e.OOMKilled || e.Lost {
		b.Errorf("a program that was killed ended with %+v, want code 137, signal 9", e)
	}
}

func (f fixture) checkSignalNotRunning(ctx context.Context, b *bench) {
	unknown := execdriver.Key{Container: conform.ID(), Run: 1}
	conform.WantClass(b, "Signal of an unknown run", b.Driver().Signal(ctx, unknown, 15), "not-found")
	r := f.script(b, "exit 0")
	start(ctx, b, r)
	awaitExit(ctx, b, r.Key)
	conform.WantClass(b, "Signal of a run that has ended", b.Driver().Signal(ctx, r.Key, 15), "not-found")
	release(ctx, b, r.Key)
	conform.WantClass(b, "Signal of a run that was released", b.Driver().Signal(ctx, r.Key, 15), "not-found")
}

func (f fixture) checkStartRepeated(ctx context.Context, b *bench) {
	r := f.script(b, `echo started >> /out/starts; `+forever)
	first := start(ctx, b, r)
	awaitFile(ctx, b, r, "up")
	if again := start(ctx, b, r); again != first {
		b.Errorf("Start answered %+v, repeated %+v", first, again)
	}
	b.Reopen()
	if again := start(ctx, b, r); again != first {
		b.Errorf("Start answered %+v, after a restart %+v", first, again)
	}
	if err := b.Driver().Signal(ctx, r.Key, int(syscall.SIGKILL)); err != nil {
		b.Errorf("Signal: %v", err)
	}
	awaitExit(ctx, b, r.Key)
	if again, err := b.Driver().Start(ctx, r); err != nil || again.Log != first.Log {
		b.Errorf("Start answered %+v, repeated after the end %+v, %v", first, again, err)
	}
	if got := said(b, r, "starts"); got != "started" {
		b.Errorf("the program was started more than once:\n%s", got)
	}
}

func (f fixture) checkList(ctx context.Context, b *bench) {
	wantItems(ctx, b)
	r := f.script(b, forever)
	r.Run = 17
	s := start(ctx, b, r)
	wantItems(ctx, b, runningItem(r.Key, s.PID))
	if err := syscall.Kill(s.PID, 0); err != nil {
		b.Errorf("the pid %d that Start answered: %v", s.PID, err)
	}
	if err := b.Driver().Signal(ctx, r.Key, int(syscall.SIGKILL)); err != nil {
		b.Errorf("Signal: %v", err)
	}
	awaitExit(ctx, b, r.Key)
	wantItems(ctx, b, exitedItem(r.Key))
	release(ctx, b, r.Key)
	wantItems(ctx, b)
}

func (f fixture) checkRelease(ctx context.Context, b *bench) {
	release(ctx, b, execdriver.Key{Container: conform.ID(), Run: 1})
	r := f.script(b, forever)
	s := start(ctx, b, r)
	for range 2 {
		release(ctx, b, r.Key)
		wantItems(ctx, b)
		if alive(s.PID) {
			b.Errorf("the process %d is alive after Release", s.PID)
		}
		if _, err := os.Stat(execdriver.RunDir(b.Config.Run, r.Key)); !os.IsNotExist(err) {
			b.Errorf("the run's directory is there after Release (%v)", err)
		}
		b.Reopen()
	}
	if told := toldNow(ctx, b); len(told) > 0 {
		b.Errorf("Exits tells a released run: %+v", told)
	}
}

// alive reports whether a process runs: one that has ended may wait to be reaped.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat[max(bytes.LastIndexByte(stat, ')'), 0):]), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func (f fixture) checkReleaseAll(ctx context.Context, b *bench) {
	// Children that ignore every signal they can. All of the run hold a FIFO open.
	r := f.script(b, `exec 9> /out/held; for i in 1 2 3; do (trap '' HUP TERM INT; while :; do sleep 0.02; done) & done; `+forever)
	path := r.Mounts[0].Source + "/held"
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		b.Fatalf("make a FIFO: %v", err)
	}
	held, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		b.Fatalf("open a FIFO: %v", err)
	}
	defer syscall.Close(held)
	start(ctx, b, r)
	awaitFile(ctx, b, r, "up")
	release(ctx, b, r.Key)
	if n, err := syscall.Read(held, make([]byte, 1)); n != 0 || err != nil { // the end, when nobody can write any more
		b.Errorf("after Release a process of the run still holds its files (%v)", err)
	}
}

func (f fixture) checkNextRun(ctx context.Context, b *bench) {
	r := f.script(b, "exit 5")
	for r.Run = 1; r.Run <= 3; r.Run++ {
		start(ctx, b, r)
		if e := awaitExit(ctx, b, r.Key); e.Code != 5 {
			b.Errorf("run %d ended with %+v", r.Run, e)
		}
		wantItems(ctx, b, exitedItem(r.Key))
		release(ctx, b, r.Key)
	}
}

func (f fixture) checkLog(ctx context.Context, b *bench) {
	r := f.script(b, "echo some words; echo more words >&2")
	s := start(ctx, b, r)
	awaitExit(ctx, b, r.Key)
	release(ctx, b, r.Key)
	if info, err := os.Stat(s.Log); err != nil || info.Size() == 0 {
		b.Errorf("the log file %q after Release: %v", s.Log, err)
	}
	for range 2 {
		if err := b.Driver().RemoveLog(ctx, r.Container); err != nil {
			b.Errorf("RemoveLog: %v", err)
		}
		if _, err := os.Stat(s.Log); !os.IsNotExist(err) {
			b.Errorf("the log file is there after RemoveLog (%v)", err)
		}
	}
	if err := b.Driver().RemoveLog(ctx, conform.ID()); err != nil {
		b.Errorf("RemoveLog of an unknown container: %v", err)
	}
	quiet := f.script(b, "echo unheard")
	quiet.Stdio.Log.Driver = "none"
	if s := start(ctx, b, quiet); s.Log != "" {
		b.Errorf("log driver none has the log file %q", s.Log)
	}
	awaitExit(ctx, b, quiet.Key)
}

func (f fixture) checkSocket(ctx context.Context, b *bench) {
	r := f.script(b, `echo up > /out/up`)
	r.Stdio.WaitAttach = true
	d := b.Driver()
	waiting, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := d.Start(waiting, r)
		ended <- err
	}()
	path := execdriver.SocketPath(b.Config.Run, r.Key)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			break
		}
		if time.Now().After(deadline) {
			b.Errorf("no socket at %s while Start waits for a client", path)
			break
		}
	}
	select {
	case err := <-ended:
		b.Errorf("Start did not wait for a client: %v", err)
	case <-time.After(300 * time.Millisecond):
		cancel()
		b.Logf("Start, cancelled while it waits: %v", <-ended)
	}
	cancel()
	if _, err := os.Stat(r.Mounts[0].Source + "/up"); err == nil {
		b.Errorf("the program has run without a client")
	}
	release(ctx, b, r.Key)
	wantItems(ctx, b)
}

func (f fixture) checkSideBySide(ctx context.Context, b *bench) {
	d := b.Driver()
	var wg sync.WaitGroup
	for range 4 {
		r := f.script(b, forever)
		wg.Go(func() {
			if _, err := d.Start(ctx, r); err != nil {
				b.Errorf("Start side by side: %v", err)
				return
			}
			if err := d.Signal(ctx, r.Key, int(syscall.SIGKILL)); err != nil {
				b.Errorf("Signal side by side: %v", err)
			}
			if _, err := d.List(ctx); err != nil {
				b.Errorf("List side by side: %v", err)
			}
			if err := d.Release(ctx, r.Key); err != nil {
				b.Errorf("Release side by side: %v", err)
			}
		})
	}
	wg.Wait()
	wantItems(ctx, b)
}
