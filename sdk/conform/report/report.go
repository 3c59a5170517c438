// Package report is the program gantry-conform: it runs the suites against any
// executable and says in words what was checked, what failed, and how to see
// it again.
package report

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver/exectest"
	"github.com/gantryd/gantry/sdk/graphdriver/graphtest"
	"github.com/gantryd/gantry/sdk/imagedriver/imagetest"
	"github.com/gantryd/gantry/sdk/netdriver/nettest"
)

// order is what the command line asks for.
type order struct {
	program string
	kind    string
	name    string // of the driver; empty if the file's name does not tell
	check   string // only checks whose name holds this
	libexec string
	verbose bool
	list    bool
}

// Main runs the program: 0 if every promise holds, 1 if one does not, 2 if the
// command line makes no sense.
func Main(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "gantry-conform: %v\n", err)
		return 2
	}
	p := &printer{out: stdout, order: o}
	if o.list {
		p.listing = true
	} else {
		fmt.Fprintf(stdout, "%s driver %s\n\n", o.kind, o.program)
	}
	result := conform.Record("", p.print, func(t conform.T) { p.run(t) })
	if o.list {
		return 0
	}
	return p.summary(result)
}

func parse(args []string, stderr io.Writer) (order, error) {
	var o order
	f := flag.NewFlagSet("gantry-conform", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, "usage: gantry-conform [flags] PROGRAM\n\n"+
			"Starts PROGRAM as the engine would, as often as needed, and holds it to the\n"+
			"contract of its kind. It works in directories of its own, as an engine of its\n"+
			"own. Most kinds need root; net drivers are best tried in a network namespace\n"+
			"of their own (unshare -n gantry-conform PROGRAM).\n\n")
		f.PrintDefaults()
	}
	f.StringVar(&o.kind, "kind", "", fmt.Sprintf("kind of driver, one of %v; otherwise the program's name tells", driver.Kinds()))
	f.StringVar(&o.check, "check", "", "run only the checks whose name holds `WORD`")
	f.StringVar(&o.libexec, "libexec", os.Getenv(driver.EnvLibexec), "`DIR` of the programs shipped with the engine, told to the driver (default: the driver's own)")
	f.BoolVar(&o.verbose, "v", false, "show what was noted also where a promise holds")
	f.BoolVar(&o.list, "list", false, "only tell the checks of the kind")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.list && o.kind != "" && f.NArg() == 0 {
		return o, knownKind(o.kind)
	}
	if f.NArg() != 1 {
		return o, fmt.Errorf("want one program, got %d (see --help)", f.NArg())
	}
	return o.find(f.Arg(0))
}

// find completes o with the program and what its name tells.
func (o order) find(program string) (order, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return o, err
	}
	if o.program, err = filepath.Abs(path); err != nil {
		return o, err
	}
	kind, name, err := driver.ParseProgramName(filepath.Base(path))
	switch {
	case err == nil && (o.kind == "" || o.kind == kind):
		o.kind, o.name = kind, name
	case o.kind == "":
		return o, fmt.Errorf("%w; or say --kind", err)
	}
	return o, knownKind(o.kind)
}

func knownKind(kind string) error {
	if !slices.Contains(driver.Kinds(), kind) {
		return fmt.Errorf("the kind %q is not known: want one of %v", kind, driver.Kinds())
	}
	return nil
}

// run runs the checks of the order's kind.
func (p *printer) run(t conform.T) {
	switch p.order.kind {
	case driver.KindGraph:
		runSuite(t, p, graphtest.Suite(), graphtest.Program(p.order.program))
	case driver.KindNet:
		runSuite(t, p, nettest.Suite(), nettest.Program(p.order.program))
	case driver.KindImage:
		runSuite(t, p, imagetest.Suite(), imagetest.Program(p.order.program))
	case driver.KindExec:
		rootfs := ""
		if !p.listing {
			rootfs = exectest.BuildRootfs(t, t.TempDir())
		}
		runSuite(t, p, exectest.Suite(rootfs), exectest.Program(p.order.program))
	}
}

// runSuite runs what all programs are held to, then the suite, as far as the
// order asks for it.
func runSuite[D driver.Common](t conform.T, p *printer, s conform.Suite[D], open conform.Open[D]) {
	all := append(programChecks(s, p.order.name), s.Checks...)
	s.Checks = nil
	for _, c := range all {
		switch {
		case p.listing:
			fmt.Fprintf(p.out, "%-28s %s\n", c.Name, c.Promise)
		case strings.Contains(c.Name, p.order.check):
			s.Checks = append(s.Checks, c)
		}
	}
	if p.listing {
		return
	}
	libexec := p.order.libexec
	if libexec == "" { // a driver of ours lies beside what it needs
		libexec = filepath.Dir(p.order.program)
	}
	s.Adapt = func(c driver.Config) driver.Config {
		c.Libexec = libexec
		return c
	}
	if !startable(t, s, open) {
		return
	}
	s.Run(t, open)
	if len(s.Checks) == 0 {
		t.Errorf("no check has a name that holds %q", p.order.check)
	}
}

// startable tries whether the program starts at all: if not, one fault says
// so, instead of one for each check.
func startable[D driver.Common](t conform.T, s conform.Suite[D], open conform.Open[D]) bool {
	s.Checks = []conform.Check[D]{{
		Name:    "start",
		Promise: "The program starts, shakes hands, and answers Info and List.",
		Run: func(ctx context.Context, b *conform.Bench[D]) {
			info, err := b.Driver().Info(ctx)
			if err != nil {
				b.Fatalf("Info: %v", err)
			}
			b.Logf("it is %s %s, abilities %q", info.Name, info.Version, info.Abilities)
			for _, w := range info.Warnings {
				b.Logf("it warns: %s", w)
			}
			if items, err := b.Driver().List(ctx); err != nil || len(items) > 0 {
				b.Errorf("List of a driver that holds nothing: %+v, %v", items, err)
			}
		},
	}}
	return t.Run("start", func(t conform.T) { s.Run(t, open) })
}
