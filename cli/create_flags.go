package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gantryd/gantry/core"
)

// createFlags are the flags of create and run.
type createFlags struct {
	name       string
	workdir    string
	user       string
	groups     []string
	hostname   string
	domain     string
	entrypoint string
	readOnly   bool
	shm        string
	rm         bool
	stdin      bool
	tty        bool
	init       bool
	attach     []string
	stopSignal string
	stopAfter  int
	oomScore   int
	cidFile    string
	pull       string
	detachKeys string

	variables variableFlags
	labels    labelFlags
	limits    limitFlags
	devices   deviceLimitFlags
	security  securityFlags
	spaces    namespaceFlags
	mounts    mountFlags
	health    healthFlags
	restart   restartFlags
	logging   loggingFlags
}

func (f *createFlags) register(c *cobra.Command) {
	p := c.Flags()
	p.SetInterspersed(false) // what follows the image is the program's
	p.StringVar(&f.name, "name", "", "name of the container")
	p.StringVarP(&f.workdir, "workdir", "w", "", "working directory inside")
	p.StringVarP(&f.user, "user", "u", "", "user: name|uid[:group|gid]")
	listVar(p, &f.groups, "group-add", "further groups of the user: name|gid")
	p.StringVarP(&f.hostname, "hostname", "h", "", "host name inside")
	p.StringVar(&f.domain, "domainname", "", "NIS domain name inside")
	p.StringVar(&f.entrypoint, "entrypoint", "", "program to run instead of the image's entrypoint")
	p.BoolVar(&f.readOnly, "read-only", false, "mount the root filesystem read-only")
	p.StringVar(&f.shm, "shm-size", "", "size of /dev/shm (default 64m)")
	p.BoolVar(&f.rm, "rm", false, "remove the container when it ends")
	p.BoolVarP(&f.stdin, "interactive", "i", false, "keep its standard input open")
	p.BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	p.BoolVar(&f.init, "init", false, "run a small init inside that forwards signals and reaps processes")
	listVarP(p, &f.attach, "attach", "a", "attach to stdin, stdout or stderr only")
	p.StringVar(&f.stopSignal, "stop-signal", "", "signal that stop sends first")
	p.IntVar(&f.stopAfter, "stop-timeout", 0, "seconds until stop kills it")
	p.IntVar(&f.oomScore, "oom-score-adj", 0, "how readily the kernel kills it for want of memory, -1000 to 1000")
	p.StringVar(&f.cidFile, "cidfile", "", "write the container's id to this new file")
	p.StringVar(&f.pull, "pull", "never", "images come from archives: never is all there is")
	registerDetachKeys(p, &f.detachKeys)
	f.variables.register(p)
	f.labels.register(p)
	f.limits.register(p)
	f.devices.register(p)
	f.security.register(p)
	f.spaces.register(p)
	f.mounts.register(p)
	f.health.register(p)
	f.restart.register(p)
	f.logging.register(p)
	p.Bool("help", false, "tell about this command") // without a short form: -h is the host name
}

func registerDetachKeys(p *pflag.FlagSet, keys *string) {
	p.StringVar(keys, "detach-keys", "", "keys that detach from a terminal, e.g. ctrl-a,x (default "+defaultDetachKeys+")")
}

// command is what the flags and arguments ask for; Want is left open.
func (f *createFlags) command(a *app, c *cobra.Command, args []string) (*core.CreateContainer, error) {
	spec, err := f.spec(a, c, args[1:])
	if err != nil {
		return nil, &usageError{err, c.CommandPath()}
	}
	if err := f.spaces.resolve(c.Context(), a, &spec); err != nil {
		return nil, err
	}
	image, err := a.imageRef(c.Context(), args[0])
	if err != nil {
		return nil, err
	}
	return &core.CreateContainer{
		ID: core.ContainerID(newID()), Name: f.name, Image: image, Spec: spec, AutoRemove: f.rm,
	}, nil
}

// spec is what the flags say that the container is to be.
func (f *createFlags) spec(a *app, c *cobra.Command, cmd []string) (core.Spec, error) {
	var sp core.Spec
	if f.pull != "never" {
		return sp, fmt.Errorf("--pull %s is not supported yet", f.pull)
	}
	if f.rm && f.restart.policy != "" && f.restart.policy != "no" {
		return sp, errors.New("conflicting options: --restart and --rm")
	}
	if err := f.process(a, c, &sp.Process, cmd); err != nil {
		return sp, err
	}
	sp.Rootfs.ReadOnly = f.readOnly
	sp.Network.Hostname, sp.Network.Domain = f.hostname, f.domain
	sp.Security.OOMScoreAdj = f.oomScore
	var err error
	if sp.Rootfs.ShmBytes, err = sizeFlag("shm-size", f.shm); err != nil {
		return sp, err
	}
	flags := c.Flags()
	for _, read := range []func() error{
		func() error { return f.limits.read(flags, &sp.Resources) },
		func() error { return f.devices.read(flags, &sp.Resources) },
		func() error { return f.security.read(&sp.Security) },
		func() error { return f.spaces.read(&sp) },
		func() (err error) { sp.Mounts, err = f.mounts.read(); return err },
		func() (err error) { sp.Health, err = f.health.read(flags); return err },
		func() (err error) { sp.Restart, err = f.restart.read(); return err },
		func() (err error) { sp.Logging, err = f.logging.read(); return err },
		func() (err error) { sp.Labels, err = f.labels.read(); return err },
		func() error { _, err := parseDetachKeys(f.detachKeys); return err },
	} {
		if err := read(); err != nil {
			return sp, err
		}
	}
	return sp, nil
}

