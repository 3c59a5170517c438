package runtime

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
)

// Exit codes of the program itself, as runc's.
const (
	exitFailed = 1
	exitUsage  = 1
)

// heapLimit is from where on garbage is collected after all, in bytes.
const heapLimit = 64 << 20

// globals are the flags that stand before the command.
type globals struct {
	root     string
	systemd  bool
	rootless string
	log      *logger
	version  string
	self     string // how the program was called, for error texts
}

// command is one verb of the command line. Its flags may stand among its
// arguments, unless they end at the first.
type command struct {
	name, args, help string
	run              func(ctx context.Context, g *globals, args []string) (code int, err error)
}

// commands lists the verbs in the order of their help.
func commands() []command {
	return []command{
		{"create", "ID", "make a container from a bundle; it waits to be started", runCreate},
		{"start", "ID", "let a created container's program run", runStart},
		{"run", "ID", "create and start a container", runRun},
		{"state", "ID", "show a container's state as JSON", runState},
		{"kill", "ID [SIGNAL]", "send a signal to a container's first process", runKill},
		{"delete", "ID", "remove what is left of a stopped container", runDelete},
		{"exec", "ID PROGRAM [ARG...]", "run another program in a container", runExec},
		{"ps", "ID [PS-OPTION...]", "list a container's processes", runPs},
		{"list", "", "list the containers below the root", runList},
		{"pause", "ID", "freeze a container's processes", runPause},
		{"resume", "ID", "let frozen processes go on", runResume},
		{"update", "ID", "change a container's limits", runUpdate},
		{"events", "ID", "show what a container uses, and its lacks of memory", runEvents},
		{"spec", "", "write a config.json to begin with", runSpec},
		{"features", "", "show what this runtime knows, as JSON", runFeatures},
		{"checkpoint", "ID", "not served", runUnserved("checkpoint")},
		{"restore", "ID", "not served", runUnserved("restore")},
	}
}

// Main runs one command line and gives the exit code.
func Main(version string, args []string) int {
	g := &globals{version: version, self: filepath.Base(args[0])}
	fs := newFlags(g.self)
	var logFile, logFormat string
	var verbose, showVersion bool
	fs.StringVar(&g.root, "root", defaultRoot(), "directory of the containers' state; on a tmpfs")
	fs.StringVar(&logFile, "log", "", "file for errors and warnings; standard error without it")
	fs.StringVar(&logFormat, "log-format", "text", "text or json")
	fs.BoolVar(&verbose, "debug", false, "say more")
	fs.BoolVar(&g.systemd, "systemd-cgroup", false, "have systemd make the cgroups (slice:prefix:name)")
	fs.StringVar(&g.rootless, "rootless", "auto", "true, false or auto: without the rights of root")
	both(fs, "version", "v", func(n string) { fs.BoolVar(&showVersion, n, false, "show the version") })
	fs.Usage = func() { usage(os.Stderr, g.self, fs) }
	err := fs.Parse(args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	g.log = &logger{json: logFormat == "json", debug: verbose}
	if err == nil && logFormat != "json" && logFormat != "text" {
		err = fmt.Errorf("log format %q: want text or json", logFormat)
	}
	if err == nil && g.rootless != "auto" && g.rootless != "true" && g.rootless != "false" {
		err = fmt.Errorf("rootless %q: want true, false or auto", g.rootless)
	}
	if err == nil {
		err = g.log.open(logFile)
	}
	defer g.log.close()
	if err != nil {
		g.log.error(err)
		return exitUsage
	}
	if showVersion {
		return sayVersion(os.Stdout, g)
	}
	return dispatch(g, fs)
}

// dispatch finds the command and runs it. But for one that stays (run and exec in
// the foreground, events) a command is over before a collection of garbage
// would pay.
func dispatch(g *globals, fs *flag.FlagSet) int {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(heapLimit)
	if fs.NArg() == 0 || fs.Arg(0) == "help" {
		usage(os.Stdout, g.self, fs)
		return 0
	}
	for _, c := range commands() {
		if c.name != fs.Arg(0) {
			continue
		}
		code, err := c.run(context.Background(), g, fs.Args()[1:])
		switch {
		case errors.Is(err, flag.ErrHelp):
			return 0
		case err != nil:
			g.log.error(err)
			if code == 0 {
				code = exitFailed
			}
		}
		return code
	}
	g.log.error(fmt.Errorf("%q is no command: see %s help", fs.Arg(0), g.self))
	return exitUsage
}

// usage shows the commands and the global flags.
func usage(w io.Writer, self string, fs *flag.FlagSet) {
	fmt.Fprintf(w, "%s runs containers from OCI bundles.\n\nUsage: %s [FLAG...] COMMAND [FLAG...] [ARG...]\n\nCommands:\n", self, self)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-28s %s\n", c.name+" "+c.args, c.help)
	}
	fmt.Fprintf(w, "\nFlags:\n")
	fs.SetOutput(w)
	fs.PrintDefaults()
}

// defaultRoot is where state is kept: of root's containers, or a user's own.
func defaultRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && os.Geteuid() != 0 {
		return filepath.Join(dir, "gantry-oci")
	}
	return "/run/gantry-oci"
}
