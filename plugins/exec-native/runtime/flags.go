package runtime

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// newFlags makes an empty set of flags. Standard flags take one dash or two, and
// cost nothing at the start, which libraries of command lines do.
func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// both gives a flag its long and its short name.
func both(_ *flag.FlagSet, long, short string, define func(name string)) {
	define(long)
	define(short)
}

// listFlag may be given several times.
type listFlag []string

// String implements flag.Value.
func (l *listFlag) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *listFlag) Set(v string) error {
	*l = append(*l, v)
	return nil
}

// parse reads a command's flags, wherever they stand among its arguments, and
// gives the arguments: at least and at most so many.
func parse(fs *flag.FlagSet, g *globals, args []string, least, most int) ([]string, error) {
	var out []string
	for {
		if err := parseSome(fs, g, args); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			break
		}
		if consumed := len(args) - fs.NArg(); consumed > 0 && args[consumed-1] == "--" {
			out = append(out, fs.Args()...)
			break
		}
		out = append(out, fs.Arg(0))
		args = fs.Args()[1:]
	}
	return out, count(fs, out, least, most)
}

// parseLeading reads a command's flags up to its first argument.
func parseLeading(fs *flag.FlagSet, g *globals, args []string, least int) ([]string, error) {
	if err := parseSome(fs, g, args); err != nil {
		return nil, err
	}
	return fs.Args(), count(fs, fs.Args(), least, -1)
}

// parseSome is Parse, with help on standard output.
func parseSome(fs *flag.FlagSet, g *globals, args []string) error {
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		for _, c := range commands() {
			if c.name == fs.Name() {
				fmt.Printf("%s %s [FLAG...] %s: %s\n\n", g.self, c.name, c.args, c.help)
			}
		}
		fs.SetOutput(stdout())
		fs.PrintDefaults()
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", fs.Name(), err)
	}
	return nil
}

func count(fs *flag.FlagSet, args []string, least, most int) error {
	if len(args) < least || most >= 0 && len(args) > most {
		want := fmt.Sprint(least)
		if most < 0 {
			want += " or more"
		} else if most != least {
			want += fmt.Sprintf(" to %d", most)
		}
		return fmt.Errorf("%s: %d arguments %q: want %s", fs.Name(), len(args), args, want)
	}
	return nil
}
