package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// floorCase is what the driver is compared with: a whole life in a network
// namespace that was made before.
const floorCase = "prepared/v1"

// floorResult is a line of the program.
type floorResult struct {
	Case             string
	Min, Median, P95 float64 // microseconds
}

// floor is the small C program that makes the kernel's calls and nothing else.
type floor struct {
	r            *rig
	program, dir string
}

// buildFloor compiles it.
func (r *rig) buildFloor(ctx context.Context) (floor, error) {
	f := floor{r, filepath.Join(r.scratch, "floor"), filepath.Join(r.scratch, "floor.d")}
	sources, err := filepath.Glob("bench/floor/*.c")
	if err != nil {
		return f, err
	}
	args := append([]string{"-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-Wno-comment", "-o", f.program}, sources...)
	if out, err := exec.CommandContext(ctx, "cc", args...).CombinedOutput(); err != nil {
		return f, fmt.Errorf("build the floor: %w\n%s", err, out)
	}
	return f, os.Mkdir(f.dir, 0o700)
}

// run measures n rounds of all cases, or with more arguments of one.
func (f floor) run(ctx context.Context, n int, more ...string) ([]floorResult, error) {
	args := append([]string{"-n", strconv.Itoa(n)}, more...)
	out, err := exec.CommandContext(ctx, f.program, append(args, f.dir, f.r.image.rootfs, "/bin/true")...).Output()
	if err != nil {
		return nil, fmt.Errorf("measure the floor: %w", err)
	}
	var all []floorResult
	for line := range strings.Lines(string(out)) {
		var one floorResult
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			return nil, fmt.Errorf("read %q: %w", line, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// measureFloor measures the kernel's own part, and the exec driver by it.
func measureFloor(ctx context.Context, r *rig) ([]figure, error) {
	f, err := r.buildFloor(ctx)
	if err != nil {
		return nil, err
	}
	r.others.gate(r.share)
	all, err := f.run(ctx, 100)
	if err != nil {
		return nil, err
	}
	lines := []string{"- `cc -O2 -static -o floor bench/floor/*.c; floor -n 100 SCRATCH ROOTFS /bin/true`; microseconds", "",
		"| case | min | median | p95 |", "|---|---|---|---|"}
	whole := []string{}
	for _, c := range all {
		lines = append(lines, fmt.Sprintf("| %s | %.0f | %.0f | %.0f |", c.Case, c.Min, c.Median, c.P95))
		if strings.Count(c.Case, "/") == 1 {
			whole = append(whole, fmt.Sprintf("%s %.1f ms", c.Case, c.Median/1000))
		}
	}
	figures := []figure{{name: "the kernel's own part: a whole container by plain system calls, busybox `true` in it", got: strings.Join(whole, ", "), detail: lines}}
	driver, err := r.compareDriver(ctx, f)
	if err != nil {
		return figures, err
	}
	return append(figures, driver...), nil
}
