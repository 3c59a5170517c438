package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// metrics are what a Go benchmark reports, by unit.
type metrics map[string]float64

// measureCore runs the benchmarks of core and eventlog; those of the journal
// interleave its writes with bare ones by themselves.
func measureCore(ctx context.Context, r *rig) ([]figure, error) {
	core, err := r.benchmarks(ctx, "./core", "Decisions|DecodeFold")
	if err != nil {
		return nil, err
	}
	log, err := r.benchmarks(ctx, "./eventlog", "Append|GroupCommit|Scan")
	if err != nil {
		return nil, err
	}
	decisions, decode := core["BenchmarkDecisions"]["decisions/s"], core["BenchmarkDecodeFold"]["events/s"]
	append1, group, scan := log["BenchmarkAppend"], log["BenchmarkGroupCommit"], log["BenchmarkScan"]["records/s"]
	return []figure{
		{name: "core: decisions", goal: "≥ 200,000/s", met: decisions >= 200_000, got: thousands(decisions) + "/s",
			detail: []string{"- Decide, Apply of the events and Next of the nouns they touch, over whole lives of containers (`go test ./core -bench Decisions`)"}},
		{name: "decode and fold, one goroutine, no journal", goal: "≥ 100,000 events/s", met: decode >= 100_000, got: thousands(decode) + " events/s",
			detail: []string{fmt.Sprintf("- %.0f bytes an event (`go test ./core -bench DecodeFold`)", core["BenchmarkDecodeFold"]["bytes/event"])}},
		{name: "journal: durable append by a bare write and fdatasync of the same size", goal: "median ≤ 1.5 ×", met: append1["ratio"] <= 1.5,
			got:    fmt.Sprintf("%.2f × (%.0f µs by %.0f µs)", append1["ratio"], append1["append-median-ns"]/1000, append1["bare-median-ns"]/1000),
			detail: []string{"- in turns (`go test ./eventlog -bench Append`)"}},
		{name: "journal: appends of 16 writers by bare fdatasyncs", goal: "≥ 1.5 ×", met: group["ratio"] >= 1.5,
			got:    fmt.Sprintf("%.2f × (%s/s by %s/s)", group["ratio"], thousands(group["appends/s"]), thousands(group["bare/s"])),
			detail: []string{"- in turns of 100 ms (`go test ./eventlog -bench GroupCommit`)"}},
		{name: "journal: scan with checksums and hash chain", goal: "≥ 800,000 records/s", met: scan >= 800_000, got: thousands(scan) + " records/s",
			detail: []string{"- 200,000 records of 330 bytes (`go test ./eventlog -bench Scan`)"}},
	}, nil
}

var benchLine = regexp.MustCompile(`^(Benchmark\w+)(?:-\d+)?\s+\d+\s+(.*)$`)

// benchmarks runs Go benchmarks five times, and keeps the median of each number.
func (r *rig) benchmarks(ctx context.Context, pkg, which string) (map[string]metrics, error) {
	r.others.gate(r.share)
	out, err := exec.CommandContext(ctx, "go", "test", pkg, "-run", "^$", "-bench", which, "-benchtime", "1s", "-count", "5").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test %s: %w\n%s", pkg, err, out)
	}
	all := map[string]map[string][]float64{}
	for line := range strings.Lines(string(out)) {
		m := benchLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		if all[m[1]] == nil {
			all[m[1]] = map[string][]float64{}
		}
		for fields := strings.Fields(m[2]); len(fields) >= 2; fields = fields[2:] {
			v, err := strconv.ParseFloat(fields[0], 64)
			if err != nil {
				return nil, fmt.Errorf("read %q: %w", line, err)
			}
			all[m[1]][fields[1]] = append(all[m[1]][fields[1]], v)
		}
	}
	medians := map[string]metrics{}
	for name, units := range all {
		medians[name] = metrics{}
		for unit, values := range units {
			medians[name][unit] = middleOf(values)
		}
	}
	return medians, nil
}

// thousands writes a number with commas.
func thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
