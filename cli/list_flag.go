package cli

import (
	"strings"

	"github.com/spf13/pflag"
)

// listFlag is a flag that may be given several times, each time with one value.
// pflag's own writes its default as CSV when it is made, with a buffer of 4 KiB: run has
// twenty of them.
type listFlag []string

func (l *listFlag) String() string { return strings.Join(*l, ",") }
func (l *listFlag) Type() string   { return "list" }

// Set adds a value.
func (l *listFlag) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// listVar registers a list.
func listVar(p *pflag.FlagSet, to *[]string, name, usage string) {
	listVarP(p, to, name, "", usage)
}

// listVarP registers a list with a short name.
func listVarP(p *pflag.FlagSet, to *[]string, name, short, usage string) {
	p.VarP((*listFlag)(to), name, short, usage)
}
