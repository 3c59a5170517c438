package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// execOptions are the flags of exec.
type execOptions struct {
	process, user, cwd, apparmor, label, consoleSocket, pidFile string
	tty, detach, noNewPrivs, ignorePaused                       bool
	env, caps, gids, groups                                     listFlag
	preserve                                                    int
}

func (o *execOptions) define(fs *flag.FlagSet) {
	both(fs, "process", "p", func(n string) { fs.StringVar(&o.process, n, "", "file with the process as JSON") })
	both(fs, "tty", "t", func(n string) { fs.BoolVar(&o.tty, n, false, "give it a terminal") })
	both(fs, "user", "u", func(n string) { fs.StringVar(&o.user, n, "", "UID[:GID]") })
	both(fs, "additional-gids", "g", func(n string) { fs.Var(&o.gids, n, "more group ids") })
	both(fs, "env", "e", func(n string) { fs.Var(&o.env, n, "NAME=value") })
	fs.StringVar(&o.cwd, "cwd", "", "working directory")
	both(fs, "cap", "c", func(n string) { fs.Var(&o.caps, n, "a capability more") })
	fs.BoolVar(&o.noNewPrivs, "no-new-privs", false, "let it gain no privileges")
	fs.StringVar(&o.apparmor, "apparmor", "", "AppArmor profile")
	fs.StringVar(&o.label, "process-label", "", "SELinux label")
	fs.IntVar(&o.preserve, "preserve-fds", 0, "pass so many descriptors on, from 3")
	fs.StringVar(&o.pidFile, "pid-file", "", "file to write the pid to")
	both(fs, "detach", "d", func(n string) { fs.BoolVar(&o.detach, n, false, "come back when it runs") })
	fs.StringVar(&o.consoleSocket, "console-socket", "", "unix socket that gets the master of the terminal")
	fs.Var(&o.groups, "cgroup", "[CONTROLLERS:]PATH below the container's cgroup")
	fs.BoolVar(&o.ignorePaused, "ignore-paused", false, "do not refuse a paused container: wait until it goes on")
	var subreaper bool
	fs.BoolVar(&subreaper, "no-subreaper", false, "has no effect: this runtime is none")
}

// execCode is what a failed exec ends with, apart from any program's own code.
const execCode = 255

// runExec is the command exec.
func runExec(ctx context.Context, g *globals, args []string) (int, error) {
	fs := newFlags("exec")
	var o execOptions
	o.define(fs)
	words, err := parseLeading(fs, g, args, 1)
	if err != nil {
		return exitUsage, err
	}
	c, err := load(g, words[0])
	if err != nil {
		return execCode, err
	}
	e := &execution{container: c, g: g, o: o}
	signals := catchSignals(o.detach)
	if err := e.run(ctx, words[1:]); err != nil {
		return execCode, err
	}
	defer e.pidfd.Close()
	if o.detach {
		return 0, nil
	}
	code, err := attend(e.pidfd, e.pid, e.master, signals)
	if err != nil {
		return execCode, err
	}
	return code, nil
}

// execution is one more program of a container.
type execution struct {
	*container
	g       *globals
	o       execOptions
	process *specs.Process
	files   oci.Files
	h       oci.ExecHandles
	init    *os.File // pidfd
	pid     int
	pidfd   *os.File
	master  *os.File
	frozen  bool
	group2  *os.File // the container's version 2 cgroup, in which the shim is to be born
}

// run starts the program and comes back when it runs.
func (e *execution) run(ctx context.Context, args []string) error {
	defer e.files.Close()
	if err := e.openGroups(); err != nil {
		return err
	}
	if err := e.running(); err != nil {
		return err
	}
	if err := e.openClass(); err != nil {
		return err
	}
	spawned := goSpawn(e.group2)
	b, err := e.config()
	if err == nil {
		err = e.fill(b, args)
	}
	if err == nil {
		err = e.prepare(b)
	}
	if err != nil {
		dismiss(spawned)
		return err
	}
	w := <-spawned
	if w.err != nil {
		return w.err
	}
	return e.launch(ctx, b, w.warm)
}

// running refuses a container in which nothing more can be run.
func (e *execution) running() error {
	switch {
	case e.making: // its masks and mounts may not be there yet
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "cannot exec in a container that is being created")
	case !e.Init.alive():
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "cannot exec in a stopped container")
	case e.frozen && !e.o.ignorePaused:
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "cannot exec in a paused container (use --ignore-paused to override)")
	}
	return nil
}

