package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// wild stands for all majors or minors.
const wild = -1

// anyAccess is read, write and mknod.
const anyAccess = unix.BPF_DEVCG_ACC_MKNOD | unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE

// deviceRule is a rule of the specification, read and checked.
type deviceRule struct {
	allow        bool
	kind         byte // 'a', 'b' or 'c'
	major, minor int64
	access       int // bits as BPF_DEVCG_ACC
}

// parseDevice reads a rule.
func parseDevice(d specs.LinuxDeviceCgroup) (deviceRule, error) {
	r := deviceRule{allow: d.Allow, kind: 'a', major: wild, minor: wild}
	switch d.Type {
	case "", "a":
	case "b", "c":
		r.kind = d.Type[0]
	case "u": // mknod's other letter for a character device
		r.kind = 'c'
	default:
		return r, errclass.Errorf(errdefs.ErrInvalidArgument, "device rule of type %q: want a, b or c", d.Type)
	}
	for _, n := range []struct {
		from *int64
		to   *int64
	}{{d.Major, &r.major}, {d.Minor, &r.minor}} {
		if n.from == nil || *n.from == wild {
			continue
		}
		if *n.from < 0 || *n.from > 1<<32-1 {
			return r, errclass.Errorf(errdefs.ErrInvalidArgument, "device rule with number %d: want 0 to 4294967295, or -1 for all", *n.from)
		}
		*n.to = *n.from
	}
	for _, a := range d.Access {
		switch a {
		case 'm':
			r.access |= unix.BPF_DEVCG_ACC_MKNOD
		case 'r':
			r.access |= unix.BPF_DEVCG_ACC_READ
		case 'w':
			r.access |= unix.BPF_DEVCG_ACC_WRITE
		default:
			return r, errclass.Errorf(errdefs.ErrInvalidArgument, "device rule with access %q: want some of rwm", d.Access)
		}
	}
	if r.access == 0 {
		r.access = anyAccess
	}
	return r, nil
}

// parseDevices reads all rules, and leaves out those before the last one that
// speaks of everything: it decides whatever they did.
func parseDevices(rules []specs.LinuxDeviceCgroup) ([]deviceRule, error) {
	var out []deviceRule
	for _, d := range rules {
		r, err := parseDevice(d)
		if err != nil {
			return nil, err
		}
		if r.whole() {
			out = out[:0]
		}
		out = append(out, r)
	}
	return out, nil
}

// everyDevice is the rule that speaks of all, and begins anew.
const everyDevice = "a *:* rwm"

// whole reports whether the rule speaks of everything.
func (r deviceRule) whole() bool {
	return r.kind == 'a' && r.major == wild && r.minor == wild && r.access == anyAccess
}

// same reports whether two rules speak of the same devices.
func (r deviceRule) same(o deviceRule) bool {
	return r.kind == o.kind && r.major == o.major && r.minor == o.minor
}

// meets reports whether two rules speak of a device and an access in common.
func (r deviceRule) meets(o deviceRule) bool {
	return r.kind == o.kind && (r.major == o.major || r.major == wild || o.major == wild) &&
		(r.minor == o.minor || r.minor == wild || o.minor == wild) && r.access&o.access != 0
}

// String spells a rule as version 1 reads and shows it: "c 1:3 rwm".
func (r deviceRule) String() string {
	part := func(n int64) string {
		if n == wild {
			return "*"
		}
		return number(n)
	}
	letters := ""
	for _, a := range []struct {
		bit    int
		letter string
	}{{unix.BPF_DEVCG_ACC_READ, "r"}, {unix.BPF_DEVCG_ACC_WRITE, "w"}, {unix.BPF_DEVCG_ACC_MKNOD, "m"}} {
		if r.access&a.bit != 0 {
			letters += a.letter
		}
	}
	return fmt.Sprintf("%c %s:%s %s", r.kind, part(r.major), part(r.minor), letters)
}

// deviceList is what a version 1 group allows: all but the exceptions, or none
// but them (security/device_cgroup.c).
type deviceList struct {
	known      bool // false: the rules build on what the parent gives
	allow      bool
	exceptions []deviceRule
}

