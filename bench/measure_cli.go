package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// measureCLI compares the CLI's own start with that of a Go program that does
// nothing.
func measureCLI(ctx context.Context, r *rig) ([]figure, error) {
	d, err := r.served(ctx)
	if err != nil {
		return nil, err
	}
	empty := filepath.Join(r.scratch, "empty")
	source := empty + ".go"
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", empty, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the empty program: %w\n%s", err, out)
	}
	rows := []*row{
		{name: "empty", once: func() (time.Duration, error) { return timed(exec.Command(empty)) }},
		{name: "version", once: func() (time.Duration, error) { return timed(r.gantry(d, "version")) }},
		{name: "ps", once: func() (time.Duration, error) { return timed(r.gantry(d, "ps", "-q")) }},
	}
	if err := r.inTurns(ctx, 2*r.pairs, rows...); err != nil {
		return nil, err
	}
	e, v, p := statsOf(rows[0].samples), statsOf(rows[1].samples), statsOf(rows[2].samples)
	detail := func(name string, s stats) []string {
		return []string{"- empty: " + e.String(), "- " + name + ": " + s.String()}
	}
	return []figure{
		{name: "`gantry version` by an empty Go program", goal: "≤ 2.5 ×", met: ratio(v.median, e.median) <= 2.5,
			got: fmt.Sprintf("%.2f × (%s by %s)", ratio(v.median, e.median), ms(v.median), ms(e.median)), detail: detail("version", v)},
		{name: "`gantry ps -q` by an empty Go program", goal: "≤ 4 ×", met: ratio(p.median, e.median) <= 4,
			got: fmt.Sprintf("%.2f × (%s by %s)", ratio(p.median, e.median), ms(p.median), ms(e.median)), detail: detail("ps -q", p)},
	}, nil
}
