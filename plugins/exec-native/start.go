package execnative

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// abortTimeout bounds how long a given-up start may take to be gone.
const abortTimeout = 3 * time.Second

// Start implements execdriver.Driver.
func (d *native) Start(ctx context.Context, r execdriver.Start) (execdriver.Started, error) {
	if err := checkRequest(r); err != nil {
		return execdriver.Started{}, err
	}
	profile, err := d.apparmor.choose(ctx, r.Security)
	if err != nil {
		return execdriver.Started{}, err
	}
	r.Security.AppArmor = profile
	return d.startOnce(ctx, r.Key, func(ctx context.Context, one *run) (*plan.Conn, error) {
		one.set = settingOf(r)
		return d.launch(ctx, one, r)
	})
}

// launcher carries a start out, and gives back the shim whose program runs.
type launcher func(ctx context.Context, one *run) (*plan.Conn, error)

// startOnce starts a run, or joins the start of it that is at work, or answers
// with the run that was started.
func (d *native) startOnce(ctx context.Context, k execdriver.Key, launch launcher) (execdriver.Started, error) {
	for {
		one, mine := d.claim(k)
		if mine {
			d.begin(ctx, one, launch)
		}
		select {
		case <-one.ready:
		case <-ctx.Done():
			return execdriver.Started{}, ctx.Err()
		}
		if !mine && (one.left || errors.Is(one.err, errEarlier)) {
			continue // this call takes it over
		}
		return one.started, one.err
	}
}

// claim finds the run, or makes it this caller's to start. What is left of a
// broken start is taken over by the new one.
func (d *native) claim(k execdriver.Key) (one *run, mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.runs[k]; r != nil && r.state != broken {
		return r, false
	}
	r := d.newRun(k)
	if old := d.runs[k]; old != nil {
		r.parent, old.parent = old.parent, ""
	}
	d.runs[k] = r
	return r, true
}

