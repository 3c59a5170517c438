package execnative

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"golang.org/x/sys/unix"
)

// A part is a piece of a plan that every plain container has, and that can be
// carried out before there is one: operations in a row, all at or below one
// target, that make a file system and fill it. Carried out ahead they give one
// detached mount; in a plan that has exactly these operations it takes their
// place.
type part struct {
	target string
	ops    []plan.Op
}

// cgroupTarget is where a container sees its cgroups.
const cgroupTarget = "/sys/fs/cgroup"

// kitParts cuts the parts out of the plan of a container of which nothing
// special is asked: the directories of its cgroups, if they are shown each on its
// own, /dev with its nodes, and the file systems in it that belong to no
// namespace.
func (d *native) kitParts() []part {
	h := handles{Handles: oci.Handles{Network: plan.NoFD, CgroupDir: plan.NoFD, OOMScore: d.facts.OOMScoreAdj, Programs: []string{"/"}},
		ShimDir: plan.NoFD, OOMCounter: plan.NoFD}
	d.showCgroups(&h)
	h.CgroupMounts = noFDs(len(h.CgroupV1))
	f := d.facts
	f.Hostname = "/"
	spec, err := specOf(execdriver.Start{
		Key: execdriver.Key{Container: "kit"}, Rootfs: []driver.Mount{{}}, Process: execdriver.Process{Args: []string{"/"}},
	}, f)
	if err != nil {
		return nil
	}
	for range spec.Mounts {
		h.Mounts = append(h.Mounts, oci.Mount{FD: plan.NoFD})
	}
	p, err := planOf(spec, h)
	if err != nil {
		return nil
	}
	var out []part
	for _, target := range []string{cgroupTarget, "/dev", "/dev/pts", shmPath} {
		if one, ok := cutPart(p, target); ok && (target != cgroupTarget || len(h.CgroupV1) > 0) {
			out = append(out, one)
		}
	}
	return out
}

// noFDs stands for mounts that are not there.
func noFDs(n int) []plan.FD { return slices.Repeat([]plan.FD{plan.NoFD}, n) }

// cutPart finds the operation that makes the file system at a target, and what
// fills it.
func cutPart(p *plan.Plan, target string) (part, bool) {
	at := slices.IndexFunc(p.Steps, func(s plan.Step) bool {
		fs, ok := s.Op.(plan.Filesystem)
		return ok && fs.Target == target
	})
	if at < 0 {
		return part{}, false
	}
	one := part{target: target, ops: []plan.Op{p.Steps[at].Op}}
	for _, s := range p.Steps[at+1:] {
		if !one.fills(s.Op) {
			break
		}
		one.ops = append(one.ops, s.Op)
	}
	return one, true
}

// fills reports whether an operation fills the file system, or completes it.
func (p part) fills(op plan.Op) bool {
	switch op := op.(type) {
	case plan.Node:
		return strings.HasPrefix(op.Path, p.target+"/")
	case plan.Symlink:
		return strings.HasPrefix(op.Path, p.target+"/")
	case plan.Attach:
		return op.FD == plan.NoFD && strings.HasPrefix(op.Target, p.target+"/")
	case plan.SetAttr:
		return op.Path == p.target
	}
	return false
}

// replace puts an Attach of fd in the place of the part's operations, if the plan
// has exactly them.
func (p part) replace(in *plan.Plan, fd plan.FD) bool {
	n := len(p.ops)
	for at := 0; at+n <= len(in.Steps); at++ {
		fs, ok := in.Steps[at].Op.(plan.Filesystem)
		if !ok || fs.Target != p.target {
			continue
		}
		for i, op := range p.ops {
			if !reflect.DeepEqual(in.Steps[at+i].Op, op) {
				return false
			}
		}
		if at+n < len(in.Steps) && p.fills(in.Steps[at+n].Op) {
			return false // more is to be put into it, perhaps once it was made read-only
		}
		in.Steps[at].Op = plan.Attach{FD: fd, Target: p.target, Create: plan.CreateDir}
		in.Steps = slices.Delete(in.Steps, at+1, at+n)
		return true
	}
	return false
}

// make carries the operations out. mounts are attached where an Attach says so,
// in their order; they stay the caller's.
func (p part) make(mounts []*os.File) (*os.File, error) {
	fs := p.ops[0].(plan.Filesystem)
	made, err := oci.MakeFilesystem(fs.Type, fs.Params, fs.Attrs)
	if err != nil {
		return nil, err
	}
	f := made.File
	for _, op := range p.ops[1:] {
		if a, ok := op.(plan.Attach); ok && len(mounts) > 0 {
			err = p.attach(f, mounts[0], a)
			mounts = mounts[1:]
		} else {
			err = p.fill(f, op)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// fill makes one thing in a file system, or changes it.
func (p part) fill(f *os.File, op plan.Op) error {
	switch op := op.(type) {
	case plan.Node:
		name := strings.TrimPrefix(op.Path, p.target+"/")
		return errors.Join(
			unix.Mknodat(int(f.Fd()), name, op.Mode, int(unix.Mkdev(op.Major, op.Minor))),
			unix.Fchmodat(int(f.Fd()), name, op.Mode&0o7777, 0), // whatever the umask is
			unix.Fchownat(int(f.Fd()), name, int(op.UID), int(op.GID), unix.AT_SYMLINK_NOFOLLOW))
	case plan.Symlink:
		return unix.Symlinkat(op.To, int(f.Fd()), strings.TrimPrefix(op.Path, p.target+"/"))
	case plan.SetAttr:
		return setAttr(f, op.Attr)
	}
	return fmt.Errorf("%v cannot be carried out ahead: %w", op.Kind(), unix.EINVAL)
}

// attach puts a mount on a new directory. Kernels before 6.15 take none into what
// is attached nowhere itself.
func (p part) attach(f, mount *os.File, op plan.Attach) error {
	name := strings.TrimPrefix(op.Target, p.target+"/")
	if err := unix.Mkdirat(int(f.Fd()), name, 0o755); err != nil {
		return err
	}
	if err := errors.Join(unix.Fchmodat(int(f.Fd()), name, 0o755, 0), setAttr(mount, op.Attr)); err != nil {
		return err
	}
	return unix.MoveMount(int(mount.Fd()), "", int(f.Fd()), name, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func setAttr(mount *os.File, a plan.Attr) error {
	return linux.Detached{File: mount}.SetAttr(a.Set, a.Clear, a.Propagation, a.Recursive)
}
