package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/linux"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// creation is a container that is being made.
type creation struct {
	*container
	g      *globals
	o      createOptions
	b      *bundle
	files  oci.Files
	h      oci.Handles
	root   *os.File
	born   *os.File // the version 2 cgroup in which the shim must be born already
	master *os.File // of the pty, if there is no console socket
	pidfd  *os.File // of the init
	byHook bool     // the creation failed by a hook
	idle   bool     // made without a process: nothing is ever executed
	unheld func()   // lets go of a unit that was held open for the init; nil for none
}

// groupFiles are a container's cgroups, opened.
type groupFiles struct {
	tree   cgroup.Tree
	place  cgroup.Place
	entry  cgroup.Entry
	mounts []*os.File // the group's directories, cloned
	paths  []string   // or where they are, for the init to clone
	made   bool
	err    error
	shim   warmShim
}

// makeGroups makes the cgroups beside the mounts: both take as long. As soon as
// they are there, the shim can clone the init, which takes as long again.
func (c *creation) makeGroups(ctx context.Context, spawned <-chan warmShim) <-chan groupFiles {
	out := make(chan groupFiles, 1)
	go func() {
		var f groupFiles
		f.err = c.openGroups(ctx, &f)
		f.shim = <-spawned
		flags, fits := oci.CloneFlags(c.b.spec.Linux.Namespaces)
		if fits && f.err == nil && f.shim.err == nil {
			f.shim.err = f.shim.warm.Early(plan.Early{Clone: flags, Leave: true, Cgroup: f.entry.Dir})
		}
		out <- f
	}()
	return out
}

func (c *creation) openGroups(ctx context.Context, f *groupFiles) (err error) {
	if f.tree, err = cgroup.ReadTree(); err != nil {
		return err
	}
	resources := c.b.spec.Linux.Resources
	if resources == nil {
		resources = &specs.LinuxResources{}
	}
	resources.Devices = deviceRules(resources.Devices, c.b.spec.Linux.Devices)
	var group *cgroup.Group
	if c.g.systemd {
		f.place, group, err = c.unitGroup(ctx, f.tree, resources)
	} else if f.place, err = f.tree.Place(c.b.spec.Linux.CgroupsPath, c.ID); err == nil {
		if err := c.announce(f.tree, f.place); err != nil {
			return err
		}
		group, err = f.tree.Make(f.place, resources)
	}
	if err != nil {
		return c.withoutGroup(err, resources)
	}
	f.made = true
	defer group.Close()
	if f.entry, err = group.Entry(); err != nil {
		return err
	}
	switch shows := slices.ContainsFunc(c.b.spec.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" }); {
	case !shows || f.tree.Version() == "v2":
	case c.copiesMounts():
		f.paths = shownPaths(f.tree, group)
	default:
		f.mounts, err = group.Mounts()
	}
	return err
}

// announce writes down where the cgroup is going to be: who finds a creation that
// broke off takes it away. One that is there already is somebody's.
func (c *creation) announce(tree cgroup.Tree, place cgroup.Place) error {
	if tree.Has(place) {
		return nil
	}
	c.Wanted = place
	return c.save()
}

// shownPaths are the group's directories in the hierarchies of version 1.
func shownPaths(tree cgroup.Tree, group *cgroup.Group) []string {
	paths, out := group.Paths(), []string(nil)
	for _, h := range tree.Hierarchies {
		if !h.Unified {
			out = append(out, paths[h.Label()])
		}
	}
	return out
}

