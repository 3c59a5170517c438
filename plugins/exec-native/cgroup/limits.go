package cgroup

import (
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Write is one value for one file of a group.
type Write struct {
	Field      string // the field of the specification it comes from: "memory.limit"
	Controller string // decides the hierarchy
	Unified    bool   // of version 2
	File       string
	Value      string // empty: nothing is written, the file is only looked at
	Key        string // of a file with a line for each device: that line's first word
	Back       string // what the file, or the line's rest, must say afterwards; empty to not look
	Rule       rule   // how Back is compared
	Reset      string // undoes the first write of a line: what to write where Key had no line
	Optional   bool   // leave out where the kernel has no such file: it is so anyway
}

// rule says how what a file says is compared with what was asked for.
type rule uint8

const (
	sameText rule = iota // the whole text, after the kernel's rounding
	sameList             // a list of processors or nodes, in any spelling
	sameLine             // the line of Key has all words of Back; without a line all are defaults
	sameSet              // the same lines, in any order
	sameAny              // whatever the file is: used for unified, where the caller names files
)

// view is what is known of a group before it is written to.
type view struct {
	fresh   bool                                 // the group is new, and nothing was ever written to it
	version func(controller string) int          // 1, 2, or 0 where no hierarchy has the controller
	has     func(controller, file string) bool   // whether groups here have the file
	now     func(controller, file string) string // what it says at present; of a new group ""
}

// limits collects what has to be written for a specification's resources.
//
// A number that is zero where zero is no possible limit means "not set", as
// runc's update reads it: its documented input names every field.
type limits struct {
	view
	page int64 // in bytes: limits are kept in whole pages
	out  []Write
	err  error // the first refusal
}

// plan computes what the kernel has to be told, in order. It fails with
// NotImplemented where this machine cannot, with InvalidArgument where nothing
// could.
func plan(r *specs.LinuxResources, v view) ([]Write, error) {
	l := &limits{view: v, page: int64(os.Getpagesize())}
	if r.Memory != nil {
		l.memory(r.Memory)
	}
	if r.CPU != nil {
		l.cpu(r.CPU)
		l.cpuset(r.CPU)
	}
	if r.Pids != nil {
		l.pids(r.Pids)
	}
	if r.BlockIO != nil {
		l.blockIO(r.BlockIO)
	}
	l.hugetlb(r.HugepageLimits)
	if r.Network != nil {
		l.network(r.Network)
	}
	l.rdma(r.Rdma)
	l.devices(r.Devices)
	l.unified(r.Unified)
	if l.err != nil {
		return nil, l.err
	}
	return l.out, nil
}

// on reports the version of the hierarchy that has the controller, under its
// name in version 1 or 2, and refuses the field where none has.
func (l *limits) on(field, v1, v2 string) int {
	if v1 != "" && l.version(v1) == 1 {
		return 1
	}
	if v2 != "" && l.version(v2) == 2 {
		return 2
	}
	switch {
	case v2 == "":
		l.lack(field, "only cgroup version 1 has it, in the controller "+v1+", which is not mounted here")
	case v1 == "" || v1 == v2:
		l.lack(field, "no cgroup controller "+v2+" is there for groups of this place")
	default:
		l.lack(field, "no cgroup controller "+v1+" or "+v2+" is there for groups of this place")
	}
	return 0
}

// add appends a write if groups here have its file. A file that is missing
// refuses the field by name, unless what is asked for holds without it.
func (l *limits) add(w Write) {
	if l.has(w.Controller, w.File) {
		l.out = append(l.out, w)
		return
	}
	if !w.Optional {
		l.lack(w.Field, "this kernel has no "+w.File)
	}
}

// lack refuses a field that this machine does not serve.
func (l *limits) lack(field, why string) {
	if l.err == nil {
		l.err = errclass.Errorf(errdefs.ErrNotImplemented, "resource limit %s: %s", field, why)
	}
}

// invalid refuses a field's value.
func (l *limits) invalid(field, format string, args ...any) {
	if l.err == nil {
		args = append([]any{field}, args...)
		l.err = errclass.Errorf(errdefs.ErrInvalidArgument, "resource limit %s: "+format, args...)
	}
}

// number is what a file says at present as a number; false where it says none,
// "max" included.
func (l *limits) number(controller, file string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(l.now(controller, file)), 10, 64)
	return n, err == nil
}

func number(n int64) string    { return strconv.FormatInt(n, 10) }
func unsigned(n uint64) string { return strconv.FormatUint(n, 10) }

// pages rounds bytes down to whole pages of the given size, as the kernel does
// with limits that it keeps (mm/page_counter.c).
func pages(n, page int64) string { return number(n / page * page) }

// unlimited is how version 1 spells no limit of bytes (PAGE_COUNTER_MAX).
func unlimited(page int64) string { return pages(math.MaxInt64, page) }

// mostBytes is where a page counter ends: "max" in version 2.
func mostBytes(page int64) int64 { return math.MaxInt64 / page * page }

// ParseList reads a list of processors or memory nodes, "0-3,7", sorted and each
// once; false for what is none.
func ParseList(s string) ([]int, bool) {
	var out []int
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || a < 0 || b < a || b-a > 1<<16 {
			return nil, false
		}
		for n := a; n <= b; n++ {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), true
}
