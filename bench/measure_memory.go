package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	manyContainers = 200
	settle         = 3 * time.Second
	kernelStack    = 16 // kB for each thread (THREAD_SIZE on x86_64 and arm64)
)

// measureMemory counts what gantry needs: a fresh engine with one container on a
// bridge and one without a network, then with many.
func measureMemory(ctx context.Context, r *rig) (figures []figure, err error) {
	name := r.name + "-m"
	d, _, err := r.start(ctx, name, filepath.Join(r.scratch, "mem"), filepath.Join(r.run, "m"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if out, err := r.gantry(d, "load", "-i", r.image.archive).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("load the image: %w\n%s", err, out)
	}
	var ids []string
	defer func() { err = errors.Join(err, r.removeAll(d, ids)) }()
	run := func(network string) error {
		out, err := r.gantry(d, "run", "-d", "--network", network, imageName, "sleep", "100000").Output()
		ids = append(ids, strings.TrimSpace(string(out)))
		return err
	}
	// The second one starts the driver of the network that the many are on, which is
	// no cost of each. Both start before the engine settles after its own start.
	for _, network := range []string{"bridge", "none"} {
		if err := run(network); err != nil {
			return nil, fmt.Errorf("run a container: %w", err)
		}
	}
	time.Sleep(settle)
	few, err := treeOf(d.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	figures = append(figures, memoryFigure(few))
	for range manyContainers - len(ids) {
		if err := run("none"); err != nil {
			return nil, fmt.Errorf("run container %d: %w", len(ids), err)
		}
	}
	time.Sleep(settle)
	many, err := treeOf(d.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	shims, err := processesOf(func(p proc) bool { return p.name == shimName && p.inCgroup("/gantry-"+name+"/") })
	if err != nil {
		return nil, err
	}
	each := float64(sumPSS(many)-sumPSS(few)) / (manyContainers - 2)
	return append(figures, shimFigure(shims), figure{
		name: fmt.Sprintf("gantryd and its drivers, more for each of %d containers", manyContainers),
		goal: "≤ 40 kB PSS", met: each <= 40, got: fmt.Sprintf("%.0f kB (%s in all)", each, mb(sumPSS(many))),
		detail: append([]string{fmt.Sprintf("- by two containers, with the same drivers running: %s in all", mb(sumPSS(few))), ""}, table(many)...),
	}), nil
}

func memoryFigure(all []proc) figure {
	return figure{
		name: "gantryd and its drivers, a container running on a bridge and one without a network", goal: "≤ 60 MB PSS", met: sumPSS(all) <= 60<<10,
		got: mb(sumPSS(all)), detail: table(all),
	}
}

func shimFigure(shims []proc) figure {
	f := figure{name: fmt.Sprintf("a shim, with %d containers running", manyContainers), goal: "≤ 64 kB PSS, one thread"}
	if len(shims) == 0 {
		f.got = "no shim was found"
		return f
	}
	threads, most, tables := 0, 0, 0
	for _, p := range shims {
		threads, most, tables = max(threads, p.threads), max(most, p.pss), tables+p.tables
	}
	mean := float64(sumPSS(shims)) / float64(len(shims))
	f.met = mean <= 64 && threads == 1 && len(shims) >= manyContainers
	f.got = fmt.Sprintf("%.0f kB PSS, %d thread", mean, threads)
	f.detail = []string{
		fmt.Sprintf("- mean of %d shims (the driver keeps one or two started ahead); the largest %d kB", len(shims), most),
		fmt.Sprintf("- beside that, in the kernel, for each: page tables %d kB, stacks %d kB", tables/len(shims), threads*kernelStack),
	}
	return f
}

func mb(kb int) string { return fmt.Sprintf("%.1f MB", float64(kb)/1024) }

func table(all []proc) []string {
	lines := []string{"| process | PSS | private dirty | threads |", "|---|---|---|---|"}
	for _, p := range all {
		lines = append(lines, fmt.Sprintf("| %s | %s | %s | %d |", p.name, mb(p.pss), mb(p.dirty), p.threads))
	}
	return lines
}

// removeAll removes the containers, a few at a time.
func (r *rig) removeAll(d *daemon, ids []string) error {
	var errs []error
	for group := range slices.Chunk(ids, 20) {
		if out, err := r.gantry(d, append([]string{"rm", "-f"}, group...)...).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("remove containers: %w\n%s", err, out))
		}
	}
	return errors.Join(errs...)
}

// proc is one process.
type proc struct {
	pid, parent int
	name        string
	args        string
	pss, dirty  int // kB
	tables      int // kB, page tables
	threads     int
}

// shimName is what a shim calls itself.
const shimName = "gantry-shim"

// inCgroup reports whether the process is below a path in some hierarchy.
func (p proc) inCgroup(path string) bool {
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.pid))
	return err == nil && strings.Contains(string(groups), path)
}

// treeOf is gantryd and its drivers, which are its children. Shims outlive them
// and are counted by themselves.
func treeOf(pid int) ([]proc, error) {
	below := map[int]bool{pid: true}
	return processesOf(func(p proc) bool {
		if below[p.pid] || below[p.parent] && p.name != shimName {
			below[p.pid] = true
			return true
		}
		return false
	})
}

// processesOf lists those that want chooses, by pid. Kernels give parents the
// smaller pids until they wrap; pids that wrap are not our trouble here.
func processesOf(want func(proc) bool) ([]proc, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	var chosen []proc
	for _, pid := range pids {
		p, err := process(pid)
		if err != nil || !want(p) {
			continue // it has ended meanwhile
		}
		if err := p.measure(); err == nil {
			chosen = append(chosen, p)
		}
	}
	return chosen, nil
}

// statFields are those of /proc/PID/stat behind the name.
func statFields(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:])), nil
}

func process(pid int) (proc, error) {
	p := proc{pid: pid}
	fields, err := statFields(pid)
	if err != nil {
		return p, err
	}
	p.parent, _ = strconv.Atoi(fields[1])
	p.threads, _ = strconv.Atoi(fields[17])
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	p.args = strings.ReplaceAll(string(args), "\x00", " ")
	first, _, _ := strings.Cut(p.args, " ")
	p.name = filepath.Base(first)
	return p, err
}

// measure reads what the process has in memory.
func (p *proc) measure() error {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid))
	if err != nil {
		return err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data) + string(status)) {
		name, rest, _ := strings.Cut(line, ":")
		kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		switch name {
		case "Pss":
			p.pss = kb
		case "Private_Dirty":
			p.dirty = kb
		case "VmPTE":
			p.tables = kb
		}
	}
	return nil
}

func sumPSS(all []proc) int {
	sum := 0
	for _, p := range all {
		sum += p.pss
	}
	return sum
}
