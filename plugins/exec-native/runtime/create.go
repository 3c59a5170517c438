package runtime

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// createOptions are the flags of create and run.
type createOptions struct {
	bundle, consoleSocket, pidFile string
	noPivot, noKeyring             bool
	preserve                       int // descriptors from 3 on that the program gets
	detach, keep                   bool
	gate                           bool // wait to be started
}

// define adds the flags that create and run have in common.
func (o *createOptions) define(fs *flag.FlagSet) {
	both(fs, "bundle", "b", func(n string) { fs.StringVar(&o.bundle, n, "", "directory of config.json; the present one without it") })
	fs.StringVar(&o.consoleSocket, "console-socket", "", "unix socket that gets the master of the terminal")
	fs.StringVar(&o.pidFile, "pid-file", "", "file to write the pid of the first process to")
	fs.BoolVar(&o.noPivot, "no-pivot", false, "do not pivot the root, for one that is a ramdisk")
	fs.BoolVar(&o.noKeyring, "no-new-keyring", false, "keep the caller's session keyring")
	fs.IntVar(&o.preserve, "preserve-fds", 0, "pass so many descriptors on, from 3")
	var subreaper bool
	fs.BoolVar(&subreaper, "no-subreaper", false, "has no effect: this runtime is none")
}

// runCreate is the command create.
func runCreate(ctx context.Context, g *globals, args []string) (int, error) {
	fs := newFlags("create")
	o := createOptions{gate: true, detach: true}
	o.define(fs)
	ids, err := parse(fs, g, args, 1, 1)
	if err != nil {
		return exitUsage, err
	}
	if code, entered, err := enterUser(g, o); entered {
		return code, err
	}
	c, err := create(ctx, g, ids[0], o)
	if err != nil {
		return exitFailed, err
	}
	c.release()
	return 0, nil
}

// create makes a container up to its gate, or, without one, its running program.
// After an error nothing is left.
func create(ctx context.Context, g *globals, id string, o createOptions) (*creation, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	spawned := goSpawn(nil) // takes a millisecond, as all that is looked at meanwhile
	c, err := newCreation(g, id, o)
	if err != nil {
		dismiss(spawned)
		return nil, err
	}
	lock, sign, err := c.claim()
	if err != nil {
		dismiss(spawned)
		return nil, err
	}
	defer lock.Close()
	defer sign.Close()
	if err := c.make(ctx, spawned); err != nil {
		c.undo(ctx)
		if c.byHook { // the life goes on at its end (runtime.md "Lifecycle", steps 3 to 5)
			c.tellPoststop(ctx, g)
		}
		return nil, err
	}
	return c, nil
}

// newCreation reads the bundle and refuses what cannot be.
func newCreation(g *globals, id string, o createOptions) (*creation, error) {
	dir, err := filepath.Abs(o.bundle)
	if err != nil {
		return nil, err
	}
	b, err := readConfig(filepath.Join(dir, configFile), dir)
	if err != nil {
		return nil, err
	}
	if err := oci.Check(b.spec, oci.ReadMachine(b.spec)); err != nil {
		return nil, err
	}
	if b.spec.Process == nil && !o.gate {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "process is missing: there is nothing to run")
	}
	c := &creation{g: g, o: o, b: b, container: &container{dir: filepath.Join(g.root, id)}}
	if b.spec.Process == nil {
		c.idle, b.spec.Process = true, idleProcess()
	}
	if err := checkTerminal(b.spec.Process.Terminal, o.consoleSocket, o.detach); err != nil {
		return nil, err
	}
	if err := limitCaps(g, b.spec.Version, b.spec.Process.Capabilities); err != nil {
		return nil, err
	}
	c.state = state{
		Version: specs.Version, ID: id, Bundle: dir, Rootfs: b.spec.Root.Path, Created: time.Now().UTC(),
		Owner: os.Geteuid(), Annotations: b.spec.Annotations, Keyring: !o.noKeyring,
	}
	c.OwnPIDs, c.Joins = namespacesOf(b.spec)
	if isInner() {
		b.settleIn()
	}
	return c, nil
}

// idleProcess stands in for the process that a specification does not have. The
// init waits at its gate, which start never opens then; what it would execute is
// nothing that can be.
func idleProcess() *specs.Process {
	return &specs.Process{Cwd: "/", Args: []string{"/"}}
}

// checkTerminal refuses a terminal that nobody would have the other end of, and a
// socket that nothing would come through.
func checkTerminal(terminal bool, socket string, detach bool) error {
	switch {
	case terminal && detach && socket == "":
		return errclass.Errorf(errdefs.ErrInvalidArgument, "cannot allocate tty if runtime will detach without setting console socket")
	case socket != "" && !terminal:
		return errclass.Errorf(errdefs.ErrInvalidArgument, "cannot use console socket if runtime will not detach or allocate tty")
	}
	return nil
}

// namespacesOf says what another program of the container will join.
func namespacesOf(s *specs.Spec) (ownPIDs bool, joins uint64) {
	for _, ns := range s.Linux.Namespaces {
		if flag, err := oci.NamespaceFlag(ns.Type); err == nil {
			joins |= flag
		}
		ownPIDs = ownPIDs || ns.Type == specs.PIDNamespace && ns.Path == ""
	}
	return ownPIDs, joins
}

// claim makes the container's directory, which is its id's, and locks it. The sign
// is the copy of the specification, by whose lock others know a creation.
func (c *creation) claim() (lock, sign *os.File, err error) {
	if err := os.MkdirAll(c.g.root, 0o711); err != nil {
		return nil, nil, fmt.Errorf("make root of states: %w", err)
	}
	taken := errclass.Errorf(errdefs.ErrAlreadyExists, "container with id %s already exists: container with given ID already exists", c.ID)
	if err := os.Mkdir(c.dir, 0o700); errors.Is(err, os.ErrExist) {
		return nil, nil, taken
	} else if err != nil {
		return nil, nil, fmt.Errorf("make directory of state: %w", err)
	}
	if lock, err = c.lock(); err != nil {
		return nil, nil, err // somebody was quick to delete it
	}
	sign, err = os.OpenFile(filepath.Join(c.dir, configFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) { // and to make another
		lock.Close()
		return nil, nil, taken
	}
	if err == nil {
		if err = flock(sign, unix.LOCK_EX); err == nil {
			_, err = sign.Write(c.b.text)
		}
	}
	if err != nil {
		_ = os.RemoveAll(c.dir)
		sign.Close()
		lock.Close()
		return nil, nil, fmt.Errorf("keep specification: %w", err)
	}
	return lock, sign, nil
}

// early reports whether namespaces are joined before the clone, by the shim: it
// must then be born in the version 2 cgroup, out of whose reach it gets.
func (c *creation) early() bool {
	user, _ := oci.HasNamespace(c.b.spec, specs.UserNamespace)
	for _, ns := range c.b.spec.Linux.Namespaces {
		if ns.Path != "" && (user || ns.Type == specs.PIDNamespace || ns.Type == specs.TimeNamespace || ns.Type == specs.MountNamespace) {
			return true
		}
	}
	return false
}

// make prepares the container and has the shim make it.
func (c *creation) make(ctx context.Context, spawned <-chan warmShim) error {
	defer c.files.Close()
	shim, err := c.prepare(ctx, spawned)
	if shim.warm != nil && (err != nil || c.early()) {
		shim.warm.Close()
	}
	if err != nil {
		return err
	}
	if c.early() {
		if shim = <-goSpawn(c.born); shim.err != nil {
			return shim.err
		}
		c.h.CgroupDir = plan.NoFD
	}
	return c.launch(ctx, shim.warm)
}

// dismiss lets a shim leave that is not needed.
func dismiss(spawned <-chan warmShim) {
	if w := <-spawned; w.warm != nil {
		w.warm.Close()
	}
}

// launch hands the plan to the shim and follows it.
func (c *creation) launch(ctx context.Context, warm *plan.Warm) error {
	encoded, p, err := c.plan()
	if err != nil {
		warm.Close()
		return err
	}
	conn, err := warm.Leave(ctx, encoded, c.files.All)
	if err != nil {
		return c.starved(fmt.Errorf("start the shim: %w", err))
	}
	defer conn.Close()
	listen, err := c.b.listener(c.h.FilterFlags, func() *os.File { return c.pidfd }, func() specs.State { return c.specState(specs.StateCreating, c.Init.PID) })
	if err != nil {
		return err
	}
	follow := &progress{g: c.g, conn: conn, onInit: c.begun, onTTY: c.terminal, onSync: c.outside, listen: listen}
	want := plan.ReportRunning
	if c.o.gate {
		want = plan.ReportGate
	}
	if err := follow.until(ctx, want); err != nil {
		c.byHook = failedHook(err)
		return c.starved(oci.StartError(err, c.b.spec, p, c.root))
	}
	if c.o.pidFile != "" {
		return writePIDFile(c.o.pidFile, c.Init.PID)
	}
	return nil
}

// starved is why a start has failed where the kernel has killed in the container's
// cgroup, and else what it was told.
func (c *creation) starved(failed error) error {
	group, err := c.group()
	if err != nil {
		return failed
	}
	defer group.Close()
	if kills, err := group.OOMKills(); err != nil || kills == 0 {
		return failed
	}
	return errclass.Errorf(errdefs.ErrResourceExhausted, "start container: its first process was killed for want of memory: linux.resources.memory.limit is too small")
}

// plan computes the plan.
func (c *creation) plan() ([]byte, *plan.Plan, error) {
	leave := plan.Leave{Stdin: plan.NoFD, Stdout: plan.NoFD, Stderr: plan.NoFD}
	if !c.b.spec.Process.Terminal {
		std := c.files.Lend([]*os.File{os.Stdin, os.Stdout, os.Stderr})
		leave.Stdin, leave.Stdout, leave.Stderr = std[0], std[1], std[2]
	}
	var err error
	if leave.Keep, c.b.spec.Process.Env, err = passOn(&c.files, activated(), c.o.preserve, c.b.spec.Process.Env); err != nil {
		return nil, nil, err
	}
	c.h.Front = []plan.Op{leave}
	if c.o.gate {
		gate, err := plan.ListenGate(c.dir, gateName)
		if err != nil {
			return nil, nil, err
		}
		c.h.Gate = plan.StartGate{FD: c.files.Add(gate)}
	}
	p, err := oci.Plan(c.b.spec, c.h)
	if err != nil {
		return nil, nil, err
	}
	encoded, err := p.Encode(len(c.files.All))
	if err != nil {
		return nil, nil, errclass.Errorf(errdefs.ErrInvalidArgument, "encode plan: %w", err)
	}
	return encoded, p, nil
}

// activated is how many descriptors of socket activation are meant for the
// container: the caller names the process that they are for (sd_listen_fds(3)), which
// is this one, or the one that runs it in a user namespace.
func activated() int {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) && !isInner() {
		return 0
	}
	return max(n, 0)
}

