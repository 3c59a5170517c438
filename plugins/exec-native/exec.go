package execnative

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// joinAll are the namespaces that an exec enters with its container's first
// process. Entering one that is the host's own changes nothing, except that
// the kernel refuses the user namespace one is in already (setns(2)).
const joinAll = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// Exec implements execdriver.Execer.
func (d *native) Exec(ctx context.Context, r execdriver.Exec) (execdriver.Started, error) {
	if err := checkExec(r.Key, r.Process); err != nil {
		return execdriver.Started{}, err
	}
	if r.Exec == "" {
		return execdriver.Started{}, driver.Errorf(errdefs.ErrInvalidArgument, "Exec is empty: an exec needs an id")
	}
	return d.startOnce(ctx, r.Key, func(ctx context.Context, one *run) (*plan.Conn, error) {
		one.set = setting{}
		e := joiner{process: r.Process, privileged: r.Privileged, stdio: r.Stdio}
		return d.launchExec(ctx, one, e, nil)
	})
}

// checkExec refuses what cannot be, by field and value.
func checkExec(k execdriver.Key, p execdriver.Process) error {
	if err := checkKey(k); err != nil {
		return err
	}
	return checkProcess(p)
}

// joiner is a process that enters a running container.
type joiner struct {
	process    execdriver.Process
	privileged bool
	stdio      execdriver.Stdio
	timeout    time.Duration // of a probe; 0 for none
}

// host is the running container that an exec enters.
type host struct {
	set   setting
	pidfd *os.File // of its first process
	root  *os.File // its root directory
}

func (h *host) close() {
	h.pidfd.Close()
	if h.root != nil {
		h.root.Close()
	}
}

// ended reports whether its first process is no more.
func (h *host) ended() bool { return linux.AwaitExit(h.pidfd, 0) }

