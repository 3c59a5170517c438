package execnative

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ahead is what one container will need, made before anybody asks for it. None
// of it names a container; all of it goes with this process but the spare cgroup,
// log and run directory, which the next one removes.
type ahead struct {
	group  *cgroup.Spare       // nil where there is none, or once it was used
	mounts map[string]*os.File // of the parts that were carried out, by their targets
	log    string              // directory of a log, with its empty file; or empty
	run    *spareRun           // nil where there is none, or once it was used
}

// These begin the names of logs' and runs' directories that are made ahead, and of
// logs that are being removed. No container's is such: ids do not begin with a dot.
const (
	sparePrefix = ".spare-"
	gonePrefix  = ".gone-"
)

// ownName is what something is called that has no container's name.
func ownName(prefix string, number uint64) string {
	return fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), number)
}

// nextSpare numbers what has no container's name.
func (d *native) nextSpare() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spares++
	return d.spares
}

// dropLog removes a container's log: at once its name, and in a quieter moment the
// files, which takes a busy disk longer than all the rest of a removal. What a
// killed driver has not come to the next one does.
func (d *native) dropLog(container string) error {
	dir := filepath.Join(d.cfg.Root, ownName(gonePrefix, d.nextSpare()))
	err := os.Rename(d.logDir(container), dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return os.RemoveAll(d.logDir(container))
	}
	time.AfterFunc(warmDelay, func() { _ = os.RemoveAll(dir) })
	return nil
}

// makeLog makes a log's directory and file: new inodes may take a busy disk
// longer than all the rest of a start.
func (d *native) makeLog(number uint64) string {
	dir := filepath.Join(d.cfg.Root, ownName(sparePrefix, number))
	if os.Mkdir(dir, 0o700) != nil {
		return ""
	}
	f, err := os.OpenFile(filepath.Join(dir, logName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		_ = os.Remove(dir) // else the next driver does
		return ""
	}
	f.Close()
	return dir
}

// nameLog gives the log that was made ahead to a container, if there is one and
// the container has none.
func (a *ahead) nameLog(dir string) bool {
	if a == nil || a.log == "" || os.Rename(a.log, dir) != nil {
		return false
	}
	a.log = ""
	return true
}

// dropLogs removes logs that are no container's: all, as an earlier driver has left
// them, or this process's own.
func (d *native) dropLogs(all bool) error {
	whose := "*"
	if !all {
		whose = fmt.Sprintf("%d-*", os.Getpid())
	}
	var errs []error
	for _, prefix := range []string{sparePrefix, gonePrefix} {
		left, err := filepath.Glob(filepath.Join(d.cfg.Root, prefix+whose))
		errs = append(errs, err)
		for _, dir := range left {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// makeAhead makes all of it that can be made. What is missing the start makes.
func (d *native) makeAhead() *ahead {
	number := d.nextSpare()
	a := &ahead{mounts: map[string]*os.File{}}
	rules, _ := deviceRules(execdriver.Security{}) // those of a container of which nothing special is asked
	a.group, _ = d.containers.MakeSpare(number, rules)
	a.log = d.makeLog(number)
	a.run = d.makeRun(number)
	for _, p := range d.parts {
		var clones []*os.File
		if p.target == cgroupTarget {
			if a.group == nil {
				continue
			}
			clones, _ = a.group.CloneMounts()
		}
		if f, err := p.make(clones); err == nil {
			a.mounts[p.target] = f
		}
		for _, c := range clones {
			c.Close()
		}
	}
	return a
}

// discard removes what was not used.
func (a *ahead) discard() {
	if a.group != nil {
		a.group.Remove()
	}
	if a.log != "" {
		_ = os.RemoveAll(a.log) // else the next driver does
	}
	if a.run != nil {
		a.run.remove()
	}
	a.close()
}

// close closes the mounts that nobody took.
func (a *ahead) close() {
	for _, f := range a.mounts {
		f.Close()
	}
	clear(a.mounts)
}

// takeGroup takes the spare cgroup out; nil if there is none.
func (a *ahead) takeGroup() *cgroup.Spare {
	if a == nil {
		return nil
	}
	g := a.group
	a.group = nil
	return g
}

// nameRun gives the directory that was made ahead to a run, if there is one.
func (a *ahead) nameRun(dir string, in intent, hostname string) (files runFiles, named bool) {
	if a == nil || a.run == nil {
		return files, false
	}
	s := a.run
	a.run = nil
	if s.become(dir, in, hostname) != nil {
		s.remove()
		return files, false
	}
	return s.files, true
}

// hasCgroups reports whether the container's view of its cgroups is made.
func (a *ahead) hasCgroups() bool { return a != nil && a.mounts[cgroupTarget] != nil }

// planAhead makes the plan of a start, with what was made ahead in it.
func (d *native) planAhead(one *run, spec *specs.Spec, h *handles, b *oci.Files, a *ahead) (*plan.Plan, error) {
	shown := a.hasCgroups()
	if shown {
		h.CgroupMounts = noFDs(len(h.CgroupV1))
	}
	p, err := planOf(spec, *h)
	if err != nil || a == nil {
		return p, err
	}
	for _, part := range d.parts {
		f := a.mounts[part.target]
		if f != nil && part.replace(p, plan.FD(len(b.All))) {
			b.Add(f)
			delete(a.mounts, part.target)
		}
		if shown && part.target == cgroupTarget && a.hasCgroups() { // this container sees them in another way
			mounts, err := d.group(one).Mounts()
			h.CgroupMounts = b.AddAll(mounts)
			if err != nil {
				return nil, err
			}
			a.drop(cgroupTarget)
			return d.planAhead(one, spec, h, b, a)
		}
	}
	return p, nil
}

// drop closes a mount that fits nowhere.
func (a *ahead) drop(target string) {
	if f := a.mounts[target]; f != nil {
		f.Close()
		delete(a.mounts, target)
	}
}

// takeAhead is what was made ahead for one container, or nil. The groups are
// those of the engine's own parent, the mounts those of the host's user namespace.
func (d *native) takeAhead(r execdriver.Start) *ahead {
	if r.Resources.CgroupParent != "" || !r.IDMap.IsZero() || r.UserNS.Path != "" {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.aheads) == 0 {
		return nil
	}
	a := d.aheads[len(d.aheads)-1]
	d.aheads = d.aheads[:len(d.aheads)-1]
	return a
}
