package oci

import (
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// attributes are changes of a mount's flags (mount_setattr(2)).
type attributes struct {
	set, clear uint64 // MOUNT_ATTR_…
}

// none reports whether nothing changes.
func (a attributes) none() bool { return a == attributes{} }

// options are a mount's options, sorted by what they are for.
type options struct {
	bind, tree  bool       // "bind", "rbind"
	remount     bool       // change what is mounted there
	top         attributes // of the mount itself
	all         attributes // of it and those below: "rro" and its like
	propagation uint64     // MS_PRIVATE and its like; 0 for not said
	spread      bool       // propagation of those below as well
	idmap       bool       // "idmap", "ridmap"
	idmapTree   bool
	copyUp      bool     // "tmpcopyup"
	super       []string // flags of a new file system itself: "sync" and its like
	data        []string // the file system's own
}

// flagOptions are the options that set or clear a flag of a mount. Each has a
// recursive form, with an "r" before it.
func flagOptions() map[string]attributes {
	const atime = unix.MOUNT_ATTR__ATIME // one field of three values: cleared before it is set
	return map[string]attributes{
		"ro": {set: unix.MOUNT_ATTR_RDONLY}, "rw": {clear: unix.MOUNT_ATTR_RDONLY},
		"nosuid": {set: unix.MOUNT_ATTR_NOSUID}, "suid": {clear: unix.MOUNT_ATTR_NOSUID},
		"nodev": {set: unix.MOUNT_ATTR_NODEV}, "dev": {clear: unix.MOUNT_ATTR_NODEV},
		"noexec": {set: unix.MOUNT_ATTR_NOEXEC}, "exec": {clear: unix.MOUNT_ATTR_NOEXEC},
		"nodiratime": {set: unix.MOUNT_ATTR_NODIRATIME}, "diratime": {clear: unix.MOUNT_ATTR_NODIRATIME},
		"nosymfollow": {set: unix.MOUNT_ATTR_NOSYMFOLLOW}, "symfollow": {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
		"noatime": {set: unix.MOUNT_ATTR_NOATIME, clear: atime}, "atime": {clear: atime},
		"strictatime": {set: unix.MOUNT_ATTR_STRICTATIME, clear: atime}, "nostrictatime": {clear: atime},
		"relatime": {clear: atime}, "norelatime": {clear: atime}, // relative times are the kernel's default, and 0
	}
}

// propagationOptions are the options about where mounts travel.
func propagationOptions() map[string]uint64 {
	return map[string]uint64{
		"private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE, "shared": unix.MS_SHARED, "unbindable": unix.MS_UNBINDABLE,
	}
}

// superOptions are the flags of a file system itself; those with "" say what is
// so anyway, or what the kernel no longer knows (mandatory locks, 5.15).
func superOptions() map[string]string {
	return map[string]string{
		"sync": "sync", "async": "async", "dirsync": "dirsync", "lazytime": "lazytime", "nolazytime": "nolazytime",
		"silent": "", "loud": "", "noiversion": "", "nomand": "", "defaults": "",
	}
}

// MountOptions lists the options that are not a file system's own, sorted.
func MountOptions() []string {
	out := []string{"bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup"}
	for o := range flagOptions() {
		out = append(out, o, "r"+o)
	}
	for o := range propagationOptions() {
		out = append(out, o, "r"+o)
	}
	for o := range superOptions() {
		out = append(out, o)
	}
	slices.Sort(out)
	return out
}

// optionsOf sorts a mount's options. Of two that contradict each other the later
// one holds.
func optionsOf(m specs.Mount) (options, error) {
	out := options{bind: m.Type == "bind" || m.Type == "none", idmap: len(m.UIDMappings)+len(m.GIDMappings) > 0}
	flags, propagations, supers := flagOptions(), propagationOptions(), superOptions()
	for _, o := range m.Options {
		if a, ok := flags[o]; ok {
			out.top = out.top.then(a)
			continue
		}
		below, recursive := strings.CutPrefix(o, "r")
		if a, ok := flags[below]; ok && recursive {
			out.all = out.all.then(a)
			continue
		}
		if p, ok := propagations[o]; ok {
			out.propagation, out.spread = p, false
			continue
		}
		if p, ok := propagations[below]; ok && recursive {
			out.propagation, out.spread = p, true
			continue
		}
		if s, ok := supers[o]; ok {
			if s != "" {
				out.super = append(out.super, s)
			}
			continue
		}
		if err := out.word(m, o); err != nil {
			return out, err
		}
	}
	return out, nil
}

// word reads an option that is of no table.
func (o *options) word(m specs.Mount, option string) error {
	switch option {
	case "bind":
		o.bind = true
	case "rbind":
		o.bind, o.tree = true, true
	case "remount":
		o.remount = true
	case "idmap":
		o.idmap = true
	case "ridmap":
		o.idmap, o.idmapTree = true, true
	case "tmpcopyup":
		if m.Type != "tmpfs" {
			return errclass.Errorf(errdefs.ErrInvalidArgument, "mounts: %s: tmpcopyup is for a tmpfs, not %s", m.Destination, m.Type)
		}
		o.copyUp = true
	case "iversion", "mand":
		return errclass.Errorf(errdefs.ErrNotImplemented, "mounts: %s: option %q is not served by this kernel's way to mount", m.Destination, option)
	default:
		o.data = append(o.data, option)
	}
	return nil
}

// then is what becomes of flags when more are changed afterwards.
func (a attributes) then(b attributes) attributes {
	// The field of access times stays cleared: it must be before it is set.
	return attributes{set: a.set&^b.clear | b.set, clear: a.clear&^(b.set&^unix.MOUNT_ATTR__ATIME) | b.clear}
}

// settled adds what holds where nothing is said: what is mounted in the container
// stays there and the host's later mounts do not appear. Docker's default too.
func (o options) settled() options {
	if o.propagation == 0 {
		o.propagation, o.spread = unix.MS_PRIVATE, true
	}
	return o
}

// changes are the calls by which a mount gets its attributes, in their order. A
// single mount has none below, and one call does.
func (o options) changes(single bool) []plan.Attr {
	var out []plan.Attr
	for _, c := range []struct {
		flags       attributes
		propagation uint64
		recursive   bool
	}{{o.top, 0, false}, {o.all, 0, true}, {attributes{}, o.propagation, o.spread}} {
		if c.flags.none() && c.propagation == 0 {
			continue
		}
		c.recursive = c.recursive && !single
		if n := len(out); n > 0 && out[n-1].Recursive == c.recursive {
			c.flags = attributes{out[n-1].Set, out[n-1].Clear}.then(c.flags)
			out = out[:n-1]
		}
		out = append(out, plan.Attr{Set: c.flags.set, Clear: c.flags.clear, Propagation: c.propagation, Recursive: c.recursive})
	}
	return out
}

// rootPropagation reads linux.rootfsPropagation; nothing said is private.
func rootPropagation(word string) (attr plan.Attr, err error) {
	if word == "" {
		return plan.Attr{}, nil
	}
	below, recursive := strings.CutPrefix(word, "r")
	p, ok := propagationOptions()[below]
	if !ok {
		return attr, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.rootfsPropagation %q is not known", word)
	}
	return plan.Attr{Propagation: p, Recursive: recursive}, nil
}
