package execnative

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// meterLife is how long the files of a run stay open that was measured. Whoever
// watches asks once a second; then they are read, never opened.
const meterLife = 5 * time.Second

// meters are the open files of runs that somebody watches.
type meters struct {
	mu   sync.Mutex // guards what follows, and orders the measures
	open map[*run]*cgroup.Meter
	end  *time.Timer // closes them all
}

// Stats implements execdriver.Meter.
func (d *native) Stats(ctx context.Context, keys []execdriver.Key) ([]execdriver.Stats, error) {
	d.meters.mu.Lock()
	defer d.meters.mu.Unlock()
	out := make([]execdriver.Stats, 0, len(keys))
	for _, k := range keys {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := d.running(k)
		if err != nil {
			continue // it has ended, or never was
		}
		s, err := d.measure(r)
		switch {
		case errdefs.IsNotFound(err): // meanwhile
		case err != nil:
			return nil, fmt.Errorf("measure %s: %w", what(k), err)
		default:
			out = append(out, s)
		}
	}
	d.closeEnded()
	if d.meters.end == nil {
		d.meters.end = time.AfterFunc(meterLife, d.closeMeters)
	} else {
		d.meters.end.Reset(meterLife)
	}
	return out, nil
}

// closeEnded lets go of the files of runs that have ended: whoever asks once a
// second would keep them for ever. d.meters.mu is held.
func (d *native) closeEnded() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for r, m := range d.meters.open {
		if r.state != running {
			m.Close()
			delete(d.meters.open, r)
		}
	}
}

// closeMeters lets go of the files.
func (d *native) closeMeters() {
	d.meters.mu.Lock()
	defer d.meters.mu.Unlock()
	for _, m := range d.meters.open {
		m.Close()
	}
	clear(d.meters.open)
}

// measure reads what a run uses. d.meters.mu is held.
func (d *native) measure(r *run) (execdriver.Stats, error) {
	m := d.meters.open[r]
	if m == nil {
		m = d.group(r).Meter(cgroup.AskColumns | cgroup.AskMore)
		d.meters.open[r] = m
	}
	got, err := m.Read()
	if err != nil {
		m.Close()
		delete(d.meters.open, r)
		return execdriver.Stats{}, err
	}
	s := execdriver.Stats{
		Key: r.key, Time: time.Now(), CPUs: runtime.NumCPU(),
		CPU: got.CPU.Total, CPUUser: got.CPU.User, CPUSystem: got.CPU.System,
		ThrottledTime: got.CPU.ThrottledTime, Throttled: got.CPU.Throttled, Periods: got.CPU.Periods,
		MemoryBytes: int64(got.Memory.Usage), MemoryInactive: int64(got.Memory.InactiveFile),
		MemoryLimit: limit(got.Memory.Limit), MemoryMax: int64(got.Memory.Peak), OOMKills: got.Memory.OOMKills,
		Pids: int64(got.Pids.Current), PidsLimit: limit(got.Pids.Limit),
	}
	for _, io := range got.IO {
		s.ReadBytes += io.ReadBytes
		s.WriteBytes += io.WriteBytes
		s.ReadOps += io.Reads
		s.WriteOps += io.Writes
	}
	if !r.set.HostNetwork {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", r.started.PID))
		if err == nil { // else it is just ending
			s.Interfaces = parseInterfaces(text)
		}
	}
	return s, nil
}

// limit is a limit as the contract tells it: 0 for none.
func limit(n uint64) int64 {
	if n == cgroup.NoLimit {
		return 0
	}
	return int64(n)
}

// parseInterfaces reads /proc/PID/net/dev (net/core/net-procfs.c), without
// loopback.
func parseInterfaces(text []byte) []execdriver.InterfaceStats {
	var out []execdriver.InterfaceStats
	for line := range bytes.Lines(text) {
		name, rest, ok := strings.Cut(string(line), ":")
		f := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(f) < 12 {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return v }
		out = append(out, execdriver.InterfaceStats{
			Name:    name,
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDrops: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDrops: n(11),
		})
	}
	return out
}
