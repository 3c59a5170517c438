package main

import (
	"fmt"
	"io"

	"github.com/gantryd/gantry/internal/linux/probe"
)

// check tells what this kernel and machine can and cannot do, each with what
// follows. It reports whether nothing is missing.
func check(w io.Writer) bool {
	all := true
	for _, f := range probe.Probe() {
		if f.Have {
			fmt.Fprintf(w, "yes  %-24s %s\n", f.Name, f.Detail)
			continue
		}
		all = false
		fmt.Fprintf(w, "no   %-24s %s\n     %-24s follows: %s\n", f.Name, f.Detail, "", f.Consequence)
	}
	for _, warning := range warnings() {
		all = false
		fmt.Fprintf(w, "no   %s\n", warning)
	}
	return all
}