func (f *createFlags) process(a *app, c *cobra.Command, p *core.Process, cmd []string) error {
	p.Cmd, p.Cwd, p.User, p.Groups = cmd, f.workdir, f.user, f.groups
	p.OpenStdin, p.TTY, p.Init = f.stdin, f.tty, f.init
	if c.Flags().Changed("entrypoint") {
		p.Entrypoint = []string{f.entrypoint}
	}
	var err error
	if p.Env, err = f.variables.read(a); err != nil {
		return err
	}
	if f.stopSignal != "" {
		if p.StopSignal, err = parseSignal(f.stopSignal); err != nil {
			return err
		}
	}
	if f.stopAfter < 0 {
		return fmt.Errorf("stop timeout of %d seconds: want none or more", f.stopAfter)
	}
	p.StopTimeout = seconds(f.stopAfter)
	for i, s := range f.attach {
		f.attach[i] = strings.ToLower(s)
		if !slices.Contains([]string{"stdin", "stdout", "stderr"}, f.attach[i]) {
			return fmt.Errorf("invalid argument %q for --attach: valid streams are STDIN, STDOUT and STDERR", s)
		}
	}
	return nil
}

// writeCID writes the id to the file that --cidfile names, before anything is made:
// a container whose id cannot be told is not to be. unwrite takes that back.
func (f *createFlags) writeCID(id core.ContainerID) (unwrite func(), err error) {
	if f.cidFile == "" {
		return func() {}, nil
	}
	file, err := os.OpenFile(f.cidFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", f.cidFile)
	}
	if err != nil {
		return nil, fmt.Errorf("write the container ID file: %w", err)
	}
	unwrite = func() { _ = os.Remove(f.cidFile) } // what went wrong before matters more
	_, err = file.WriteString(string(id))
	if err = errors.Join(err, file.Close()); err != nil {
		unwrite()
		return nil, fmt.Errorf("write the container ID file: %w", err)
	}
	return unwrite, nil
}

// variableFlags are those about the environment.
type variableFlags struct{ env, files []string }

func (f *variableFlags) register(p *pflag.FlagSet) {
	listVarP(p, &f.env, "env", "e", "set an environment variable: NAME=value, or NAME to take yours")
	listVar(p, &f.files, "env-file", "set those in a file, one a line")
}

func (f *variableFlags) read(a *app) ([]core.Env, error) {
	var list []string
	for _, file := range f.files {
		lines, err := readLines(file)
		if err != nil {
			return nil, err
		}
		list = append(list, lines...)
	}
	return a.environment(append(list, f.env...))
}

// labelFlags are those about labels.
type labelFlags struct{ labels, files []string }

func (f *labelFlags) register(p *pflag.FlagSet) {
	listVarP(p, &f.labels, "label", "l", "set a label: NAME=value")
	listVar(p, &f.files, "label-file", "set those in a file, one a line")
}

func (f *labelFlags) read() (map[string]string, error) {
	var list []string
	for _, file := range f.files {
		lines, err := readLines(file)
		if err != nil {
			return nil, err
		}
		list = append(list, lines...)
	}
	return pairs("label", append(list, f.labels...))
}

// readLines reads a file of NAME=value lines. Empty ones and those that begin
// with # are comments; a name holds no white space.
func readLines(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []string
	text := strings.TrimPrefix(string(data), "\ufeff") // what editors of another system begin files with
	for line := range strings.Lines(text) {
		line = strings.TrimRight(strings.TrimLeft(line, " \t"), "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		name, _, _ := strings.Cut(line, "=")
		if name == "" {
			return nil, fmt.Errorf("%s: no variable name on line %q", path, line)
		}
		if strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("%s: variable %q contains white space", path, name)
		}
		list = append(list, line)
	}
	return list, nil
}

// environment reads NAME=value, and NAME for the caller's own value; a name that
// the caller does not have either is left out.
func (a *app) environment(list []string) ([]core.Env, error) {
	var env []core.Env
	for _, e := range list {
		name, value, given := strings.Cut(e, "=")
		if name == "" {
			return nil, fmt.Errorf("environment variable %q has no name", e)
		}
		if !given {
			var set bool
			if value, set = a.LookupEnv(name); !set {
				continue
			}
		}
		env = append(env, core.Env{Name: name, Value: value})
	}
	return env, nil
}

// pairs reads NAME=value; a name alone has the empty value.
func pairs(what string, list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(list))
	for _, e := range list {
		name, value, _ := strings.Cut(e, "=")
		if name == "" {
			return nil, fmt.Errorf("%s %q has no name", what, e)
		}
		m[name] = value
	}
	return m, nil
}
