package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/gantryd/gantry/sdk/conform"
)

// printer writes the report while the checks run.
type printer struct {
	out     io.Writer
	order   order
	listing bool
	held    int
	failed  []string
}

// What one fault may take in the report without -v.
const (
	maxMessages = 8
	maxNotes    = 8 // first and last ones, the driver's own lines among them
)

// print tells how one check went.
func (p *printer) print(r *conform.Result) {
	if r.Name == "" {
		return
	}
	promise, notes := "", []string(nil)
	for _, n := range r.Notes {
		said, isPromise := strings.CutPrefix(n, "promise: ")
		switch {
		case isPromise:
			promise = said
		case !strings.Contains(n, "[INFO]  plugin process exited") || p.order.verbose:
			notes = append(notes, n)
		}
	}
	word := "ok  "
	if r.Failed {
		word = "FAIL"
		p.failed = append(p.failed, r.Name)
	} else {
		p.held++
	}
	fmt.Fprintf(p.out, "%s  %-28s %6.2f s  %s\n", word, r.Name, r.Took.Seconds(), promise)
	for i, m := range r.Messages {
		if i == maxMessages && !p.order.verbose {
			p.indent("- ", fmt.Sprintf("and %d more (-v shows them)", len(r.Messages)-i))
			break
		}
		p.indent("- ", m)
	}
	if !r.Failed && !p.order.verbose {
		notes = plain(notes)
	}
	for i, n := range notes {
		cut := len(notes) - 2*maxNotes
		if cut > 0 && i >= maxNotes && i < maxNotes+cut && !p.order.verbose {
			if i == maxNotes {
				p.indent("  ", fmt.Sprintf("(%d lines are left out; -v shows them)", cut))
			}
			continue
		}
		p.indent("  ", n)
	}
	if r.Failed {
		p.indent("  ", "to see it again: "+p.again(r.Name))
	}
}

// plain leaves out what only helps to understand a fault: the driver's lines
// and how often something was tried.
func plain(notes []string) []string {
	var kept []string
	for _, n := range notes {
		for _, start := range []string{"this ", "it is ", "it warns", "the driver "} {
			if strings.HasPrefix(n, start) {
				kept = append(kept, n)
				break
			}
		}
	}
	return kept
}

// indent writes a text under the line of its check.
func (p *printer) indent(mark, text string) {
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if i > 0 {
			mark = "  "
		}
		fmt.Fprintf(p.out, "        %s%s\n", mark, line)
	}
}

// again is the command that runs one check again.
func (p *printer) again(check string) string {
	args := []string{"gantry-conform", "-v", "--kind", p.order.kind}
	if p.order.libexec != "" {
		args = append(args, "--libexec", p.order.libexec)
	}
	if check != "start" {
		args = append(args, "--check", check)
	}
	return strings.Join(append(args, p.order.program), " ")
}

// summary ends the report and gives the exit status.
func (p *printer) summary(all *conform.Result) int {
	for _, m := range all.Messages {
		p.indent("- ", m)
	}
	fmt.Fprintf(p.out, "\n%d of %d checks hold", p.held, p.held+len(p.failed))
	if !all.Failed && len(p.failed) == 0 {
		fmt.Fprintln(p.out, ": the driver keeps its contract")
		return 0
	}
	fmt.Fprintf(p.out, "; these do not: %s\n", strings.Join(p.failed, ", "))
	return 1
}
