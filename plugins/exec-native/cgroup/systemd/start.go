package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Running reports whether systemd is pid 1 (sd_booted(3)).
func Running() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// connect reaches the system's systemd, or a user's own for a user.
func connect(ctx context.Context) (*dbus.Conn, error) {
	if !Running() {
		return nil, errclass.Errorf(errdefs.ErrNotImplemented, "systemd-cgroup: this machine was not booted with systemd")
	}
	reach := dbus.NewWithContext
	if os.Geteuid() != 0 {
		reach = dbus.NewUserConnectionContext
	}
	conn, err := reach(ctx)
	if err != nil {
		return nil, errclass.Errorf(errdefs.ErrUnavailable, "connect to systemd: %w", err)
	}
	return conn, nil
}

// Group is the group of a unit. Release it once the container's first process
// is in it: systemd ends a scope that has none.
type Group struct {
	*cgroup.Group
	Place   cgroup.Place
	release func()
}

// Release ends the process that has held the scope open.
func (g *Group) Release() { g.release() }

// Start makes the unit with its limits, and takes its group. After an error
// nothing is left. Errors are those of cgroup.Tree.Make; NotImplemented without
// systemd, AlreadyExists where the unit is there.
func (u Unit) Start(ctx context.Context, tree cgroup.Tree, r *specs.LinuxResources) (*Group, error) {
	unified := tree.Version() == "v2"
	limits, err := properties(r, unified)
	if err != nil {
		return nil, err
	}
	conn, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	holder, release, err := hold()
	if err != nil {
		return nil, fmt.Errorf("start unit %s: %w", u.Name, err)
	}
	group, place, err := u.start(ctx, conn, tree, holder, limits, r)
	if err != nil {
		release()
		return nil, err
	}
	return &Group{group, place, release}, nil
}

// start asks systemd, and adopts what it has made.
func (u Unit) start(ctx context.Context, conn *dbus.Conn, tree cgroup.Tree, holder int, limits []dbus.Property, r *specs.LinuxResources) (*cgroup.Group, cgroup.Place, error) {
	if err := job(ctx, "start unit "+u.Name, func(done chan<- string) error {
		_, err := conn.StartTransientUnitContext(ctx, u.Name, "replace", append(u.basics(holder), limits...), done)
		return err
	}); err != nil {
		return nil, nil, err
	}
	place, err := u.place(ctx, conn, tree)
	if err == nil && u.isSlice() {
		err = errclass.Errorf(errdefs.ErrNotImplemented, "unit %s: a slice holds no processes", u.Name)
	}
	var group *cgroup.Group
	if err == nil {
		group, err = tree.Adopt(place, holder, r)
	}
	if err != nil {
		return nil, nil, errors.Join(err, u.stop(ctx, conn))
	}
	return group, place, nil
}

// basics are the properties of every unit: all that is counted, and the group
// ours to divide (Delegate).
func (u Unit) basics(holder int) []dbus.Property {
	out := []dbus.Property{
		dbus.PropDescription("gantry container " + u.Name),
		property("DefaultDependencies", false),
		property("MemoryAccounting", true), property("CPUAccounting", true), property("IOAccounting", true), property("TasksAccounting", true),
	}
	if u.isSlice() {
		return append(out, dbus.PropWants(u.Slice))
	}
	return append(out, dbus.PropSlice(u.Slice), dbus.PropPids(uint32(holder)), property("Delegate", true))
}

// place asks systemd where the group is: a user's own systemd has its units
// below a group of its own.
func (u Unit) place(ctx context.Context, conn *dbus.Conn, tree cgroup.Tree) (cgroup.Place, error) {
	kind := "Scope"
	if u.isSlice() {
		kind = "Slice"
	}
	p, err := conn.GetUnitTypePropertyContext(ctx, u.Name, kind, "ControlGroup")
	if err != nil {
		return nil, errclass.Errorf(errdefs.ErrUnavailable, "ask for group of unit %s: %w", u.Name, err)
	}
	path, ok := p.Value.Value().(string)
	if !ok || !filepath.IsAbs(path) {
		return nil, errclass.Errorf(errdefs.ErrInternal, "group of unit %s is %v", u.Name, p.Value)
	}
	return tree.At(path)
}