// launch hands the plan to the shim and follows it until the program runs.
func (e *execution) launch(ctx context.Context, b *bundle, warm *plan.Warm) error {
	p, err := oci.PlanExec(e.process, e.h)
	var encoded []byte
	if err == nil {
		encoded, err = p.Encode(len(e.files.All))
	}
	if err != nil {
		warm.Close()
		return err
	}
	conn, err := warm.Leave(ctx, encoded, e.files.All)
	if err != nil {
		return fmt.Errorf("start the shim: %w", err)
	}
	defer conn.Close()
	listen, err := b.listener(e.h.FilterFlags, func() *os.File { return e.pidfd }, func() specs.State { return e.specState(specs.StateRunning, e.pid) })
	if err != nil {
		return err
	}
	follow := &progress{g: e.g, conn: conn, onInit: e.begun, onTTY: e.terminal, listen: listen}
	if err := follow.until(ctx, plan.ReportRunning); err != nil {
		e.end()
		return e.failure(err, p)
	}
	if e.o.pidFile != "" {
		if err := writePIDFile(e.o.pidFile, e.pid); err != nil {
			e.end() // nobody would know of it
			return err
		}
	}
	return nil
}

// end kills the program, if it was begun, and reaps it.
func (e *execution) end() {
	if e.pidfd == nil {
		return
	}
	_, _ = sendSignal(e.pidfd, unix.SIGKILL)
	var status unix.WaitStatus
	_, _ = unix.Wait4(e.pid, &status, 0, nil)
	e.pidfd.Close()
}

// failure puts a start that failed into words.
func (e *execution) failure(err error, p *plan.Plan) error {
	root, openErr := os.OpenFile(fmt.Sprintf("/proc/%d/root", e.Init.PID), unix.O_PATH|unix.O_DIRECTORY, 0)
	if openErr != nil {
		return err
	}
	defer root.Close()
	return oci.StartError(err, &specs.Spec{Process: e.process}, p, root)
}

// begun notes the program's pid.
func (e *execution) begun(pid int) (err error) {
	e.pid = pid
	e.pidfd, err = openChild(pid)
	return err
}

// terminal takes the master of the program's pty.
func (e *execution) terminal(master *os.File) error {
	if e.o.consoleSocket == "" {
		e.master = master
		return nil
	}
	defer master.Close()
	return sendConsole(e.o.consoleSocket, master)
}

// fill states the process: from a file, or the container's own with what the
// flags say.
func (e *execution) fill(b *bundle, args []string) error {
	p := specs.Process{Cwd: "/"} // of a container that was made without a program
	if b.spec.Process != nil {
		p = *b.spec.Process
	}
	if e.o.process != "" {
		text, err := os.ReadFile(e.o.process)
		if err != nil {
			return fmt.Errorf("read process: %w", err)
		}
		p = specs.Process{}
		if err := json.Unmarshal(text, &p); err != nil {
			return errclass.Errorf(errdefs.ErrInvalidArgument, "decode process: %w", err)
		}
		if len(p.Args) == 0 {
			p.Args = args
		}
		p.Env = lastOf(p.Env)
	} else {
		if len(args) == 0 {
			return errclass.Errorf(errdefs.ErrInvalidArgument, "exec needs a program, or --process")
		}
		if err := e.overrule(&p, args); err != nil {
			return err
		}
	}
	if e.o.apparmor != "" {
		p.ApparmorProfile = e.o.apparmor
	}
	if e.o.label != "" {
		p.SelinuxLabel = e.o.label
	}
	e.process = &p
	if err := oci.CheckProcess(&p); err != nil {
		return err
	}
	if err := limitCaps(e.g, b.spec.Version, p.Capabilities); err != nil {
		return err
	}
	if err := oci.CheckModules(&p, oci.ReadMachine(&specs.Spec{Process: &p})); err != nil {
		return err
	}
	return checkTerminal(p.Terminal, e.o.consoleSocket, e.o.detach)
}

// overrule changes the container's process as the flags want it.
func (e *execution) overrule(p *specs.Process, args []string) error {
	p.Args, p.Terminal, p.ConsoleSize = args, e.o.tty, nil
	p.Env = lastOf(append(slices.Clip(p.Env), e.o.env...))
	if e.o.cwd != "" {
		p.Cwd = e.o.cwd
	}
	p.NoNewPrivileges = p.NoNewPrivileges || e.o.noNewPrivs
	if len(e.o.caps) > 0 {
		caps := specs.LinuxCapabilities{}
		if p.Capabilities != nil {
			caps = *p.Capabilities
		}
		more := func(set []string) []string { return append(slices.Clip(set), e.o.caps...) }
		caps.Bounding, caps.Effective, caps.Permitted = more(caps.Bounding), more(caps.Effective), more(caps.Permitted)
		if weak.Off(weak.NoInheritable) {
			caps.Inheritable = more(caps.Inheritable)
		}
		p.Capabilities = &caps
	}
	if e.o.user != "" {
		uid, gid, hasGID := strings.Cut(e.o.user, ":")
		ids := []string{uid}
		if hasGID {
			ids = append(ids, gid)
		}
		for i, id := range ids {
			n, err := strconv.ParseUint(id, 10, idBits())
			if err != nil {
				return errclass.Errorf(errdefs.ErrInvalidArgument, "user %q: want UID[:GID]", e.o.user)
			}
			*[]*uint32{&p.User.UID, &p.User.GID}[i] = uint32(n)
		}
	}
	for _, list := range e.o.gids {
		for _, id := range strings.Split(list, ",") {
			n, err := strconv.ParseUint(id, 10, 31)
			if err != nil {
				return errclass.Errorf(errdefs.ErrInvalidArgument, "additional gid %q: want a number", id)
			}
			p.User.AdditionalGids = append(slices.Clip(p.User.AdditionalGids), uint32(n))
		}
	}
	return nil
}