// passOn lends the descriptors that the program is to get: those of socket
// activation, then as many as were asked for.
func passOn(files *oci.Files, activated, preserve int, env []string) ([]plan.FD, []string, error) {
	if preserve < 0 || preserve+activated > plan.MaxKeep {
		return nil, nil, errclass.Errorf(errdefs.ErrInvalidArgument, "preserve-fds %d: want 0 to %d", preserve, plan.MaxKeep-activated)
	}
	if activated > 0 {
		env = append(env[:len(env):len(env)], "LISTEN_FDS="+strconv.Itoa(activated), "LISTEN_PID=1")
	}
	var keep []plan.FD
	for fd := 3; fd < 3+activated+preserve; fd++ {
		// A copy: descriptors of our own may have taken a number that the caller
		// has left free.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, nil, errclass.Errorf(errdefs.ErrInvalidArgument, "descriptor %d is to be passed on, but was not handed to us", fd)
		}
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, nil, fmt.Errorf("descriptor %d: %w", fd, err)
		}
		keep = append(keep, files.Add(os.NewFile(uintptr(dup), "passed on")))
	}
	return keep, env, nil
}

// begun notes the first process, as soon as it exists: whoever finds a creation
// that broke off knows what to kill.
func (c *creation) begun(pid int) (err error) {
	if c.Init, err = identify(pid); err != nil {
		return err
	}
	c.g.log.note("container %s: its first process is %d", c.ID, pid)
	// Our child: until we wait for it, which a short program is quick to make us,
	// its pid is not another's.
	if c.pidfd, err = openChild(pid); err != nil {
		return err
	}
	return c.save()
}

// terminal takes the master of the program's pty.
func (c *creation) terminal(master *os.File) error {
	if c.o.consoleSocket == "" {
		c.master = master
		return nil
	}
	defer master.Close()
	return sendConsole(c.o.consoleSocket, master)
}

// outside does what has to be done from outside while the init waits before the
// pivot.
func (c *creation) outside(ctx context.Context) error {
	if err := c.moveDevices(); err != nil {
		return err
	}
	if c.b.spec.Hooks == nil {
		return nil
	}
	ctx, cancel := c.whileInit(ctx)
	defer cancel()
	state := c.specState(specs.StateCreating, c.Init.PID)
	//lint:ignore SA1019 a deprecated kind is run as long as specifications name it
	if err := runHooks(ctx, "prestart", c.b.spec.Hooks.Prestart, state); err != nil {
		return err
	}
	return runHooks(ctx, "createRuntime", c.b.spec.Hooks.CreateRuntime, state)
}

// whileInit is over when the init has ended: whoever deletes a container by force
// is not kept waiting by a hook of its creation.
func (c *creation) whileInit(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	init := c.pidfd
	go func() {
		if awaitPidfd(ctx, init) {
			cancel(errors.New("the container's init was lost meanwhile"))
		}
	}()
	return ctx, func() { cancel(nil) }
}

// undoTimeout bounds how long an end may take.
const undoTimeout = 10 * time.Second

// undo removes all of a creation that failed.
func (c *creation) undo(ctx context.Context) {
	if c.pidfd != nil {
		_, _ = sendSignal(c.pidfd, unix.SIGKILL)
		var status unix.WaitStatus
		_, _ = unix.Wait4(c.Init.PID, &status, 0, nil) // it is this process's child
	}
	c.release()
	if err := c.discard(ctx, c.g); err != nil {
		c.g.log.warn("undo the creation: %v", err)
	}
}

// release lets go of what a creation holds for its caller.
func (c *creation) release() {
	if c.pidfd != nil {
		c.pidfd.Close()
		c.pidfd = nil
	}
	if c.unheld != nil {
		c.unheld()
		c.unheld = nil
	}
}

// writePIDFile writes the pid for callers, whole or not at all.
func writePIDFile(path string, pid int) error {
	dir, name := filepath.Split(path)
	temp := filepath.Join(dir, "."+name)
	if err := os.WriteFile(temp, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}
