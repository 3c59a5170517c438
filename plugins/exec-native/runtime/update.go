package runtime

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// runUpdate is the command update: limits by flags, or as JSON from a file.
func runUpdate(ctx context.Context, g *globals, args []string) (int, error) {
	fs := newFlags("update")
	var file string
	both(fs, "resources", "r", func(n string) { fs.StringVar(&file, n, "", "file with linux.resources as JSON; - is standard input") })
	u := defineLimits(fs)
	ids, err := parse(fs, g, args, 1, 1)
	if err != nil {
		return exitUsage, err
	}
	r := &specs.LinuxResources{}
	if file != "" {
		if r, err = readResources(file); err != nil {
			return exitFailed, err
		}
	} else if r, err = u.resources(fs); err != nil {
		return exitUsage, err
	}
	c, lock, err := open(g, ids[0])
	if err != nil {
		return exitFailed, err
	}
	defer lock.Close()
	if !c.Init.alive() {
		return exitFailed, errclass.Errorf(errdefs.ErrFailedPrecondition, "container %s is not running", c.ID)
	}
	group, err := c.group()
	if err != nil {
		return exitFailed, err
	}
	defer group.Close()
	if err := c.checkClass(*u["l3-cache-schema"], *u["mem-bw-schema"]); err != nil {
		return exitFailed, err
	}
	if err := c.limit(ctx, group, r); err != nil {
		return exitFailed, err
	}
	return 0, c.updateClass(*u["l3-cache-schema"], *u["mem-bw-schema"])
}

// readResources reads limits from a file.
func readResources(file string) (*specs.LinuxResources, error) {
	in := io.Reader(os.Stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read resources: %w", err)
		}
		defer f.Close()
		in = f
	}
	var r specs.LinuxResources
	if err := json.NewDecoder(io.LimitReader(in, longestConfig)).Decode(&r); err != nil {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "decode resources: %w", err)
	}
	return &r, nil
}

// limitFlags are the values of update's flags by their names.
type limitFlags map[string]*string

// limitHelp says what update's flags change.
func limitHelp() map[string]string {
	return map[string]string{
		"blkio-weight": "weight of block input and output, 10 to 1000",
		"cpu-period":   "microseconds of a scheduling period", "cpu-quota": "microseconds of a period that may be used; -1 for all",
		"cpu-burst": "microseconds that may be saved up", "cpu-share": "weight of processor time", "cpu-idle": "1: run only when nothing else does",
		"cpu-rt-period": "microseconds of a realtime period", "cpu-rt-runtime": "microseconds of it that may be used",
		"cpuset-cpus": "processors, 0-3,7", "cpuset-mems": "memory nodes, 0-3,7",
		"memory": "bytes (k, m, g); -1 for no limit", "memory-reservation": "bytes (k, m, g); -1 for none",
		"memory-swap":   "bytes of memory and swap (k, m, g); -1 for no limit",
		"kernel-memory": "bytes of kernel memory", "kernel-memory-tcp": "bytes of kernel memory for TCP",
		"pids-limit":      "number of tasks; -1 for no limit",
		"l3-cache-schema": "share of the last level cache, L3:0=7ff;1=7f", "mem-bw-schema": "share of the memory's bandwidth, MB:0=50",
	}
}

func defineLimits(fs *flag.FlagSet) limitFlags {
	u := limitFlags{}
	for name, help := range limitHelp() {
		u[name] = fs.String(name, "", help)
	}
	return u
}

// resources states the flags that were given.
func (u limitFlags) resources(fs *flag.FlagSet) (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}}
	var errs error
	fs.Visit(func(f *flag.Flag) {
		if text, ok := u[f.Name]; ok && errs == nil {
			errs = setLimit(r, f.Name, *text)
		}
	})
	if *r.CPU == (specs.LinuxCPU{}) {
		r.CPU = nil
	}
	if *r.Memory == (specs.LinuxMemory{}) {
		r.Memory = nil
	}
	return r, errs
}

// setLimit sets one limit by the name of its flag.
func setLimit(r *specs.LinuxResources, name, text string) error {
	switch name {
	case "cpuset-cpus":
		r.CPU.Cpus = text
		return nil
	case "cpuset-mems":
		r.CPU.Mems = text
		return nil
	case "l3-cache-schema", "mem-bw-schema": // of no cgroup
		return nil
	}
	n, err := limitOf(name, text)
	if err != nil {
		return err
	}
	unsigned, weight := uint64(n), uint16(n)
	switch name {
	case "blkio-weight":
		r.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
	case "cpu-period":
		r.CPU.Period = &unsigned
	case "cpu-quota":
		r.CPU.Quota = &n
	case "cpu-burst":
		r.CPU.Burst = &unsigned
	case "cpu-share":
		r.CPU.Shares = &unsigned
	case "cpu-idle":
		r.CPU.Idle = &n
	case "cpu-rt-period":
		r.CPU.RealtimePeriod = &unsigned
	case "cpu-rt-runtime":
		r.CPU.RealtimeRuntime = &n
	case "memory":
		r.Memory.Limit = &n
	case "memory-reservation":
		r.Memory.Reservation = &n
	case "memory-swap":
		r.Memory.Swap = &n
	case "kernel-memory":
		//lint:ignore SA1019 a deprecated limit must be refused by name, so it must be passed on
		r.Memory.Kernel = &n
	case "kernel-memory-tcp":
		r.Memory.KernelTCP = &n
	case "pids-limit":
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	return nil
}

// limitOf reads a limit's number. What goes into a narrower type must fit: the
// check that comes later would see something else.
func limitOf(name, text string) (n int64, err error) {
	refuse := func(want string) (int64, error) {
		return 0, errclass.Errorf(errdefs.ErrInvalidArgument, "%s %q: want %s", name, text, want)
	}
	switch name {
	case "memory", "memory-reservation", "memory-swap", "kernel-memory", "kernel-memory-tcp":
		n, ok := cgroup.ParseBytes(text)
		if !ok {
			return refuse("a number of bytes, with k, m, g or t")
		}
		return n, nil
	}
	if n, err = strconv.ParseInt(text, 10, 64); err != nil {
		return refuse("a number")
	}
	switch name {
	case "blkio-weight":
		if n < 0 || n > math.MaxUint16 {
			return refuse("10 to 1000")
		}
	case "cpu-period", "cpu-burst", "cpu-share", "cpu-rt-period":
		if n < 0 {
			return refuse("0 or more")
		}
	}
	return n, nil
}