// idBits is the size of ids that all tools understand.
func idBits() int {
	if weak.Off(weak.IDRange) {
		return 64
	}
	return 31
}

// prepare opens what the plan names.
func (e *execution) prepare(b *bundle) (err error) {
	if e.init = e.Init.open(); e.init == nil {
		return errclass.Errorf(errdefs.ErrFailedPrecondition, "cannot exec in a stopped container")
	}
	e.h.CgroupDir, e.h.PIDFD = plan.NoFD, e.files.Add(e.init)
	if e.h.Join, err = e.differing(); err != nil {
		return err
	}
	if err := e.enterRoot(); err != nil {
		return err
	}
	if err := withHome(e.process, e.readInside); err != nil {
		return err
	}
	if e.h.Filter, e.h.FilterFlags, err = b.filter(e.g); err != nil {
		return err
	}
	if e.Keyring {
		e.h.Keyring = "_ses." + e.ID
	}
	if e.process.OOMScoreAdj != nil {
		e.h.OOMScore = ownScore()
	}
	if e.h.Programs, err = oci.ProgramPaths(e.process); err != nil {
		return err
	}
	if len(e.h.Programs) == 0 {
		return oci.NotInPath(e.process.Args[0])
	}
	leave := plan.Leave{Stdin: plan.NoFD, Stdout: plan.NoFD, Stderr: plan.NoFD}
	if !e.process.Terminal {
		std := e.files.Lend([]*os.File{os.Stdin, os.Stdout, os.Stderr})
		leave.Stdin, leave.Stdout, leave.Stderr = std[0], std[1], std[2]
	}
	leave.Keep, e.process.Env, err = passOn(&e.files, 0, e.o.preserve, e.process.Env)
	e.h.Front = []plan.Op{leave}
	return err
}

// readInside is a FileReader of the running container. Where it may not be looked
// into, it is as if there were no such file.
func (e *execution) readInside(name string, limit int64) ([]byte, error) {
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", e.Init.PID), unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return nil, unix.ENOENT
	}
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	defer root.Close()
	return linux.ReadInRoot(root, name, limit)
}

// differing are the namespaces of the container that are not this process's
// own; joining one's own user namespace is an error.
func (e *execution) differing() (uint64, error) {
	joins := e.Joins
	if joins&unix.CLONE_NEWUSER == 0 {
		return joins, nil
	}
	var own, its unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &own); err != nil {
		return 0, fmt.Errorf("look at own user namespace: %w", err)
	}
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/user", e.Init.PID), &its); err != nil {
		return 0, fmt.Errorf("look at the container's user namespace: %w", err)
	}
	if own.Ino == its.Ino {
		joins &^= unix.CLONE_NEWUSER
	}
	return joins, nil
}

// openGroups opens the ways into the container's cgroup, or into groups below it.
func (e *execution) openGroups() error {
	if len(e.Cgroup) == 0 {
		return nil
	}
	tree, err := cgroup.ReadTree()
	if err != nil {
		return err
	}
	place, err := below(e.Cgroup, e.o.groups)
	if err != nil {
		return err
	}
	for _, part := range place.ByName() {
		if err := e.openGroup(tree, part); err != nil {
			return err
		}
	}
	return nil
}

// openGroup opens the ways into the groups of one name.
func (e *execution) openGroup(tree cgroup.Tree, place cgroup.Place) error {
	group, err := tree.Open(place)
	if err != nil {
		return err
	}
	defer group.Close()
	frozen, err := group.Frozen()
	e.frozen = e.frozen || err == nil && frozen // no freezer: nothing is frozen
	entry, err := group.Entry()
	if err != nil {
		return err
	}
	e.h.Cgroups = append(e.h.Cgroups, e.files.AddAll(entry.Tasks)...)
	if entry.Dir != nil {
		e.files.Add(entry.Dir)
		e.group2 = entry.Dir
	}
	return nil
}

// below is a place with the groups that --cgroup names: for the controllers
// before a colon, or for all.
func below(place cgroup.Place, wants []string) (cgroup.Place, error) {
	if len(wants) == 0 {
		return place, nil
	}
	out := cgroup.Place{}
	for label, path := range place {
		out[label] = path
	}
	for _, want := range wants {
		controllers, sub, some := strings.Cut(want, ":")
		if !some {
			controllers, sub = "", want
		}
		found := false
		for label, path := range place {
			if controllers == "" || slices.ContainsFunc(strings.Split(controllers, ","), func(c string) bool { return slices.Contains(strings.Split(label, ","), c) }) {
				out[label] = filepath.Join(path, filepath.Clean("/"+sub))
				found = true
			}
		}
		if !found {
			return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "cgroup %q: the container has no such controller", want)
		}
	}
	return out, nil
}