// apply does what the kernel does with a rule. An exception is taken back only
// if it was made for exactly the same devices: the kernel ignores any other
// wish, so it is refused here.
func (d *deviceList) apply(r deviceRule) error {
	switch {
	case r.whole():
		*d = deviceList{known: true, allow: r.allow}
		return nil
	case r.kind == 'a': // the kernel would take it for everything, whatever else it says
		for _, kind := range []byte{'b', 'c'} {
			r.kind = kind
			if err := d.apply(r); err != nil {
				return err
			}
		}
		return nil
	}
	at := slices.IndexFunc(d.exceptions, r.same)
	if r.allow != d.allow {
		if at < 0 {
			d.exceptions = append(d.exceptions, r)
		} else {
			d.exceptions[at].access |= r.access
		}
		return nil
	}
	for i, e := range d.exceptions {
		if i != at && r.meets(e) {
			return errclass.Errorf(errdefs.ErrNotImplemented, "device rule %s (allow: %t) after one for %s: cgroup version 1 ignores such a part", r, r.allow, e)
		}
	}
	if at >= 0 {
		if d.exceptions[at].access &^= r.access; d.exceptions[at].access == 0 {
			d.exceptions = slices.Delete(d.exceptions, at, at+1)
		}
	}
	return nil
}

// text is devices.list of such a group, in the order of the rules.
func (d *deviceList) text() string {
	if d.allow {
		return everyDevice + "\n" // the exceptions are not shown
	}
	var b strings.Builder
	for _, e := range d.exceptions {
		b.WriteString(e.String() + "\n")
	}
	return b.String()
}

// parseDeviceList reads devices.list; false for what it does not understand.
func parseDeviceList(text string) (deviceList, bool) {
	d := deviceList{known: true}
	for line := range strings.Lines(text) {
		f := strings.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == ':' || c == '\n' })
		if len(f) != 4 {
			return d, false
		}
		if f[0] == "a" {
			return deviceList{known: true, allow: true}, true
		}
		one := specs.LinuxDeviceCgroup{Allow: true, Type: f[0], Access: f[3]}
		for _, n := range []struct {
			text string
			to   **int64
		}{{f[1], &one.Major}, {f[2], &one.Minor}} {
			if v, err := strconv.ParseInt(n.text, 10, 64); err == nil {
				*n.to = &v
			} else if n.text != "*" {
				return d, false
			}
		}
		r, err := parseDevice(one)
		if err != nil {
			return d, false
		}
		d.exceptions = append(d.exceptions, r)
	}
	return d, true
}

// transition computes the rules that turn one list into another without a
// moment in which a device that both allow is denied.
func (d *deviceList) transition(to deviceList) []deviceRule {
	if d.allow || to.allow {
		out := []deviceRule{{allow: to.allow, kind: 'a', major: wild, minor: wild, access: anyAccess}}
		return append(out, to.exceptions...)
	}
	var out []deviceRule
	differ := func(have, want []deviceRule, allow bool) {
		for _, e := range want {
			if at := slices.IndexFunc(have, e.same); at >= 0 {
				e.access &^= have[at].access
			}
			if e.access != 0 {
				e.allow = allow
				out = append(out, e)
			}
		}
	}
	differ(d.exceptions, to.exceptions, true)
	differ(to.exceptions, d.exceptions, false)
	return out
}

// devices plans version 1's files; version 2 has a program instead.
func (l *limits) devices(rules []specs.LinuxDeviceCgroup) {
	if len(rules) == 0 {
		return
	}
	parsed, err := parseDevices(rules)
	if err == nil && l.on("devices", "devices", "devices") == 1 {
		err = l.devicesV1(parsed)
	}
	if err != nil && l.err == nil {
		l.err = err
	}
}

// devicesV1 plans the writes, and what the list must say in the end. Of a new
// group it is known only once a rule has spoken of everything: before that it
// has what its parent has.
func (l *limits) devicesV1(rules []deviceRule) error {
	var target deviceList
	if !l.fresh {
		target, target.known = parseDeviceList(l.now("devices", "devices.list"))
	}
	present := deviceList{target.known, target.allow, slices.Clone(target.exceptions)}
	for _, r := range rules {
		if target.known || r.whole() {
			if err := target.apply(r); err != nil {
				return err
			}
		}
	}
	if present.known && !present.allow {
		rules = present.transition(target)
	}
	for _, r := range rules {
		for _, one := range r.split() {
			l.add(deviceWrite(one))
		}
	}
	if target.known {
		l.add(Write{Field: "devices", Controller: "devices", File: "devices.list", Back: target.text(), Rule: sameSet})
	}
	return nil
}

// split makes two rules of one for all kinds that is not for everything.
func (r deviceRule) split() []deviceRule {
	if r.kind != 'a' || r.whole() {
		return []deviceRule{r}
	}
	b, c := r, r
	b.kind, c.kind = 'b', 'c'
	return []deviceRule{b, c}
}

// deviceWrite is a rule for version 1's files.
func deviceWrite(r deviceRule) Write {
	w := Write{Field: "devices", Controller: "devices", File: "devices.deny", Value: r.String()}
	if r.allow {
		w.File = "devices.allow"
	}
	return w
}
