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

// rescan is how often the driver path is looked through for new programs.
const rescan = 5 * time.Second

// Host serves the drivers of one engine on this machine.
type Host struct {
	o    Options
	cage *cage

	ctx  context.Context // ends with the host; driver processes hang on it
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	drivers map[string]*hosted // by "kind/name"; guarded by mu
	epoch   uint64             // the highest seen; guarded by mu
}

// Start finds the drivers, ends what an earlier host has left of them, and
// takes steps.
func Start(o Options) (*Host, error) {
	c, err := newCage(o.Config.Cgroup)
	if err != nil {
		return nil, err
	}
	h := &Host{o: o, cage: c, drivers: make(map[string]*hosted), epoch: o.Epoch}
	h.ctx, h.stop = context.WithCancel(context.Background())
	if err := h.find(); err != nil {
		h.stop()
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
			d.stop(context.WithoutCancel(ctx))
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
	t := time.NewTicker(rescan)
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
			if err := h.serve(kind, name, filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *Host) serve(kind, name, path string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := kind + "/" + name
	if h.drivers[id] != nil {
		return nil
	}
	d := newHosted(h, kind, name, path)
	serving, err := h.o.Bus.ServeSteps(kind, name, bus.StepHandlers{Step: d.take, Cancel: d.cancel})
	if err != nil {
		return err
	}
	d.serving = serving
	h.drivers[id] = d
	return nil
}

// Need starts a driver before its first step: one that must watch what it holds,
// as the exec driver does when containers run. path is its program if that was
// replaced, else empty.
func (h *Host) Need(kind, name, path string) {
	h.mu.Lock()
	d := h.drivers[kind+"/"+name]
	h.mu.Unlock()
	if d == nil {
		h.o.Log.Warn("a driver that holds something is not on the driver path", "driver", kind+"/"+name)
		return
	}
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		for h.ctx.Err() == nil {
			p, err := d.instance(h.ctx, path)
			if err == nil {
				p.calls.Done()
				return
			}
			d.log.Warn("start a driver", "error", err)
		}
	}()
}

// current reports whether epoch is that of the engine that runs now.
func (h *Host) current(epoch uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epoch = max(h.epoch, epoch)
	return epoch == h.epoch
}
