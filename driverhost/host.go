package driverhost

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/sdk/driver"
)

// Bus is what the host needs of the bus; *bus.Client has it.
type Bus interface {
	ServeSteps(kind, driver string, h bus.StepHandlers) (*bus.StepServing, error)
	Finish(ctx context.Context, f bus.Finish) (bus.Receipt, error)
	Report(ctx context.Context, r bus.Report) (bus.Receipt, error)
	TellProgress(job string, body any) error
}

// Options say what the host is to serve.
type Options struct {
	Bus Bus
	// Config is the engine's part of every driver's configuration: its Root
	// and Run are the directories below which each driver gets its own.
	Config driver.Config
	// Epoch is the sequence of the engine's start; reports carry it.
	Epoch uint64
	// Path lists directories of driver programs; the first that has one wins.
	Path []string
	// Log takes what drivers and host have to say.
	Log *slog.Logger
}

// Host serves the drivers of one engine on this machine.
type Host struct {
	o        Options
	patience patience
	cage     *cage

	ctx  context.Context // ends with the host; driver processes hang on it
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex         // never held while the bus or a driver is asked
	drivers map[string]*hosted // by "kind/name"; guarded by mu
	missing map[string]string  // programs of those that are needed and not there; by "kind/name". Guarded by mu
	closed  bool               // no further drivers; guarded by mu
	epoch   uint64             // the highest seen; guarded by mu
}

// Start finds the drivers, ends what an earlier host has left of them, and
// takes steps.
func Start(o Options) (*Host, error) {
	mounts, err := linux.Hierarchies()
	if err != nil {
		return nil, err
	}
	return start(o, usual(), mounts)
}

func start(o Options, p patience, mounts []linux.Hierarchy) (*Host, error) {
	c, err := newCage(o.Config.Cgroup, mounts)
	if err != nil {
		return nil, err
	}
	h := &Host{o: o, patience: p, cage: c, drivers: make(map[string]*hosted), missing: make(map[string]string), epoch: o.Epoch}
	h.ctx, h.stop = context.WithCancel(context.Background())
	if err := h.find(); err != nil {
		h.Close(h.ctx)
		return nil, err
	}
	h.wg.Add(1)
	go h.rescan()
	return h, nil
}

// Close takes no more steps, lets the running ones end for as long as ctx lasts,
// then ends the drivers. Containers go on.
func (h *Host) Close(ctx context.Context) {
	h.mu.Lock()
	h.closed = true
	all := make([]*hosted, 0, len(h.drivers))
	for _, d := range h.drivers {
		all = append(all, d)
	}
	h.mu.Unlock()
	for _, d := range all {
		d.refuse()
	}
	for ctx.Err() == nil && slices.ContainsFunc(all, (*hosted).busy) {
		time.Sleep(closePoll)
	}
	h.stop() // whatever still runs, starts or waits for a start
	var wg sync.WaitGroup
	for _, d := range all {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := d.stop(context.WithoutCancel(ctx)); err != nil {
				d.log.Warn("stop a driver", "error", err)
			}
		}()
	}
	wg.Wait()
	h.wg.Wait()
	h.cage.remove()
}

// closePoll is how often Close looks whether steps still run.
const closePoll = 2 * time.Millisecond

func (h *Host) rescan() {
	defer h.wg.Done()
	t := time.NewTicker(h.patience.rescan)
	defer t.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
			if err := h.find(); err != nil {
				h.o.Log.Warn("look for drivers", "error", err)
			}
		}
	}
}

// find serves every driver on the path that is not served yet.
func (h *Host) find() error {
	for _, dir := range h.o.Path {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // a directory of the path need not exist
		}
		for _, e := range entries {
			kind, name, err := driver.ParseProgramName(e.Name())
			if err != nil || !slices.Contains(driver.Kinds(), kind) || strings.Contains(name, "/") {
				continue
			}
			if err := h.serve(kind, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// program is the first on the driver path that is the driver's. One that has
// vanished is named where it would have to be.
func (h *Host) program(kind, name string) string {
	file := driver.ProgramName(kind, name)
	for _, dir := range h.o.Path {
		path := filepath.Join(dir, file)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return filepath.Join(append(h.o.Path[:1:1], file)...)
}

// serve takes the steps of a driver that is not served yet. Only one goroutine
// at a time looks for drivers.
func (h *Host) serve(kind, name string) error {
	id := kind + "/" + name
	d := newHosted(h, kind, name)
	h.mu.Lock()
	if h.closed || h.drivers[id] != nil {
		h.mu.Unlock()
		return nil
	}
	h.drivers[id] = d
	h.mu.Unlock()
	serving, err := h.o.Bus.ServeSteps(kind, name, bus.StepHandlers{Step: d.take, Cancel: d.cancel, Ask: d.ask})
	if err != nil {
		h.mu.Lock()
		delete(h.drivers, id)
		h.mu.Unlock()
		return err
	}
	d.mu.Lock()
	d.serving = serving
	closed := d.closed
	d.mu.Unlock()
	if closed {
		serving.Close()
	}
	h.mu.Lock()
	path, needed := h.missing[id]
	delete(h.missing, id)
	h.mu.Unlock()
	if needed {
		h.Need(kind, name, path)
	}
	return nil
}

// Need starts a driver before its first step: one that must watch what it holds,
// as the exec driver does when containers run. path is its program if that was
// replaced, else empty. One that is not on the driver path is started as soon as it is.
func (h *Host) Need(kind, name, path string) {
	h.mu.Lock()
	d := h.drivers[kind+"/"+name]
	if d == nil {
		h.missing[kind+"/"+name] = path
	}
	h.mu.Unlock()
	if d == nil {
		h.o.Log.Warn("a driver that holds something is not on the driver path", "driver", kind+"/"+name)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	h.wg.Add(1)
	stops := d.stops
	go func() {
		defer h.wg.Done()
		d.keepUp(path, 0, stops)
	}()
}

// current reports whether epoch is that of the engine that runs now.
func (h *Host) current(epoch uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epoch = max(h.epoch, epoch)
	return epoch == h.epoch
}
