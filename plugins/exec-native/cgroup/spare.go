package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// sparePrefix begins the names of groups that were made ahead. No container's
// group can have such a name: ids do not begin with a dot.
const sparePrefix = ".spare-"

// Spare is a group that was made before anybody asked for it, in the hierarchies
// of version 1, with its files opened: a directory of each hierarchy takes longer
// than all else about a group. Version 2 has nothing of it: its groups cannot be
// renamed, and making one takes no time.
type Spare struct {
	p     *Parent
	name  string
	tasks []*os.File
	oom   *os.File
	rules []Write // that restrict devices, in force already
}

// MakeSpare makes a group ahead; nil where there is no hierarchy of version 1, or
// where cpusets do not fill themselves. The number tells it apart from this
// process's other spares, and devices are the rules that most groups have. A spare is
// used by CreateWith, or removed.
func (p *Parent) MakeSpare(number uint64, devices []specs.LinuxDeviceCgroup) (*Spare, error) {
	one := false
	for _, d := range p.dirs {
		one = one || !d.Unified
	}
	if !one || !p.inherit {
		return nil, nil
	}
	s := &Spare{p: p, name: fmt.Sprintf("%s%d-%d", sparePrefix, os.Getpid(), number)}
	err := s.fill()
	if err == nil {
		err = s.restrict(devices)
	}
	if err != nil {
		s.Remove()
		return nil, fmt.Errorf("make cgroup %s ahead: %w", filepath.Join(p.path, s.name), err)
	}
	return s, nil
}

// fill makes the directories and opens the files.
func (s *Spare) fill() error {
	for _, d := range s.p.dirs {
		if d.Unified {
			continue
		}
		if err := s.p.mkdir(d, s.name); err != nil { // one that exists is not ours
			return err
		}
	}
	var err error
	if s.tasks, err = s.p.tasks(s.name); err != nil {
		return err
	}
	s.oom, err = s.p.Group(s.name).OOMCounter()
	return err
}

// restrict puts rules for devices in force.
func (s *Spare) restrict(rules []specs.LinuxDeviceCgroup) error {
	writes, err := plan(&specs.LinuxResources{Devices: rules}, s.p.viewNew(""))
	if err != nil {
		return err
	}
	if s.rules = restrictions(writes); len(s.rules) != len(writes) {
		s.rules = nil // of version 2, which is not made ahead
		return nil
	}
	return s.p.writeNew(s.name, writes)
}

// restrictions are the writes that restrict devices in version 1.
func restrictions(writes []Write) []Write {
	return slices.DeleteFunc(slices.Clone(writes), func(w Write) bool { return w.Controller != "devices" || w.Unified })
}

// fit leaves out of the writes to a new group what the spare has had already. It is
// false for a spare that cannot become this group: one that restricts devices, of
// which the writes do not speak from the beginning.
func (s *Spare) fit(writes []Write) ([]Write, bool) {
	if len(s.rules) == 0 {
		return writes, true
	}
	rules := restrictions(writes)
	if slices.Equal(rules, s.rules) {
		return slices.DeleteFunc(writes, func(w Write) bool { return slices.Contains(rules, w) }), true
	}
	return writes, len(rules) > 0 && rules[0].Value == everyDevice
}

// isOne and isTwo tell hierarchies by their version.
func isOne(d dir) bool { return !d.Unified }
func isTwo(d dir) bool { return d.Unified }

// CloneMounts makes detached mounts of the group's directories, as Group.Mounts
// does. They are the caller's, and show the group whatever its name becomes.
func (s *Spare) CloneMounts() ([]*os.File, error) { return s.p.Group(s.name).Mounts() }

// Remove removes a spare that was not used, and closes its files.
func (s *Spare) Remove() {
	s.close()
	_ = s.p.Group(s.name).sweep() // what stays is found by RemoveSpares
}

// close closes what is still the spare's.
func (s *Spare) close() {
	Entry{Tasks: s.tasks}.Close()
	if s.oom != nil {
		s.oom.Close()
	}
	s.tasks, s.oom = nil, nil
}

// become gives the spare its name, in all hierarchies of version 1.
func (s *Spare) become(name string) error {
	for _, d := range s.p.dirs {
		if d.Unified {
			continue
		}
		at := int(d.f.Fd())
		// RENAME_NOREPLACE is not for kernfs, which refuses a name that is taken.
		if err := again(func() error { return unix.Renameat(at, s.name, at, name) }); err != nil {
			return fmt.Errorf("name cgroup %s in %s: %w", filepath.Join(s.p.path, name), d.Label(), err)
		}
	}
	return nil
}

// RemoveSpares removes the spares that an earlier process has left.
func (p *Parent) RemoveSpares() error {
	names, err := p.list()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if strings.HasPrefix(name, sparePrefix) {
			errs = append(errs, p.Group(name).sweep())
		}
	}
	return errors.Join(errs...)
}
