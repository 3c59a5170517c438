package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	outputBytes = 200 << 20
	outputLine  = 99 // without its newline
	outputTurns = 5
)

// producer writes outputBytes of lines, pinned to the first processor.
func producer() string {
	return fmt.Sprintf("taskset -p 1 $$ >/dev/null; yes %s | head -c %d", strings.Repeat("x", outputLine), outputBytes)
}

// measureOutput measures how fast a container's output gets into its log, and out
// of it again, beside `cat > file` of the same producer.
func measureOutput(ctx context.Context, r *rig) (figures []figure, err error) {
	d, err := r.served(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.removeAll(d, []string{"talker"})) }()
	if out, err := r.gantry(d, "create", "--name", "talker", "--network", "none", "--log-opt", "max-size=512m", "--log-opt", "max-file=1",
		imageName, "sh", "-c", producer()).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("create a container: %w\n%s", err, out)
	}
	plain, logged := &row{name: "cat > file"}, &row{name: "container's log"}
	file := filepath.Join(r.scratch, "plain")
	defer os.Remove(file) //nolint:errcheck // the scratch directory goes anyway
	plain.once = func() (time.Duration, error) {
		_ = os.Remove(file) // there is none at first
		unix.Sync()
		return timed(exec.Command("busybox", "sh", "-c", "("+producer()+") | cat > "+file))
	}
	logged.once = func() (time.Duration, error) {
		unix.Sync()
		begun := time.Now()
		if out, err := r.gantry(d, "start", "talker").CombinedOutput(); err != nil {
			return 0, fmt.Errorf("start: %w\n%s", err, out)
		}
		if out, err := r.gantry(d, "wait", "talker").CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "0" {
			return 0, fmt.Errorf("wait: %w\n%s", err, out)
		}
		return time.Since(begun), nil
	}
	for range outputTurns {
		for _, w := range []*row{plain, logged} {
			r.others.gate(r.share)
			took, err := w.once()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			w.samples = append(w.samples, sample{took, true})
		}
	}
	back, read, err := r.readBack(d)
	if err != nil {
		return nil, err
	}
	p, l := statsOf(plain.samples), statsOf(logged.samples)
	rate := func(bytes int64, d time.Duration) float64 { return float64(bytes) / d.Seconds() / 1e6 }
	return []figure{
		{
			name: "a container's output into its log, by `cat > file` of the same producer", goal: "median ≥ 0.6 ×", met: ratio(p.median, l.median) >= 0.6,
			got: fmt.Sprintf("%.2f × (%.0f by %.0f MB/s)", ratio(p.median, l.median), rate(outputBytes, l.median), rate(outputBytes, p.median)),
			detail: []string{
				fmt.Sprintf("- %d MB of %d-byte lines from `yes | head`, pinned to one processor in both cases; start and end of the container are in it", outputBytes>>20, outputLine+1),
				"- cat > file: " + p.String(), "- container's log: " + l.String(),
			},
		},
		{
			name: "reading that log back by `gantry logs`", goal: "≥ 110 MB/s (ten times Docker's 11)", met: rate(read, back) >= 110,
			got: fmt.Sprintf("%.0f MB/s", rate(read, back)),
		},
	}, nil
}

// readBack reads the log and says how long that took and how much it was.
func (r *rig) readBack(d *daemon) (time.Duration, int64, error) {
	c := r.gantry(d, "logs", "talker")
	var n counter
	c.Stdout = &n
	begun := time.Now()
	err := c.Run()
	if err == nil && n < outputBytes {
		err = fmt.Errorf("%d bytes of %d were read back", n, outputBytes)
	}
	return time.Since(begun), int64(n), err
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }
