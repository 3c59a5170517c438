package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

// createFlags are the flags of create and run.
type createFlags struct {
	name       string
	env        []string
	workdir    string
	user       string
	network    string
	hostname   string
	entrypoint string
	memory     string
	cpus       string
	pids       int64
	capAdd     []string
	capDrop    []string
	readOnly   bool
	privileged bool
	rm         bool
	stdin      bool
	labels     []string
	stopSignal string
	stopAfter  int
	security   []string
	logDriver  string
}

func (f *createFlags) register(c *cobra.Command) {
	p := c.Flags()
	p.SetInterspersed(false) // what follows the image is the program's
	p.StringVar(&f.name, "name", "", "name of the container")
	p.StringArrayVarP(&f.env, "env", "e", nil, "set an environment variable: NAME=value, or NAME to take yours")
	p.StringVarP(&f.workdir, "workdir", "w", "", "working directory inside")
	p.StringVarP(&f.user, "user", "u", "", "user: name|uid[:group|gid]")
	p.StringVar(&f.network, "network", "", "network to connect to: bridge, host, none or one of yours")
	p.StringVar(&f.network, "net", "", "the same as --network")
	p.StringVarP(&f.hostname, "hostname", "h", "", "host name inside")
	p.StringVar(&f.entrypoint, "entrypoint", "", "program to run instead of the image's entrypoint")
	p.StringVarP(&f.memory, "memory", "m", "", "memory limit, e.g. 64m")
	p.StringVar(&f.cpus, "cpus", "", "processors, e.g. 1.5")
	p.Int64Var(&f.pids, "pids-limit", 0, "most processes and threads; -1 for no limit")
	p.StringArrayVar(&f.capAdd, "cap-add", nil, "add a capability, or ALL")
	p.StringArrayVar(&f.capDrop, "cap-drop", nil, "drop a capability, or ALL")
	p.BoolVar(&f.readOnly, "read-only", false, "mount the root filesystem read-only")
	p.BoolVar(&f.privileged, "privileged", false, "give it every right that the engine has")
	p.BoolVar(&f.rm, "rm", false, "remove the container when it ends")
	p.BoolVarP(&f.stdin, "interactive", "i", false, "keep its standard input open")
	p.StringArrayVarP(&f.labels, "label", "l", nil, "set a label: NAME=value")
	p.StringVar(&f.stopSignal, "stop-signal", "", "signal that stop sends first")
	p.IntVar(&f.stopAfter, "stop-timeout", 0, "seconds until stop kills it")
	p.StringArrayVar(&f.security, "security-opt", nil, "no-new-privileges, seccomp=unconfined")
	p.StringVar(&f.logDriver, "log-driver", "", "how output is kept: local, json-file (the same) or none")
	p.Bool("help", false, "tell about this command") // without a short form: -h is the host name
	if net := p.Lookup("net"); net != nil {
		net.Hidden = true
	}
}

func (a *app) createCmd() *cobra.Command {
	var f createFlags
	c := &cobra.Command{
		Use: "create [flags] IMAGE [COMMAND] [ARG...]", Short: "Make a container without starting it", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cmd, err := f.command(a, c, args)
			if err != nil {
				return err
			}
			cmd.Want = core.Stopped
			if _, err := a.create(c.Context(), cmd); err != nil {
				return err
			}
			fmt.Fprintln(a.Stdout, cmd.ID)
			return nil
		},
	}
	f.register(c)
	return c
}