// enter finds the container that an exec belongs to, and holds it.
//
// FailedPrecondition: it does not run, or is frozen, where a joiner of
// version 1 would hang.
func (d *native) enter(one *run) (*host, error) {
	k := one.key
	k.Exec = ""
	pidfd, pid, err := d.holdRun(k)
	if err != nil {
		return nil, err
	}
	h := &host{pidfd: pidfd}
	d.mu.Lock()
	r := d.runs[k]
	killed := r != nil && r.killed
	d.mu.Unlock()
	if r == nil || killed {
		h.close()
		return nil, dead(k)
	}
	one.set.Parent, h.set = r.set.Parent, r.set
	frozen, err := d.group(r).Frozen()
	if err == nil && frozen {
		err = driver.Errorf(errdefs.ErrFailedPrecondition, "%s is paused: unpause it first", what(k))
	}
	if err == nil {
		h.root, err = os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	// The pid was its own if it lives still. One that is just ending has no root.
	if gone := unix.PidfdSendSignal(int(pidfd.Fd()), 0, nil, 0); gone != nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		err = dead(k)
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// dead is the answer to whoever wants to join a container that does not run.
func dead(k execdriver.Key) error {
	return driver.Errorf(errdefs.ErrFailedPrecondition, "container %.12s is not running", k.Container)
}

// launchExec prepares an exec, hands it to a shim and waits until its program
// runs. listen, if there is one, is run beside, once the shim can be reached.
func (d *native) launchExec(ctx context.Context, one *run, e joiner, listen func()) (*plan.Conn, error) {
	if err := d.discardEarlier(ctx, one); err != nil {
		return nil, err
	}
	in, err := d.enter(one)
	if err != nil {
		return nil, err
	}
	defer in.close()
	return d.launchIn(ctx, one, e, in, listen)
}

// launchIn is launchExec in a container that is held. Whatever fails when that has
// ended fails because of it: its cgroup is gone, a fork in a dying pid namespace
// gives ENOMEM.
func (d *native) launchIn(ctx context.Context, one *run, e joiner, in *host, listen func()) (_ *plan.Conn, err error) {
	defer func() {
		if err != nil && in.ended() {
			k := one.key
			k.Exec = ""
			err = dead(k)
		}
	}()
	b := &oci.Files{}
	defer b.Close()
	process, p, err := d.prepareExec(one, e, in, b)
	if err != nil {
		return nil, oci.Exhausted(err)
	}
	encoded, err := p.Encode(len(b.All))
	if err != nil {
		return nil, driver.Errorf(errdefs.ErrInvalidArgument, "encode plan: %w", err)
	}
	shim, err := d.startShim(ctx, nil, encoded, b.All)
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	d.holdShim(one, shim.TakeShim())
	if listen != nil {
		go listen()
	}
	if err := d.await(ctx, one, shim); err != nil {
		shim.Close()
		if stopped := stoppedByFilter(err, in.set.Security); stopped != nil && !e.privileged {
			return nil, stopped
		}
		return nil, oci.StartError(err, &specs.Spec{Process: process}, p, in.root)
	}
	return shim, nil
}

// prepareExec opens everything that the plan of an exec names, and states the
// process.
func (d *native) prepareExec(one *run, e joiner, in *host, b *oci.Files) (*specs.Process, *plan.Plan, error) {
	process, filter, err := d.joinerProcess(e, in)
	if err != nil {
		return nil, nil, err
	}
	h := handles{UID: uint32(os.Getuid()), Run: one.key.Run, BootID: d.bootID, OOMCounter: plan.NoFD, Deadline: e.timeout}
	h.Flags = stdioFlags(e.stdio, e.process.TTY)
	eh := oci.ExecHandles{
		Join: joinAll, OOMScore: d.facts.OOMScoreAdj, Filter: filter.code, FilterFlags: filter.flags,
	}
	if h.Flags&plan.WaitAttach != 0 { // else there is nobody to wait for
		eh.Gate = plan.Gate{}
	}
	if !in.set.IDMap.IsZero() {
		eh.Join |= unix.CLONE_NEWUSER
	}
	if eh.Programs, err = oci.ProgramPaths(process); err != nil {
		return nil, nil, err
	}
	if len(eh.Programs) == 0 {
		return nil, nil, oci.NotInPath(process.Args[0])
	}
	eh.PIDFD = b.Lend([]*os.File{in.pidfd})[0]
	entry, err := d.group(one).Entry()
	if err != nil {
		return nil, nil, err
	}
	eh.Cgroups, eh.CgroupDir = b.AddAll(entry.Tasks), b.Add(entry.Dir)
	d.lendShims(b, &h)
	set := setting{Parent: in.set.Parent}
	made := intent{Container: one.key.Container, Run: one.key.Run, Exec: one.key.Exec, Set: set, Time: time.Now(), BootID: fmt.Sprintf("%x", d.bootID)}
	if err := makeIntent(one.dir, made); err != nil {
		return nil, nil, err
	}
	files, err := makeRunFiles(one.dir)
	h.Lock, h.Record, h.Listen = b.Add(files.lock), b.Add(files.record), b.Add(files.listen)
	if err != nil {
		return nil, nil, err
	}
	if h.Owner, err = pipeOwner(in.set.IDMap, oci.User{UID: process.User.UID, GID: process.User.GID}); err != nil {
		return nil, nil, err
	}
	eh.Front = h.monitorPart()
	p, err := oci.PlanExec(process, eh)
	return process, p, err
}

// joinerProcess states the process of an exec: its own program and user, with
// the container's security.
func (d *native) joinerProcess(e joiner, in *host) (*specs.Process, filter, error) {
	set := in.set
	if e.privileged {
		set.Security = execdriver.Security{Privileged: true}
	}
	f := d.facts
	var err error
	if f.User, err = oci.LookUpUser(e.process.User, oci.View{Root: in.root}.Read); err != nil {
		return nil, filter{}, err
	}
	if f.User, err = withGroups(f.User, e.process.Groups, oci.View{Root: in.root}.Read); err != nil {
		return nil, filter{}, err
	}
	process, err := processOf(e.process, set, f)
	if err != nil {
		return nil, filter{}, err
	}
	code, err := d.filterOf(set.Security, process)
	return process, code, err
}
