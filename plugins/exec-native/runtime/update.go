package runtime

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
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
	return 0, c.limit(ctx, group, r)
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
		"pids-limit": "number of tasks; -1 for no limit",
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
	n, err := parseBytes(text)
	if name == "cpuset-cpus" || name == "cpuset-mems" {
		err = nil
	}
	if err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "%s %q: %w", name, text, err)
	}
	unsigned := uint64(n)
	weight := uint16(n)
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
	case "cpuset-cpus":
		r.CPU.Cpus = text
	case "cpuset-mems":
		r.CPU.Mems = text
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

// parseBytes reads a number with a unit: 64m.
func parseBytes(text string) (int64, error) {
	shift := 0
	if text != "" {
		switch text[len(text)-1] {
		case 'k', 'K':
			shift = 10
		case 'm', 'M':
			shift = 20
		case 'g', 'G':
			shift = 30
		}
	}
	if shift > 0 {
		text = text[:len(text)-1]
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n<<shift>>shift != n {
		return 0, fmt.Errorf("want a number, with k, m or g")
	}
	return n << shift, nil
}