// deviceRules adds to the rules what every container may use (the default
// devices, ptys, and nodes of any kind to be made), and the devices it was
// given. Without rules everything is forbidden but that, as runc does.
func deviceRules(rules []specs.LinuxDeviceCgroup, devices []specs.LinuxDevice) []specs.LinuxDeviceCgroup {
	all := len(rules) > 0 && slices.ContainsFunc(rules, func(r specs.LinuxDeviceCgroup) bool {
		return r.Allow && (r.Type == "a" || r.Type == "") && unset(r.Major) && unset(r.Minor) && (r.Access == "" || r.Access == "rwm")
	})
	if all {
		return rules
	}
	allow := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		d := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
		if major >= 0 {
			d.Major = &major
		}
		if minor >= 0 {
			d.Minor = &minor
		}
		return d
	}
	out := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	out = append(out, rules...)
	out = append(out, allow("c", -1, -1, "m"), allow("b", -1, -1, "m"))
	for _, d := range oci.DefaultDevices() {
		out = append(out, allow(d.Type, d.Major, d.Minor, "rwm"))
	}
	out = append(out, allow("c", 5, 1, "rwm"), allow("c", 5, 2, "rwm"), allow("c", 136, -1, "rwm"))
	if len(rules) == 0 {
		for _, d := range devices {
			if d.Type == "c" || d.Type == "u" || d.Type == "b" {
				kind := d.Type
				if kind == "u" {
					kind = "c"
				}
				out = append(out, allow(kind, d.Major, d.Minor, "rwm"))
			}
		}
	}
	return out
}

func unset(n *int64) bool { return n == nil || *n < 0 }

// prepare opens everything that the plan names. The shim is the caller's, after
// an error too.
func (c *creation) prepare(ctx context.Context, spawned <-chan warmShim) (shim warmShim, err error) {
	s := c.b.spec
	c.h = oci.Handles{Network: plan.NoFD, CgroupDir: plan.NoFD, NoPivot: c.o.noPivot, Joins: map[specs.LinuxNamespaceType]plan.FD{}}
	groups := c.makeGroups(ctx, spawned)
	err = c.openRoot()
	if err == nil {
		err = c.openNamespaces()
	}
	if err == nil {
		err = c.openDevices()
	}
	f := <-groups // also after an error: what it has opened must be closed
	c.takeGroups(f)
	if err = errors.Join(f.err, f.shim.err, err); err != nil {
		return f.shim, oci.Exhausted(err)
	}
	if err := c.makeClass(); err != nil {
		return f.shim, err
	}
	if err := c.attachRoot(linux.Detached{File: c.root}); err != nil {
		return f.shim, err
	}
	if !c.o.noKeyring {
		c.h.Keyring = "_ses." + c.ID
	}
	if c.h.Filter, c.h.FilterFlags, err = c.b.filter(c.g); err != nil {
		return f.shim, err
	}
	if s.Process.OOMScoreAdj != nil {
		c.h.OOMScore = ownScore()
	}
	return f.shim, c.prepareHooks()
}

// takeGroups gives the opened cgroups their places in the plan.
func (c *creation) takeGroups(f groupFiles) {
	c.h.Cgroups, c.h.CgroupMounts, c.h.CgroupPaths = c.files.AddAll(f.entry.Tasks), c.files.AddAll(f.mounts), f.paths
	if f.entry.Dir != nil {
		c.h.CgroupDir = c.files.Add(f.entry.Dir)
		c.born = f.entry.Dir
	}
	c.h.CgroupV2 = f.tree.Version() == "v2"
	for _, t := range f.tree.Hierarchies {
		if !t.Unified {
			c.h.CgroupV1 = append(c.h.CgroupV1, t.Label())
		}
	}
	c.Wanted = nil
	if f.made {
		c.Cgroup = f.place
	}
}

// openRoot opens the root filesystem and makes the mounts that are made on this
// side.
func (c *creation) openRoot() error {
	s := c.b.spec
	root, err := linux.CloneMount(s.Root.Path, true)
	if err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "root.path: %w", err)
	}
	c.root = root.File
	c.h.Root = c.files.Add(root.File)
	if dir, err := root.IsDir(); err != nil || !dir {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "root.path %s is not a directory", s.Root.Path)
	}
	mounts, err := oci.Opener{Spec: s, Root: root.File, AnySource: true, ByInit: c.copiesMounts()}.OpenAll()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		one, err := m.Place(&c.files)
		if err != nil {
			return err
		}
		c.h.Mounts = append(c.h.Mounts, one)
	}
	if c.idle {
		c.h.Programs = s.Process.Args
		return nil
	}
	view := oci.View{Root: root.File, Mounts: s.Mounts, Opened: mounts}
	if err := withHome(s.Process, view.Read); err != nil {
		return err
	}
	if c.h.Programs, err = oci.ProgramPaths(s.Process); err != nil {
		return err
	}
	return view.CheckPrograms(s.Process.Args[0], c.h.Programs)
}

