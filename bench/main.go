// Command bench measures every figure that gantry has set itself for speed and
// size, as ratios within one run: what is compared is measured in turns, so that
// the machine's moods hit all alike. It prints a table with goal and verdict and
// writes docs/benchmarks.md.
//
// Everything runs on a private engine with a random name in a temporary
// directory; nothing is left behind. crun, which the figures are compared with,
// is installed from Debian's packages if it is not there. Needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are the flags.
type settings struct {
	bin     string
	out     string
	only    []string
	pairs   int           // quiet rounds wanted
	patient time.Duration // for one comparison
	share   float64       // of all processors that others may use in a quiet sample
}

// section is one group of figures.
type section struct {
	name    string
	measure func(context.Context, *rig) ([]figure, error)
}

// sections are in the order of the report. The peers come late: an ext4 without a
// journal looks through every inode deleted within the last minutes when it makes one,
// and Docker deletes many.
func sections() []section {
	return []section{
		{"run", measureRun},
		{"api", measureAPI},
		{"cli", measureCLI},
		{"core", measureCore},
		{"ready", measureReady},
		{"memory", measureMemory},
		{"fleet", measureFleet},
		{"runtime", measureRuntime},
		{"output", measureOutput},
		{"floor", measureFloor},
	}
}

func main() {
	var s settings
	var only string
	flag.StringVar(&s.bin, "bin", "bin", "directory of the programs")
	flag.StringVar(&s.out, "out", "docs/benchmarks.md", "report to write; empty for none")
	flag.StringVar(&only, "only", "", "sections to measure, with commas between: run,api,cli,core,ready,memory,fleet,runtime,output,floor")
	flag.IntVar(&s.pairs, "n", 30, "quiet samples wanted of each row")
	flag.DurationVar(&s.patient, "patience", 4*time.Minute, "longest wait for the quiet samples of one comparison")
	flag.Float64Var(&s.share, "quiet", 0.15, "share of all processors that others may use in a quiet sample")
	flag.Parse()
	if only != "" {
		s.only = strings.Split(only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, s); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, s settings) (err error) {
	if os.Getuid() != 0 {
		return errors.New("containers are measured here: run it as root")
	}
	if s.bin, err = filepath.Abs(s.bin); err != nil {
		return err
	}
	r, err := newRig(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	rep := report{began: time.Now(), machine: machine(ctx), settings: s}
	for _, sec := range sections() {
		if len(s.only) > 0 && !slices.Contains(s.only, sec.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s …\n", sec.name)
		figures, err := sec.measure(ctx, r)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			figures = append(figures, figure{name: sec.name, got: "could not be measured: " + err.Error()})
		}
		for i := range figures {
			figures[i].section = sec.name
			fmt.Fprintln(os.Stderr, "  "+figures[i].line())
		}
		rep.figures = append(rep.figures, figures...)
	}
	fmt.Println()
	fmt.Print(rep.table())
	if s.out == "" {
		return nil
	}
	return rep.write(s.out)
}