// command is what the flags and arguments ask for; Want is left open.
func (f *createFlags) command(a *app, c *cobra.Command, args []string) (*core.CreateContainer, error) {
	spec, err := f.spec(a, c, args[1:])
	if err != nil {
		return nil, &usageError{err, c.CommandPath()}
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
	var err error
	p := &sp.Process
	p.Cmd, p.Cwd, p.User, p.OpenStdin = cmd, f.workdir, f.user, f.stdin
	if c.Flags().Changed("entrypoint") {
		p.Entrypoint = []string{f.entrypoint}
	}
	if p.Env, err = a.environment(f.env); err != nil {
		return sp, err
	}
	if f.stopSignal != "" {
		if p.StopSignal, err = parseSignal(f.stopSignal); err != nil {
			return sp, err
		}
	}
	if f.stopAfter < 0 {
		return sp, fmt.Errorf("stop timeout of %d seconds: want none or more", f.stopAfter)
	}
	p.StopTimeout = seconds(f.stopAfter)
	sp.Rootfs.ReadOnly = f.readOnly
	if err := f.limits(&sp.Resources); err != nil {
		return sp, err
	}
	if err := f.secure(&sp.Security); err != nil {
		return sp, err
	}
	sp.Network = core.NetworkSpec{Hostname: f.hostname, Network: f.network}
	sp.Logging.Driver = f.logDriver
	sp.Labels, err = pairs("label", f.labels)
	return sp, err
}

// limits reads the flags about resources.
func (f *createFlags) limits(r *core.Resources) error {
	var err error
	if f.memory != "" {
		if r.MemoryBytes, err = parseBytes(f.memory); err != nil {
			return fmt.Errorf("memory limit: %w", err)
		}
	}
	if f.cpus != "" {
		if r.NanoCPUs, err = parseCPUs(f.cpus); err != nil {
			return err
		}
	}
	if f.pids < -1 {
		return fmt.Errorf("pids limit of %d: want a positive number, or -1 for none", f.pids)
	}
	r.PidsLimit = f.pids
	return nil
}

// secure reads the flags about what the process may do.
func (f *createFlags) secure(s *core.Security) error {
	s.Privileged = f.privileged
	s.CapAdd, s.CapDrop = capabilities(f.capAdd), capabilities(f.capDrop)
	for _, opt := range f.security {
		switch name, value, _ := strings.Cut(strings.Replace(opt, ":", "=", 1), "="); {
		case name == "no-new-privileges" && (value == "" || value == "true"):
			s.NoNewPrivileges = true
		case name == "no-new-privileges" && value == "false":
			s.NoNewPrivileges = false
		case name == "seccomp" && value == "unconfined":
			s.Seccomp = "unconfined"
		case name == "seccomp" && value == "builtin":
			s.Seccomp = ""
		default:
			return fmt.Errorf("--security-opt %s is not supported yet", opt)
		}
	}
	return nil
}

// capabilities are the names in the kernel's way of writing: with CAP_ in front.
func capabilities(names []string) []string {
	var caps []string
	for _, n := range names {
		n = strings.ToUpper(n)
		if n != "ALL" && !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		caps = append(caps, n)
	}
	return caps
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

// create sends the command. A name that nobody chose is made here, and made
// anew when it is taken.
func (a *app) create(ctx context.Context, cmd *core.CreateContainer) (sent, error) {
	const tries = 20
	named := cmd.Name != ""
	for try := 0; ; try++ {
		if !named {
			cmd.Name = randomName()
		}
		s, err := a.send(ctx, cmd)
		switch {
		case err == nil || named && errdefs.IsAlreadyExists(err):
			return s, err
		case errdefs.IsAlreadyExists(err) && try < tries:
			continue
		}
		return s, a.explain(ctx, cmd, err)
	}
}

// explain adds the nearest right name to the refusal of a create.
func (a *app) explain(ctx context.Context, cmd *core.CreateContainer, err error) error {
	if !errdefs.IsNotFound(err) || errclass.Hint(err) != "" {
		return err
	}
	if _, near := a.resolve(ctx, core.KindImage, cmd.Image); errdefs.IsNotFound(near) {
		hint := errclass.Hint(near)
		if hint == "" {
			hint = "images come from archives: gantry load -i FILE"
		}
		return &unknownImage{errclass.WithHint(near, hint), cmd.Image}
	}
	network := cmd.Spec.Network.Network
	if _, near := a.resolve(ctx, core.KindNetwork, network); network != "" && errdefs.IsNotFound(near) {
		return near
	}
	return err
}

// unknownImage is a create's refusal for want of its image.
type unknownImage struct {
	error
	image string
}

func (e *unknownImage) Unwrap() error { return e.error }

// sayUnknown tells Docker's users what they know before the error itself.
func (a *app) sayUnknown(err error) {
	var unknown *unknownImage
	if errors.As(err, &unknown) {
		fmt.Fprintf(a.Stderr, "Unable to find image '%s' locally\n", withTag(unknown.image))
	}
}