// copiesMounts reports whether the container's mount namespace is a copy of ours
// in which the init may clone what we may. In a user namespace of its own the
// copies are locked together, and it may not get to all of them.
func (c *creation) copiesMounts() bool {
	own, joined := oci.HasNamespace(c.b.spec, specs.MountNamespace)
	user, _ := oci.HasNamespace(c.b.spec, specs.UserNamespace)
	return own && !joined && !user && !inUserNamespace()
}

// openNamespaces opens the namespaces that are joined.
func (c *creation) openNamespaces() error {
	for _, ns := range c.b.spec.Linux.Namespaces {
		if ns.Path == "" {
			continue
		}
		f, err := oci.OpenNamespace(ns.Path, ns.Type)
		if err != nil {
			return err
		}
		c.h.Joins[ns.Type] = c.files.Add(f)
	}
	return nil
}

// openDevices finds the nodes that are there already, where /dev is the image's
// own, and binds the host's, where none can be made.
func (c *creation) openDevices() error {
	s := c.b.spec
	own := !slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev" })
	user, _ := oci.HasNamespace(s, specs.UserNamespace)
	user = user || inUserNamespace()
	for _, d := range append(oci.DefaultDevices(), s.Linux.Devices...) {
		if own && c.keeps(d) {
			continue
		}
		if user {
			if err := c.bindDevice(d); err != nil {
				return err
			}
		}
	}
	if !own {
		return nil
	}
	for _, link := range []string{"/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/core", "/dev/ptmx"} {
		dir, err := linux.OpenInRoot(c.root, "/dev", unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return nil // no /dev: all is made
		}
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), link[len("/dev/"):], &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			c.keep(link)
		}
		dir.Close()
	}
	return nil
}

func (c *creation) keep(path string) {
	if c.h.Kept == nil {
		c.h.Kept = map[string]bool{}
	}
	c.h.Kept[path] = true
}

// keeps reports whether the image has a node as it should be.
func (c *creation) keeps(d specs.LinuxDevice) bool {
	f, err := linux.OpenInRoot(c.root, d.Path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return false
	}
	defer f.Close()
	if sameDevice(f, d) {
		c.keep(d.Path)
		return true
	}
	return false
}

// sameDevice reports whether an open node is the device meant.
func sameDevice(f *os.File, d specs.LinuxDevice) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	kinds := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}
	return st.Mode&unix.S_IFMT == kinds[d.Type] &&
		(d.Type == "p" || int64(unix.Major(st.Rdev)) == d.Major && int64(unix.Minor(st.Rdev)) == d.Minor)
}

// bindDevice clones the host's node, which must be the one meant.
func (c *creation) bindDevice(d specs.LinuxDevice) error {
	m, err := linux.CloneMount(d.Path, false)
	if err != nil {
		return errclass.Errorf(errdefs.ErrInvalidArgument, "linux.devices: %s cannot be made in a user namespace, and the host has none to bind: %w", d.Path, err)
	}
	if !sameDevice(m.File, d) {
		m.Close()
		return errclass.Errorf(errdefs.ErrInvalidArgument, "linux.devices: %s cannot be made in a user namespace, and the host's is not %s %d:%d", d.Path, d.Type, d.Major, d.Minor)
	}
	if c.h.Devices == nil {
		c.h.Devices = map[string]plan.FD{}
	}
	c.h.Devices[d.Path] = c.files.Add(m.File)
	return nil
}

// ownScore is this process's own, which its children begin with.
func ownScore() int {
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	n := 0
	if err == nil {
		_, err = fmt.Sscan(string(text), &n)
	}
	if err != nil {
		return 1 << 30 // no score that anybody wants: it is written in any case
	}
	return n
}
