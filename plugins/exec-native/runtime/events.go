package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
)

// event is one line of the command events, as runc writes it.
type event struct {
	Type string   `json:"type"` // "stats" or "oom"
	ID   string   `json:"id"`
	Data *figures `json:"data,omitempty"`
}

// figures are what a container uses, in runc's words. Times are in nanoseconds,
// sizes in bytes.
type figures struct {
	CPU     cpuUsage             `json:"cpu"`
	Memory  memoryUsage          `json:"memory"`
	Pids    pidsUsage            `json:"pids"`
	BlockIO map[string][]ioEntry `json:"blkio"`
	Hugetlb map[string]amount    `json:"hugetlb"`
	RDT     *classUsage          `json:"intel_rdt,omitempty"`
}

type cpuUsage struct {
	Usage struct {
		Total  uint64   `json:"total"`
		PerCPU []uint64 `json:"percpu,omitempty"`
		Kernel uint64   `json:"kernel"`
		User   uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods,omitempty"`
		ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
		ThrottledTime    uint64 `json:"throttledTime,omitempty"`
	} `json:"throttling"`
}

type amount struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type memoryUsage struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     amount            `json:"usage"`
	Swap      amount            `json:"swap"`
	KernelTCP amount            `json:"kernelTCP"`
	Kernel    amount            `json:"kernel"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
}

type pidsUsage struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

type ioEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

// runEvents is the command events.
func runEvents(ctx context.Context, g *globals, args []string) (int, error) {
	fs := newFlags("events")
	var once bool
	interval := fs.Duration("interval", 5*time.Second, "time between two looks")
	fs.BoolVar(&once, "stats", false, "look once")
	ids, err := parse(fs, g, args, 1, 1)
	if err != nil {
		return exitUsage, err
	}
	if *interval <= 0 {
		return exitUsage, errclass.Errorf(errdefs.ErrInvalidArgument, "interval %v: want more than 0", *interval)
	}
	c, err := load(g, ids[0])
	if err == nil {
		err = c.notRunning()
	}
	if err != nil {
		return exitFailed, err
	}
	group, err := c.group()
	if err != nil {
		return exitFailed, err
	}
	defer group.Close()
	if once {
		u, err := c.look(group.Stats(cgroup.AskAll))
		if err != nil {
			return exitFailed, err
		}
		return 0, say(event{"stats", c.ID, u})
	}
	return 0, c.watch(ctx, group, *interval)
}

// watch tells figures and lacks of memory until the container has ended.
func (c *container) watch(ctx context.Context, group *cgroup.Group, interval time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pidfd := c.Init.open()
	if pidfd == nil {
		return nil
	}
	defer pidfd.Close()
	ooms := make(chan struct{})
	go tellOOMs(ctx, group, ooms)
	meter := group.Meter(cgroup.AskAll)
	defer meter.Close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		awaitPidfd(ctx, pidfd)
	}()
	for {
		select {
		case <-ended:
			return nil
		case <-ooms:
			if err := say(event{"oom", c.ID, nil}); err != nil {
				return err
			}
		case <-tick.C:
			u, err := c.look(meter.Read())
			if errors.Is(err, errdefs.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := say(event{"stats", c.ID, u}); err != nil {
				return err
			}
		}
	}
}

// tellOOMs tells each time that processes were killed for want of memory.
func tellOOMs(ctx context.Context, group *cgroup.Group, tell chan<- struct{}) {
	w, err := group.WatchOOM()
	if err != nil {
		return // no memory controller: nothing is killed for it
	}
	defer w.Close()
	for {
		if _, gone, err := w.Wait(ctx); gone || err != nil {
			return
		}
		select {
		case tell <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// say writes one event.
func say(e event) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout(), "%s\n", text); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return nil
}

// look puts figures into runc's words.
func (c *container) look(s cgroup.Stats, err error) (*figures, error) {
	if err != nil {
		return nil, err
	}
	u := &figures{BlockIO: map[string][]ioEntry{}, Hugetlb: map[string]amount{}}
	if u.RDT, err = c.classUsage(); err != nil {
		return nil, err
	}
	u.CPU.Usage.Total, u.CPU.Usage.User, u.CPU.Usage.Kernel = uint64(s.CPU.Total), uint64(s.CPU.User), uint64(s.CPU.System)
	for _, t := range s.CPU.PerCPU {
		u.CPU.Usage.PerCPU = append(u.CPU.Usage.PerCPU, uint64(t))
	}
	u.CPU.Throttling.Periods, u.CPU.Throttling.ThrottledPeriods = s.CPU.Periods, s.CPU.Throttled
	u.CPU.Throttling.ThrottledTime = uint64(s.CPU.ThrottledTime)
	m := s.Memory
	u.Memory = memoryUsage{
		Cache: m.Cache, Raw: m.Detail, Kernel: amount{Usage: m.Kernel}, KernelTCP: amount{Usage: m.KernelTCP},
		Usage: amount{Limit: m.Limit, Usage: m.Usage, Max: m.Peak, Failcnt: m.Failures},
		Swap:  amount{Limit: m.LimitWithSwap, Usage: m.UsageWithSwap, Max: m.PeakWithSwap, Failcnt: m.SwapFailures},
	}
	u.Pids = pidsUsage{Current: s.Pids.Current, Limit: s.Pids.Limit}
	if s.Pids.Limit == cgroup.NoLimit {
		u.Pids.Limit = 0 // runc's word for none
	}
	for _, d := range s.IO {
		for _, e := range []struct {
			list, op string
			value    uint64
		}{
			{"ioServiceBytesRecursive", "Read", d.ReadBytes}, {"ioServiceBytesRecursive", "Write", d.WriteBytes},
			{"ioServicedRecursive", "Read", d.Reads}, {"ioServicedRecursive", "Write", d.Writes},
		} {
			u.BlockIO[e.list] = append(u.BlockIO[e.list], ioEntry{d.Major, d.Minor, e.op, e.value})
		}
	}
	for _, h := range s.Huge {
		u.Hugetlb[h.Size] = amount{Limit: h.Limit, Usage: h.Usage, Max: h.Peak, Failcnt: h.Failures}
	}
	return u, nil
}