// Update changes limits of a running unit: in its group, read back and undone
// as cgroup.Group.Update does, then with systemd.
func (u Unit) Update(ctx context.Context, group *cgroup.Group, r *specs.LinuxResources) error {
	_, unified := group.Paths()["unified"]
	limits, err := properties(r, unified && len(group.Paths()) == 1)
	if err != nil {
		return err
	}
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := group.Update(r); err != nil || len(limits) == 0 {
		return err
	}
	if err := conn.SetUnitPropertiesContext(ctx, u.Name, true, limits...); err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "set properties of unit %s: %w", u.Name, err)
	}
	// systemd has written its own rounding: a quota in hundredths of a processor.
	return group.Update(r)
}

// Stop ends the unit and what runs in it. One that is not there is fine.
func (u Unit) Stop(ctx context.Context) error {
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return u.stop(ctx, conn)
}

func (u Unit) stop(ctx context.Context, conn *dbus.Conn) error {
	err := job(ctx, "stop unit "+u.Name, func(done chan<- string) error {
		_, err := conn.StopUnitContext(ctx, u.Name, "replace", done)
		return err
	})
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	// A unit that failed (its processes were killed) keeps its name otherwise.
	_ = conn.ResetFailedUnitContext(ctx, u.Name)
	return nil
}

// job runs one of systemd's jobs to its end.
func job(ctx context.Context, act string, begin func(done chan<- string) error) error {
	done := make(chan string, 1)
	if err := begin(done); err != nil {
		return refusal(act, err)
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", act, ctx.Err())
	case result := <-done:
		if result != "done" && result != "skipped" {
			return errclass.Errorf(errdefs.ErrUnavailable, "%s: systemd says %q", act, result)
		}
		return nil
	}
}

// hold starts a process that never runs: it is traced by this thread, and stops
// before its first instruction. Release ends it.
func hold() (pid int, release func(), err error) {
	begun, end, ended := make(chan error, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // the tracer is a thread; it ends with this goroutine
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			begun <- err
			return
		}
		defer null.Close()
		p, err := os.StartProcess("/proc/self/exe", []string{"gantry-hold"}, &os.ProcAttr{
			Env: []string{}, Files: []*os.File{null, null, null},
			Sys: &syscall.SysProcAttr{Ptrace: true, Setsid: true, Pdeathsig: syscall.SIGKILL},
		})
		if err != nil {
			begun <- err
			return
		}
		pid = p.Pid
		// exec is over before the process stops: see it stopped.
		var status syscall.WaitStatus
		_, err = syscall.Wait4(pid, &status, 0, nil)
		for errors.Is(err, syscall.EINTR) {
			_, err = syscall.Wait4(pid, &status, 0, nil)
		}
		if err == nil && !status.Stopped() {
			err = fmt.Errorf("it ended at once: wait status %#x", uint32(status))
		}
		if begun <- err; err == nil {
			<-end
		}
		_ = p.Kill() // it may have been killed with its group
		_, _ = p.Wait()
	}()
	if err := <-begun; err != nil {
		return 0, nil, fmt.Errorf("start process that holds the scope: %w", err)
	}
	var once sync.Once
	return pid, func() {
		once.Do(func() { close(end) })
		<-ended
	}, nil
}

// driverName finds a driver's name by its major.
func driverName(kind string, major int64) (string, bool) {
	text, err := os.ReadFile("/proc/devices")
	if err != nil {
		return "", false
	}
	return nameIn(string(text), kind, major)
}

// refusal gives systemd's errors their class.
func refusal(act string, err error) error {
	class := error(errdefs.ErrUnavailable)
	for part, c := range map[string]error{
		"UnitExists": errdefs.ErrAlreadyExists, "already exists": errdefs.ErrAlreadyExists, "already loaded": errdefs.ErrAlreadyExists,
		"NoSuchUnit": errdefs.ErrNotFound, "not loaded": errdefs.ErrNotFound,
		"Access denied": errdefs.ErrPermissionDenied, "authentication required": errdefs.ErrPermissionDenied,
		"Invalid": errdefs.ErrInvalidArgument, "not known": errdefs.ErrNotImplemented,
	} {
		if strings.Contains(err.Error(), part) {
			class = c
		}
	}
	return errclass.Errorf(class, "%s: %w", act, err)
}
