package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// measureFloor measures the kernel's own part with a small C program.
func measureFloor(ctx context.Context, r *rig) ([]figure, error) {
	program := filepath.Join(r.scratch, "floor")
	sources, err := filepath.Glob("bench/floor/*.c")
	if err != nil {
		return nil, err
	}
	args := append([]string{"-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-Wno-comment", "-o", program}, sources...)
	if out, err := exec.CommandContext(ctx, "cc", args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the floor: %w\n%s", err, out)
	}
	dir := filepath.Join(r.scratch, "floor.d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	r.others.gate(r.share)
	out, err := exec.CommandContext(ctx, program, "-n", "100", dir, r.image.rootfs, "/bin/true").Output()
	if err != nil {
		return nil, fmt.Errorf("measure the floor: %w", err)
	}
	lines := []string{"- `cc -O2 -static -o floor bench/floor/*.c; floor -n 100 SCRATCH ROOTFS /bin/true`; microseconds", "",
		"| case | min | median | p95 |", "|---|---|---|---|"}
	whole := []string{}
	for line := range strings.Lines(string(out)) {
		var c struct {
			Case             string
			Min, Median, P95 float64
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			return nil, fmt.Errorf("read %q: %w", line, err)
		}
		lines = append(lines, fmt.Sprintf("| %s | %.0f | %.0f | %.0f |", c.Case, c.Min, c.Median, c.P95))
		if strings.Count(c.Case, "/") == 1 {
			whole = append(whole, fmt.Sprintf("%s %.1f ms", c.Case, c.Median/1000))
		}
	}
	return []figure{{name: "the kernel's own part: a whole container by plain system calls, busybox `true` in it", got: strings.Join(whole, ", "), detail: lines}}, nil
}
