package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Ask says which figures are wanted: each costs reads of its own, and the
// kernel gathers some (memory.stat) when they are read.
type Ask uint8

// What can be asked for.
const (
	AskCPU Ask = 1 << iota
	AskPerCPU
	AskMemory
	AskIO
	AskPids
	AskHuge
	AskPressure
	AskDetail // every line of memory.stat, in Memory.Detail

	// AskColumns is what a table of containers shows.
	AskColumns = AskCPU | AskMemory | AskIO | AskPids
	// AskAll is everything.
	AskAll = AskColumns | AskPerCPU | AskHuge | AskPressure | AskDetail
)

// Stats is what a group and those below it have used. What this machine does
// not count is zero.
type Stats struct {
	CPU      CPU
	Memory   Memory
	IO       []DiskIO // by device, in the kernel's order
	Pids     Pids
	Huge     []Huge
	Pressure Pressure
}

// CPU is time of processors since the group was made.
type CPU struct {
	Total, User, System time.Duration
	PerCPU              []time.Duration // of version 1 alone
	Periods             uint64          // scheduling periods with a quota
	Throttled           uint64          // of these, in which the quota ran out
	ThrottledTime       time.Duration
	Bursts              uint64 // version 2: periods in which saved time was used
	BurstTime           time.Duration
}

// NoLimit stands for a limit that is not set.
const NoLimit = 1<<64 - 1

// Memory is in bytes. Usage counts the page cache; what is free to be dropped
// of it is InactiveFile.
type Memory struct {
	Usage, Peak, Limit    uint64 // Limit: NoLimit without one
	Failures              uint64 // times the limit was met
	Cache, RSS            uint64
	ActiveFile            uint64
	InactiveFile          uint64
	Mapped                uint64 // of the page cache
	Kernel                uint64 // for the kernel's own objects
	Swap, SwapLimit       uint64 // swap alone, in both versions
	SwapFailures          uint64
	OOMKills              uint64
	Faults, MajorFaults   uint64 // of pages
	Detail                map[string]uint64
	UsageWithSwap         uint64 // version 1's own counter of the sum; version 2: added up
	PeakWithSwap          uint64 // version 1
	LimitWithSwap         uint64 // version 1; NoLimit without one
	KernelTCP             uint64
	OOMDisabled, UnderOOM bool // version 1
}

// DiskIO is what went to and from one block device.
type DiskIO struct {
	Major, Minor                        uint64
	ReadBytes, WriteBytes, DiscardBytes uint64
	Reads, Writes, Discards             uint64 // operations
}

// Pids are numbers of tasks.
type Pids struct {
	Current, Limit uint64 // Limit: NoLimit without one
	Failures       uint64 // forks refused
}

// Huge is the use of huge pages of one size, in bytes.
type Huge struct {
	Size               string // "2MB"
	Usage, Peak, Limit uint64
	Failures           uint64
}

// Pressure says how much time was lost waiting (accounting/psi.rst). Zero where
// the kernel does not count it.
type Pressure struct {
	CPU, Memory, IO Stall
}

// Stall is the waiting for one resource: of some of the tasks, and of all.
type Stall struct{ Some, Full Waiting }

// Waiting is a share of time in percent over the last seconds, and the total.
type Waiting struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}

// Stats reads what is asked for. NotFound: there is no such group.
//
// Files are opened for each reading: opening costs a fifth of it, and kept ones
// would hold five thousand descriptors and a page of the kernel's memory each
// for two hundred containers (docs/benchmarks.md says what was measured).
func (g *Group) Stats(what Ask) (Stats, error) {
	if err := g.check(); err != nil {
		return Stats{}, err
	}
	r := &reader{g: g, what: what}
	var s Stats
	if what&(AskCPU|AskPerCPU) != 0 {
		r.cpu(&s.CPU)
	}
	if what&(AskMemory|AskDetail) != 0 {
		r.memory(&s.Memory)
	}
	if what&AskIO != 0 {
		r.io(&s)
	}
	if what&AskPids != 0 {
		r.pids(&s.Pids)
	}
	if what&AskHuge != 0 {
		r.huge(&s)
	}
	if what&AskPressure != 0 {
		r.pressure(&s.Pressure)
	}
	if r.err == nil && r.read == 0 {
		if there, err := g.Exists(); err != nil || !there {
			return Stats{}, errclass.Errorf(errdefs.ErrNotFound, "cgroup %s is not there", g.full())
		}
	}
	return s, r.err
}

// Exists reports whether any hierarchy has the group.
func (g *Group) Exists() (bool, error) {
	if err := g.check(); err != nil {
		return false, err
	}
	for _, d := range g.p.dirs {
		if isThere(int(d.f.Fd()), g.name) {
			return true, nil
		}
	}
	return false, nil
}

// reader reads the files of one group. It keeps the first error; a file that
// is not there is none.
type reader struct {
	g    *Group
	what Ask
	buf  [16 << 10]byte
	read int // files that were there
	err  error
}

// file reads one file; nil where it is not there. The bytes are good until the
// next call.
func (r *reader) file(d dir, name string) []byte {
	if r.err != nil {
		return nil
	}
	fd, err := openAt(int(d.f.Fd()), filepath.Join(r.g.name, name), unix.O_RDONLY)
	if isGone(err) {
		return nil
	}
	if err != nil {
		r.err = fmt.Errorf("open %s of cgroup %s: %w", name, r.g.full(), err)
		return nil
	}
	defer unix.Close(fd)
	at := 0
	for at < len(r.buf) {
		var n int
		err := again(func() (err error) {
			n, err = unix.Read(fd, r.buf[at:])
			return err
		})
		if isGone(err) || errors.Is(err, unix.EOPNOTSUPP) { // removed this moment; pressure switched off
			return nil
		}
		if err != nil {
			r.err = fmt.Errorf("read %s of cgroup %s: %w", name, r.g.full(), err)
			return nil
		}
		if n == 0 {
			break
		}
		at += n
	}
	r.read++
	return r.buf[:at]
}

// number reads a file of one number; "max" is NoLimit.
func (r *reader) number(d dir, name string) uint64 {
	n, _ := firstNumber(r.file(d, name))
	return n
}
