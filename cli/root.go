// Package cli is the gantry command: one file for each verb, which parses what
// a person typed and shows what the engine says. It decides nothing.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/sparsejson"
)

// Env is what the command gets from outside.
type Env struct {
	Args      []string // without the program's name
	Stdin     *os.File
	Stdout    io.Writer
	Stderr    io.Writer
	LookupEnv func(string) (string, bool)
	Version   string
}

// app is one invocation.
type app struct {
	Env
	host string // --host

	mu     sync.Mutex  // guards what follows
	client *bus.Client // nil until dial
	cooked *term.State // of the terminal of Stdin, while it is raw
	lostAt time.Time   // when it was noticed last that the engine is gone
}

// verb is a command by its names. It is built only when it is asked for: to
// build all of them would take longer than most of them run.
type verb struct {
	names []string
	build func(*app) *cobra.Command
}

// verbs are all commands: one line each.
func verbs() []verb {
	return []verb{
		{[]string{"run"}, (*app).runCmd},
		{[]string{"create"}, (*app).createCmd},
		{[]string{"start"}, (*app).startCmd},
		{[]string{"attach"}, (*app).attachCmd},
		{[]string{"exec"}, (*app).execCmd},
		{[]string{"stop"}, (*app).stopCmd},
		{[]string{"restart"}, (*app).restartCmd},
		{[]string{"pause"}, (*app).pauseCmd},
		{[]string{"unpause"}, (*app).unpauseCmd},
		{[]string{"kill"}, (*app).killCmd},
		{[]string{"rm"}, (*app).rmCmd},
		{[]string{"rename"}, (*app).renameCmd},
		{[]string{"ps"}, (*app).psCmd},
		{[]string{"logs"}, (*app).logsCmd},
		{[]string{"wait"}, (*app).waitCmd},
		{[]string{"top"}, (*app).topCmd},
		{[]string{"stats"}, (*app).statsCmd},
		{[]string{"update"}, (*app).updateCmd},
		{[]string{"cp"}, (*app).cpCmd},
		{[]string{"diff"}, (*app).diffCmd},
		{[]string{"export"}, (*app).exportCmd},
		{[]string{"port"}, (*app).portCmd},
		{[]string{"inspect"}, (*app).inspectCmd},
		{[]string{"load"}, (*app).loadCmd},
		{[]string{"images"}, (*app).imagesCmd},
		{[]string{"tag"}, (*app).tagCmd},
		{[]string{"rmi"}, (*app).rmiCmd},
		{[]string{"container"}, (*app).containerCmd},
		{[]string{"image"}, (*app).imageCmd},
		{[]string{"network"}, (*app).networkCmd},
		{[]string{"driver"}, (*app).driverCmd},
		{[]string{"log"}, (*app).logCmd},
		{[]string{"job"}, (*app).jobCmd},
		{[]string{"why"}, (*app).whyCmd},
		{[]string{"events"}, (*app).eventsCmd},
		{[]string{"info"}, (*app).infoCmd},
		{[]string{"version"}, (*app).versionCmd},
	}
}

// Main runs the command and returns its exit code.
func Main(e Env) int {
	out := &output{to: e.Stdout}
	e.Stdout = out
	a := &app{Env: e}
	root := a.root()
	root.SetArgs(e.Args)
	root.SetOut(out)
	root.SetErr(e.Stderr)
	root.SetIn(e.Stdin)
	err := root.ExecuteContext(context.Background())
	a.restore()
	if a.client != nil {
		_ = a.client.Close() // nothing is lost with it
	}
	if err == nil {
		err = out.lost()
	}
	return a.exitCode(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "gantry", Short: "Run containers; ask what happened, who did it and why",
		SilenceUsage: true, SilenceErrors: true, Version: a.Version,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return a.unknownVerb(c, args[0])
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringVarP(&a.host, "host", "H", "", "engine to talk to, unix://PATH (default $GANTRY_HOST, or "+bus.DefaultHost+")")
	root.SetFlagErrorFunc(flagError)
	word := firstWord(a.Args)
	// To make the scripts for completion takes longer than to parse a command line.
	root.CompletionOptions.DisableDefaultCmd = !slices.Contains([]string{"", "help", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}, word)
	all := verbs()
	for _, v := range all {
		if slices.Contains(v.names, word) {
			root.AddCommand(v.build(a))
			return root
		}
	}
	for _, v := range all {
		root.AddCommand(v.build(a))
	}
	a.refuseHelp(root)
	return root
}

// refuseHelp lets help fail on a command that there is not; cobra's ends well.
func (a *app) refuseHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, _ := root.Find([]string{"help"}) // now it is there
	help.Args = func(_ *cobra.Command, args []string) error {
		if _, unknown, err := root.Find(args); err != nil || len(unknown) > 0 {
			return a.unknownVerb(root, strings.Join(args, " "))
		}
		return nil
	}
}

// firstWord is the verb: the first argument that is no global flag.
func firstWord(args []string) string {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "-H", arg == "--host":
			i++
		case !strings.HasPrefix(arg, "-"):
			return arg
		}
	}
	return ""
}

func (a *app) unknownVerb(c *cobra.Command, word string) error {
	hint := "see 'gantry --help'"
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(word); len(near) > 0 {
		hint = "did you mean " + near[0] + "?"
	}
	return &statusError{code: exitFailure, text: "no such command: " + word, hint: hint}
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return &usageError{errors.New("no such command: " + c.Name() + " " + args[0]), c.CommandPath()}
		},
	}
	c.AddCommand(commands...)
	return c
}

// renamed is a command under another name.
func renamed(c *cobra.Command, name string, aliases ...string) *cobra.Command {
	_, rest, _ := strings.Cut(c.Use, " ")
	c.Use, c.Aliases = strings.TrimSpace(name+" "+rest), aliases
	return c
}

// engine is where the engine listens; empty for where it always does.
func (a *app) engine() string {
	host := a.host
	if host == "" {
		host, _ = a.LookupEnv("GANTRY_HOST")
	}
	return host
}

// dial connects to the engine's bus, once.
func (a *app) dial(ctx context.Context) (*bus.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client != nil {
		return a.client, nil
	}
	c, err := bus.Dial(ctx, bus.Options{Host: a.engine(), Name: "gantry/" + a.Version})
	if err != nil {
		return nil, err
	}
	a.client = c
	return c, nil
}

// query asks the engine. in may be nil.
func (a *app) query(ctx context.Context, name string, in, out any) error {
	q := query.QueryIn{Name: name}
	if in != nil {
		var err error
		if q.Body, err = sparsejson.Marshal(in); err != nil {
			return fmt.Errorf("ask %s: %w", name, err)
		}
	}
	st, err := a.stream(ctx, query.OpQuery, q)
	if err != nil {
		return err
	}
	defer st.Close()
	if err := json.Unmarshal(st.Body, out); err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	return nil
}

// usageError is a wrong command line.
type usageError struct {
	err     error
	command string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// minArgs refuses a command line with too few arguments.
func minArgs(n int) cobra.PositionalArgs { return rangeArgs(n, -1) }

// exactArgs refuses a command line with another number of arguments.
func exactArgs(n int) cobra.PositionalArgs { return rangeArgs(n, n) }

// rangeArgs refuses fewer arguments than least and more than most; -1 is no bound.
func rangeArgs(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return &usageError{errors.New("too few arguments: want " + c.UseLine()), c.CommandPath()}
		case most >= 0 && len(args) > most:
			return &usageError{errors.New("too many arguments: want " + c.UseLine()), c.CommandPath()}
		}
		return nil
	}
}