// begin carries a start out and settles it.
func (d *native) begin(caller context.Context, one *run, launch launcher) {
	ctx, cancel := context.WithCancel(caller)
	defer cancel()
	d.mu.Lock()
	one.giveUp = cancel
	d.mu.Unlock()
	shim, err := launch(ctx, one)
	defer time.AfterFunc(warmDelay, d.warmUp)
	d.mu.Lock()
	one.giveUp = nil // it holds all that belongs to the call
	d.mu.Unlock()
	if err == nil {
		d.watchLater(one, shim)
		return
	}
	if late := caller.Err(); late != nil && !errors.Is(err, late) { // what broke off for want of time says anything
		err = fmt.Errorf("start given up: %w: %v", late, err)
	}
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	if d.discard(cleanup, one) == nil {
		d.forget(one)
	}
	d.mu.Lock()
	left := one.shim
	one.shim = nil
	d.mu.Unlock()
	if left != nil {
		awaitLeave(left)
		left.Close()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.letGoRoot(one)
	one.state, one.err, one.left = broken, err, caller.Err() != nil
	close(one.gone)
	close(one.ready)
}

// forget drops a run of which nothing is left.
func (d *native) forget(one *run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.runs[one.key] == one {
		delete(d.runs, one.key)
	}
}

// discard removes what a start that failed or died has left. The cgroup of an
// exec is its container's; nothing of the exec is in it any more.
func (d *native) discard(ctx context.Context, one *run) error {
	if one.key.Exec == "" {
		if err := d.removeGroup(ctx, one); err != nil {
			return err
		}
	}
	return os.RemoveAll(one.dir)
}

// discardEarlier removes what an earlier start of this run has left. A cgroup
// is only ever there together with the directory.
func (d *native) discardEarlier(ctx context.Context, one *run) error {
	if _, err := os.Lstat(one.dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return d.discard(ctx, one)
}

// launch prepares a start, hands it to a shim and waits until the program runs.
func (d *native) launch(ctx context.Context, one *run, r execdriver.Start) (*plan.Conn, error) {
	if err := errors.Join(d.discardEarlier(ctx, one), d.awaitWriter(ctx, r.Container)); err != nil {
		return nil, err
	}
	b := &oci.Files{}
	started := false
	defer func() {
		if started {
			go b.Close() // the shim has its own: nobody need wait
		} else {
			b.Close()
		}
	}()
	w, a := d.takeWarm(), d.takeAhead(r)
	if a != nil {
		defer func() { go a.discard() }() // what is left of it: nobody need wait
	}
	spec, h, p, err := d.planned(one, r, b, w, a)
	var encoded []byte
	if err == nil {
		if encoded, err = p.Encode(len(b.All)); err != nil {
			err = driver.Errorf(errdefs.ErrInvalidArgument, "encode plan: %w", err)
		}
	}
	if err != nil {
		if w != nil {
			w.Close() // an init may be waiting for a plan that there will not be
		}
		return nil, err
	}
	shim, err := d.startShim(ctx, w, encoded, b.All)
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	d.holdShim(one, shim.TakeShim())
	if err := d.await(ctx, one, shim); err != nil {
		shim.Close()
		if stopped := stoppedByFilter(err, r.Security); stopped != nil {
			return nil, stopped
		}
		return nil, oci.StartError(err, spec, p, b.All[h.Root])
	}
	started = true
	return shim, nil
}

// planned prepares a start and makes its plan; w, if there is one, begins with the
// init meanwhile.
func (d *native) planned(one *run, r execdriver.Start, b *oci.Files, w *plan.Warm, a *ahead) (*specs.Spec, handles, *plan.Plan, error) {
	spec, h, err := d.prepare(one, r, b, w, a)
	if err != nil {
		return nil, h, nil, oci.Exhausted(err)
	}
	p, err := d.planAhead(one, spec, &h, b, a)
	return spec, h, p, err
}

// await follows a start until its program runs. One that is given up, by its caller's
// word or death, may have come too far for that: then it is a start like any other,
// and who asks for it again hears of the run there is. To kill the program and to
// begin anew would run it twice.
func (d *native) await(ctx context.Context, one *run, shim *plan.Conn) error {
	var givenUp error
	for {
		rep, err := shim.Next(ctx)
		if err != nil && ctx.Err() != nil && givenUp == nil {
			givenUp = fmt.Errorf("start given up: %w", ctx.Err())
			if shim.Abort() != nil {
				return givenUp
			}
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
			defer cancel()
			ctx = late
			continue
		}
		switch {
		case givenUp != nil && (err != nil || rep.Kind == plan.ReportError):
			return givenUp // the shim has let go of it, or the caller kills by the cgroup
		case errors.Is(err, io.EOF):
			return driver.Errorf(errdefs.ErrUnavailable, "the shim was lost during the start")
		case err != nil:
			return fmt.Errorf("read from shim: %w", err)
		}
		switch rep.Kind {
		case plan.ReportShim:
			d.knowShim(one, rep.PID)
		case plan.ReportRunning:
			d.becomeRunning(one, rep.PID, rep.File)
			return nil
		case plan.ReportError:
			return &oci.ShimError{Report: rep}
		case plan.ReportExited:
			return driver.Errorf(errdefs.ErrUnavailable, "the container's init ended with %d before its program ran", rep.Code)
		}
	}
}

// prepare opens everything that the plan names, and states the specification.
func (d *native) prepare(one *run, r execdriver.Start, b *oci.Files, w *plan.Warm, a *ahead) (*specs.Spec, handles, error) {
	h := handles{UID: uint32(os.Getuid()), Run: r.Run, BootID: d.bootID, Handles: oci.Handles{OOMScore: d.facts.OOMScoreAdj, Network: plan.NoFD}}
	h.Flags = stdioFlags(r.Stdio, r.Process.TTY)
	log, err := logOf(r.Stdio.Log)
	if err == nil {
		h.LogPolicy, err = policyOf(r.Stdio.Log)
	}
	if err != nil {
		return nil, h, err
	}
	if log != nil {
		one.log = filepath.Join(d.logDir(r.Container), logName)
	}
	resources, err := resourcesOf(r, d.facts)
	if err != nil {
		return nil, h, err
	}
	user, err := openUserNS(r)
	if err != nil {
		return nil, h, err
	}
	userFD := b.Add(user)
	root := goOpenRoot(r, user)
	groups, err := d.prepareRunDir(one, r, resources, b, &h, w, a)
	if err == nil && log != nil {
		h.Log, err = log, d.prepareLog(one, b, log, a)
	}
	m := <-root // also after an error: it must be closed
	if m.root.File != nil {
		d.holdRoot(one, m.root.File)
		h.Root = b.Lend([]*os.File{m.root.File})[0]
	}
	err = errors.Join(err, m.err)
	var spec *specs.Spec
	if err == nil {
		spec, err = d.prepareRoot(one, r, m.root, b, &h)
	}
	g := <-groups // also after an error: its files must be closed
	h.Cgroups, h.CgroupDir, h.OOMCounter = b.AddAll(g.entry.Tasks), b.Add(g.entry.Dir), b.Add(g.oom)
	h.CgroupMounts = b.AddAll(g.mounts)
	d.lendShims(b, &h)
	if err := errors.Join(g.err, err); err != nil {
		return nil, h, err
	}
	d.showCgroups(&h)
	if r.Init && r.Namespaces.PID.Mode == execdriver.ShareNone {
		spec.Process.Args = append([]string{initPath, "--"}, spec.Process.Args...)
	}
	if h.Programs, err = oci.ProgramPaths(spec.Process); err != nil {
		return nil, h, err
	}
	if len(h.Programs) == 0 {
		return nil, h, oci.NotInPath(spec.Process.Args[0])
	}
	code, err := d.filterOf(r.Security, spec.Process)
	if err != nil {
		return nil, h, err
	}
	h.Filter, h.FilterFlags = code.code, code.flags
	if err := d.prepareJoins(r, userFD, b, &h); err != nil {
		return nil, h, err
	}
	return spec, h, d.prepareNetwork(r, b, &h)
}

// stdioFlags are the monitor's settings of input and output.
func stdioFlags(s execdriver.Stdio, tty bool) uint32 {
	flags := plan.Quiet
	if s.WaitAttach {
		flags |= plan.WaitAttach
	}
	if s.OpenStdin {
		flags |= plan.OpenStdin
	}
	if s.OpenStdin && s.StdinOnce && !tty { // a terminal's input has no end
		flags |= plan.StdinOnce
	}
	if tty {
		flags |= plan.Terminal
	}
	return flags
}

// lendShims names the cgroup of the shims in a plan.
func (d *native) lendShims(b *oci.Files, h *handles) {
	h.ShimCgroups, h.ShimDir = b.Lend(d.shimEntry.Tasks), plan.NoFD
	if d.shimEntry.Dir != nil {
		h.ShimDir = b.Lend([]*os.File{d.shimEntry.Dir})[0]
	}
}

// prepareRunDir makes the run's directory. The cgroup is made beside it, as
// soon as there is an intent to tell whose it is.
func (d *native) prepareRunDir(one *run, r execdriver.Start, res *specs.LinuxResources, b *oci.Files, h *handles, w *plan.Warm, a *ahead) (<-chan groupFiles, error) {
	in := intent{Container: r.Container, Run: r.Run, Set: one.set, Log: one.log, Time: time.Now(), BootID: fmt.Sprintf("%x", d.bootID)}
	files, named := a.nameRun(one.dir, in, r.Hostname)
	if !named {
		if err := makeIntent(one.dir, in); err != nil {
			none := make(chan groupFiles, 1)
			none <- groupFiles{}
			return none, err
		}
	}
	groups := d.prepareCgroups(one, r, res, w, a)
	var err error
	if !named {
		files, err = makeRunFiles(one.dir)
		if err == nil {
			err = writeHostname(filepath.Join(one.dir, hostnameFile), r.Hostname)
		}
	}
	h.Lock, h.Record, h.Listen = b.Add(files.lock), b.Add(files.record), b.Add(files.listen)
	return groups, err
}

// rootMount is a root filesystem's mount.
type rootMount struct {
	root linux.Detached
	err  error
}

// goOpenRoot mounts the root filesystem beside everything else: it takes as
// long as the rest of the preparation.
func goOpenRoot(r execdriver.Start, user *os.File) <-chan rootMount {
	out := make(chan rootMount, 1)
	go func() {
		var m rootMount
		m.root, m.err = openRootfs(r.Rootfs[0], r.IDMap, user)
		out <- m
	}()
	return out
}

// groupFiles are the descriptors of a start's cgroups.
type groupFiles struct {
	entry  cgroup.Entry
	mounts []*os.File // of version 1, one for each hierarchy
	oom    *os.File
	err    error
}

// prepareCgroups makes the run's cgroup while the mounts are made: both take a
// few hundred microseconds. With a spare it takes so little that it comes first: as
// soon as the init can be put into it, w begins with that.
func (d *native) prepareCgroups(one *run, r execdriver.Start, resources *specs.LinuxResources, w *plan.Warm, a *ahead) <-chan groupFiles {
	out := make(chan groupFiles, 1)
	work := func() {
		var g groupFiles
		var group *cgroup.Group
		begun := false
		making := cgroup.Making{Spare: a.takeGroup(), Enter: func(dir *os.File) {
			begun = true
			d.early(w, r, dir)
		}}
		if group, g.err = d.createGroup(one, resources, making); g.err == nil {
			defer group.Close()
			if a != nil && !group.FromSpare() {
				a.drop(cgroupTarget)
			}
			g.entry, g.err = group.Entry()
		}
		if g.err == nil && !begun {
			d.early(w, r, g.entry.Dir)
		}
		if g.err == nil {
			g.oom, g.err = group.OOMCounter()
		}
		if g.err == nil && !a.hasCgroups() {
			g.mounts, g.err = group.Mounts()
		}
		out <- g
	}
	if a != nil {
		work()
	} else {
		go work()
	}
	return out
}

// showCgroups says which hierarchies the container sees.
func (d *native) showCgroups(h *handles) {
	h.CgroupV2 = d.tree.Version() == "v2"
	for _, t := range d.tree.Hierarchies {
		if !t.Unified {
			h.CgroupV1 = append(h.CgroupV1, t.Label())
		}
	}
}

// prepareRoot makes the other mounts, looks up the user and states the specification.
func (d *native) prepareRoot(one *run, r execdriver.Start, root linux.Detached, b *oci.Files, h *handles) (*specs.Spec, error) {
	var err error
	f := d.facts
	f.Hostname = filepath.Join(one.dir, hostnameFile)
	if f.Init, err = d.initProgram(r); err != nil {
		return nil, err
	}
	if r.Security.Privileged {
		if f.Devices, err = hostDevices(); err != nil {
			return nil, fmt.Errorf("list host's devices: %w", err)
		}
	}
	spec, err := specOf(r, f)
	if err != nil {
		return nil, err
	}
	mounts, err := oci.OpenMounts(spec, root.File)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		made := oci.Mount{FD: b.Add(m.File)}
		if m.File != nil {
			if made.IsDir, err = m.IsDir(); err != nil {
				return nil, err
			}
		}
		h.Mounts = append(h.Mounts, made)
	}
	if err := errors.Join(d.shareShm(r, spec, b, h), d.mapDevices(r, spec, b, h)); err != nil {
		return nil, err
	}
	if f.User, err = oci.LookUpUser(r.Process.User, oci.View{Root: root.File, Mounts: spec.Mounts, Opened: mounts}.Read); err != nil {
		return nil, err
	}
	if f.User, err = withGroups(f.User, r.Process.Groups, oci.View{Root: root.File, Mounts: spec.Mounts, Opened: mounts}.Read); err != nil {
		return nil, err
	}
	if h.Owner, err = pipeOwner(r.IDMap, f.User); err != nil {
		return nil, err
	}
	if spec.Process, err = processOf(r.Process, one.set, f); err != nil {
		return nil, err
	}
	return spec, nil
}
