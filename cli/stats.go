package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// statsView is stats as it is asked for.
type statsView struct {
	listing
	once   bool
	before map[core.ContainerID]query.Stats // the sample before, to tell rates by
}

func (a *app) statsCmd() *cobra.Command {
	var in query.StatsIn
	v := statsView{listing: listing{
		id: "ID",
		columns: []column{
			{"CONTAINER ID", "ID"}, {"NAME", "Name"}, {"CPU %", "CPUPerc"}, {"MEM USAGE / LIMIT", "MemUsage"}, {"MEM %", "MemPerc"},
			{"NET I/O", "NetIO"}, {"BLOCK I/O", "BlockIO"}, {"PIDS", "PIDs"},
		},
		more: []column{{"CONTAINER", "Container"}},
	}}
	c := &cobra.Command{
		Use: "stats [flags] [CONTAINER...]", Short: "Show what containers use, each second anew", Args: minArgs(0),
		RunE: func(c *cobra.Command, args []string) error {
			in.Refs = args
			return a.stats(c.Context(), &v, in)
		},
	}
	c.Flags().BoolVarP(&in.All, "all", "a", false, "also those that do not run")
	c.Flags().BoolVar(&v.once, "no-stream", false, "show it once")
	c.Flags().BoolVar(&v.noTrunc, "no-trunc", false, "do not cut anything off")
	c.Flags().StringVar(&v.format, "format", "", "table, json, or a Go template: '{{.Name}}: {{.CPUPerc}}'")
	return c
}

// stats shows samples as they come. A rate needs two of them: to show it once,
// the first is let go.
func (a *app) stats(ctx context.Context, v *statsView, in query.StatsIn) error {
	st, err := a.stream(ctx, query.OpStats, in)
	if err != nil {
		return err
	}
	defer st.Close()
	samples := newSampleReader(st)
	redraw := !v.once && isTerminal(a.Stdout) && (v.format == "" || strings.HasPrefix(v.format, "table"))
	for n := 0; ; n++ {
		s, err := samples.next()
		if errors.Is(err, io.EOF) { // the engine itself would go on for ever
			return errclass.Errorf(errdefs.ErrUnavailable, "the engine has gone while it was telling what containers use")
		}
		if err != nil {
			return fmt.Errorf("read the samples: %w", err)
		}
		rows := v.rows(s, in.Refs)
		if n == 0 && v.once && anyRuns(s) {
			continue
		}
		var out strings.Builder
		if err := v.write(&out, rows); err != nil {
			return err
		}
		text := out.String()
		if redraw {
			// To the upper left corner; what is left of longer lines, and below, goes.
			text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
			if n == 0 {
				text = "\x1b[2J" + text
			}
		}
		if _, err := io.WriteString(a.Stdout, text); err != nil {
			return err
		}
		if v.once {
			return nil
		}
	}
}

type sampleReader struct{ r *bufio.Reader }

func newSampleReader(st *bus.Stream) *sampleReader { return &sampleReader{bufio.NewReader(st)} }

func (r *sampleReader) next() (*query.StatsSample, error) {
	line, err := r.r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var s query.StatsSample
	return &s, json.Unmarshal(line, &s)
}

func anyRuns(s *query.StatsSample) bool {
	for i := range s.Containers {
		if s.Containers[i].Running {
			return true
		}
	}
	return false
}

// rows are the lines of one sample; it is remembered for the next.
func (v *statsView) rows(s *query.StatsSample, refs []string) []row {
	var rows []row
	now := make(map[core.ContainerID]query.Stats, len(s.Containers))
	for i := range s.Containers {
		c := &s.Containers[i]
		before, known := v.before[c.Container]
		now[c.Container] = *c
		cpu := "--"
		switch {
		case !c.Running:
			cpu = "0.00%"
		case known && before.Running:
			cpu = fmt.Sprintf("%.2f%%", cpuPercent(&before, c))
		case v.once:
			cpu = "0.00%"
		}
		container := v.idOf(string(c.Container))
		for _, ref := range refs {
			if ref == c.Name || strings.HasPrefix(string(c.Container), ref) {
				container = ref // as it was asked for
			}
		}
		r := row{"ID": v.idOf(string(c.Container)), "Container": container, "Name": c.Name, "CPUPerc": cpu}
		usage(r, c)
		rows = append(rows, r)
	}
	v.before = now
	return rows
}

// cpuPercent is the share of one processor's time, so that it may be above 100.
func cpuPercent(before, now *query.Stats) float64 {
	wall, cpu := now.Time.Sub(before.Time), now.CPU-before.CPU
	if wall <= 0 || cpu < 0 {
		return 0
	}
	return 100 * float64(cpu) / float64(wall)
}

// usage fills in what a sample says by itself.
func usage(r row, c *query.Stats) {
	used := max(c.MemoryBytes-c.MemoryInactive, 0) // page cache that can go at once is not counted
	percent := 0.0
	if c.MemoryLimit > 0 {
		percent = 100 * float64(used) / float64(c.MemoryLimit)
	}
	var rx, tx uint64
	for _, i := range c.Interfaces {
		rx, tx = rx+i.RxBytes, tx+i.TxBytes
	}
	r["MemUsage"] = binarySize(used) + " / " + binarySize(c.MemoryLimit)
	r["MemPerc"] = fmt.Sprintf("%.2f%%", percent)
	r["NetIO"] = humanSize(int64(rx)) + " / " + humanSize(int64(tx))
	r["BlockIO"] = humanSize(int64(c.ReadBytes)) + " / " + humanSize(int64(c.WriteBytes))
	r["PIDs"] = fmt.Sprint(c.Pids)
}
