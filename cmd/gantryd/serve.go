package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/internal/linux"
)

// stepsGet is how long steps that run may take to end when gantryd is told to.
const stepsGet = 5 * time.Second

// driversGet is how long drivers may then take to end.
const driversGet = 2 * time.Second

// When it has been quiet for settleAfter, gantryd gives back the memory that its start
// needed, or a burst of at least settleEvents events; and restAfter the last copy into the
// stream what JetStream keeps of it (up to 8 MB): it lets go of that after 10 s.
const (
	settleAfter  = time.Second
	restAfter    = 12 * time.Second
	settleEvents = 500
)

// serve runs the engine until a signal comes or the log cannot be written.
func serve(o options) error {
	runtime.MemProfileRate = 0 // nobody asks for profiles: each place that is sampled has a page of its own
	d := &assembly{o: o, log: o.logger(), lost: make(chan error, 2), begun: make(chan struct{})}
	defer d.close()
	if err := linux.CalmTimers(); err != nil {
		d.log.Debug("calm timers", "error", err)
	}
	if err := raiseFiles(); err != nil {
		d.log.Warn("raise the limit of open files", "error", err)
	}
	for _, w := range warnings() {
		d.log.Warn(w)
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.settler = linux.NewSettler(settleAfter, settleEvents, d.settle)
	d.rested = linux.NewSettler(restAfter, 1, d.settle)
	if err := d.build(ctx); err != nil {
		return err
	}
	turning := make(chan error, 1)
	go func() { turning <- d.engine.Run(ctx) }()
	var beside sync.WaitGroup
	beside.Go(func() { engine.Snapshots(ctx, d.journal, d.log) })
	beside.Go(func() { d.verify(ctx) })
	d.need()
	d.ready()

	select {
	case err := <-turning:
		d.abandon()
		cancel()
		beside.Wait()
		return err
	case err := <-d.lost:
		d.abandon()
		cancel()
		beside.Wait()
		return errors.Join(err, <-turning)
	case s := <-signals:
		d.log.Info("stopping", "signal", s.String())
		go func() {
			s := <-signals
			d.log.Warn("stopping at once", "signal", s.String())
			os.Exit(1)
		}()
	}
	notify("STOPPING=1")
	err := d.wind(cancel, turning)
	beside.Wait()
	return err
}

// settle gives back memory. What lies in pools of buffers needs two collections, and
// JetStream puts its last one there only after another one, by a goroutine
// (runtime.AddCleanup).
func (d *assembly) settle() {
	runtime.GC()
	time.Sleep(20 * time.Millisecond)
	runtime.GC()
	if err := linux.Settle(); err != nil {
		d.log.Warn("give back memory", "error", err)
	}
}

// wind ends everything in order: no new commands, steps get their time, drivers
// end. Containers stay.
func (d *assembly) wind(cancel context.CancelFunc, turning chan error) error {
	d.engine.Refuse()
	for begun := time.Now(); !d.engine.Idle() && time.Since(begun) < stepsGet; {
		time.Sleep(2 * time.Millisecond)
	}
	d.engine.Halt()
	ctx, done := context.WithTimeout(context.Background(), driversGet)
	defer done()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.host.Close(ctx)
	}()
	select {
	case <-ended:
	case <-time.After(2 * driversGet):
		d.log.Warn("some drivers have not ended; the next start ends them")
	}
	for d.engine.Queued() > 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	cancel()
	err := <-turning
	if d.journal.Head().Seq > 1000 && err == nil {
		if _, err := engine.Snapshot(d.journal); err != nil {
			d.log.Warn("keep a snapshot", "error", err)
		}
	}
	return err
}

// abandon ends the drivers at once: what they report cannot be recorded.
func (d *assembly) abandon() {
	ctx, done := context.WithCancel(context.Background())
	done()
	d.engine.Halt()
	d.host.Close(ctx)
}

// need starts those drivers that must see what their charges do.
func (d *assembly) need() {
	for id, path := range d.engine.Holders() {
		d.start(id, path)
	}
}

// start starts a driver before its first step.
func (d *assembly) start(id, path string) {
	kind, name, _ := strings.Cut(id, "/")
	d.host.Need(kind, name, path)
}

// verify reads the older part of the log and tells damage. It is not mended here:
// what is written does not depend on it.
func (d *assembly) verify(ctx context.Context) {
	sum, err := d.journal.VerifyOlder(ctx, func(f eventlog.Finding) {
		d.log.Error("the event log is damaged: see `gantry log verify` and `gantry log repair`", "finding", fmt.Sprintf("%+v", f))
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		d.log.Warn("verify the older part of the event log", "error", err)
		return
	}
	d.log.Debug("verified the older part of the event log", "summary", fmt.Sprintf("%+v", sum))
}

// ready says that the engine answers, once.
func (d *assembly) ready() {
	d.tellers.Do(func() {
		fmt.Printf("gantryd: ready on unix://%s\n", d.bus.ControlSocket())
		notify("READY=1")
	})
}

// notify tells the service manager (sd_notify(3)); nobody listens without one.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state)) // a manager that does not listen will time out by itself
}
