package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// figure is one line of the report.
type figure struct {
	section string
	name    string
	goal    string // empty: told without a goal
	got     string
	met     bool
	detail  []string // below the table
}

func (f figure) verdict() string {
	switch {
	case f.goal == "":
		return ""
	case f.met:
		return "met"
	}
	return "**not met**"
}

func (f figure) line() string {
	if f.goal == "" {
		return f.name + ": " + f.got
	}
	return fmt.Sprintf("%s: %s; goal %s: %s", f.name, f.got, f.goal, strings.Trim(f.verdict(), "*"))
}

// report is everything that was found out.
type report struct {
	began    time.Time
	machine  []string
	settings settings
	figures  []figure
}

func (r report) table() string {
	var b strings.Builder
	b.WriteString("| figure | goal | measured | |\n|---|---|---|---|\n")
	for _, f := range r.figures {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell(f.name), cell(f.goal), cell(f.got), f.verdict())
	}
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

// keptFrom marks what a person has written: it is kept when the file is written
// again.
const keptFrom = "<!-- written by hand from here on, and kept -->"

const preface = `# Benchmarks

Written by ` + "`make bench`" + `, as root. What is compared is measured in turns within one
run, each sample in a quiet moment of the machine: absolute numbers drift with the
machine, ratios much less. A quiet sample is one during which everybody else used
less than %.0f %% of the processors. "Modes" are the two groups that samples fall into,
where they do.

All of it runs on a private engine in a temporary directory: data on the disk, run
directory on a tmpfs of its own (as /run is on a usual machine, crun's root is on it
too), logs as by default, fsync as always. The first runs after the engine's start
are not measured: drivers run then, and the compiled seccomp filter is kept from
the first container on. crun compiles its own at every start, because it keeps none.
`

// write keeps the report, with what a person has added to the last one.
func (r report) write(path string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, preface, r.settings.share*100)
	fmt.Fprintf(&b, "\nMeasured %s, in %s.\n\n", r.began.UTC().Format("2006-01-02 15:04 UTC"), time.Since(r.began).Round(time.Second))
	b.WriteString(r.table())
	b.WriteString("\n## What was measured, and how\n")
	for _, f := range r.figures {
		if len(f.detail) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n\n", f.name)
		for _, d := range f.detail {
			b.WriteString(d + "\n")
		}
	}
	b.WriteString("\n## The machine\n\n")
	for _, m := range r.machine {
		b.WriteString("- " + m + "\n")
	}
	b.WriteString("\n" + keptFrom + "\n")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, kept, found := bytes.Cut(old, []byte(keptFrom+"\n")); found {
		b.Write(kept)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// machine says where it was measured.
func machine(ctx context.Context) []string {
	word := func(name string, args ...string) string {
		out, err := exec.CommandContext(ctx, name, args...).Output()
		if err != nil {
			return "unknown"
		}
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return first
	}
	groups := "cgroup v2"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		groups = "cgroup v1"
	}
	model := "unknown processor"
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, found := strings.Cut(string(data), "model name"); found {
			line, _, _ := strings.Cut(rest, "\n")
			model = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
		}
	}
	return []string{
		fmt.Sprintf("%d processors (%s), %s, Linux %s, %s", runtime.NumCPU(), model, runtime.GOARCH, word("uname", "-r"), groups),
		"disk of the temporary directory: " + word("findmnt", "-n", "-o", "FSTYPE,OPTIONS", "-T", os.TempDir()),
		runtime.Version() + ", " + word("crun", "--version"),
	}
}
