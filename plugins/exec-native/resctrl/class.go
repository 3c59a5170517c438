package resctrl

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// place is where the kernel's documentation, and everybody, mounts it.
const place = "/sys/fs/resctrl"

// Root is the mounted file system.
type Root string

// Class is where a container is. The zero value is nowhere.
type Class struct {
	Name    string `json:"name"`              // of the directory; "/" for the default class
	Own     bool   `json:"own,omitempty"`     // it was made for the container alone, and goes with it
	Monitor string `json:"monitor,omitempty"` // its group that counts; empty for none
}

// Find is the machine's. The error's class is ErrNotImplemented where it is not
// mounted, or the processor has no such thing.
func Find() (Root, error) {
	var s unix.Statfs_t
	if unix.Statfs(place, &s) == nil && s.Type == unix.RDTGROUP_SUPER_MAGIC {
		return Root(place), nil
	}
	return "", errclass.Errorf(errdefs.ErrNotImplemented,
		"linux.intelRdt: resctrl is not mounted at %s: mount it, if this kernel and processor have resource control", place)
}

// Planned is what Make is going to make for a container alone, and Remove takes away
// should Make break off: nothing that is there already.
func (r Root) Planned(id string, want *specs.LinuxIntelRdt) Class {
	missing := func(dir string) bool {
		_, err := os.Lstat(dir)
		return errors.Is(err, fs.ErrNotExist)
	}
	c := Class{Name: want.ClosID}
	if want.ClosID == "" {
		c.Name = id
		c.Own = missing(r.dir(c))
	}
	if group := (Class{Name: c.Name, Monitor: id}); want.EnableMonitoring && missing(r.monitor(group)) {
		c.Monitor = id
	}
	return c
}

// Make makes or finds the class that a specification asks for, for a container
// of this id. After an error nothing is left of it.
func (r Root) Make(id string, want *specs.LinuxIntelRdt) (c Class, err error) {
	if err := Check(want); err != nil {
		return Class{}, err
	}
	made := false
	defer func() {
		if err != nil && made {
			err = errors.Join(err, ignoreMissing(unix.Rmdir(r.dir(c))))
		}
	}()
	told := writes(want)
	c = Class{Name: want.ClosID, Own: want.ClosID == ""}
	if c.Own {
		c.Name = id
	}
	made, err = r.makeDir(c, len(told) > 0)
	if err != nil {
		return Class{}, err
	}
	for _, lines := range told {
		if err == nil && made {
			err = r.write(c, lines)
		} else if err == nil {
			err = r.compare(c, lines)
		}
	}
	if err != nil || !want.EnableMonitoring {
		return c, err
	}
	c.Monitor = id
	if err := os.Mkdir(r.monitor(c), 0o755); err != nil {
		return c, r.explain(fmt.Errorf("linux.intelRdt.enableMonitoring: make group: %w", err))
	}
	return c, nil
}

// makeDir makes a class that is not there, if it is the container's own or its
// shares are told.
func (r Root) makeDir(c Class, told bool) (made bool, err error) {
	if !c.Own {
		if _, err := os.Stat(r.dir(c)); err == nil {
			return false, nil
		} else if !errors.Is(err, fs.ErrNotExist) || !told {
			return false, errclass.Errorf(errdefs.ErrInvalidArgument, "linux.intelRdt.closID: class %s is not there, and no schemata say what it should be: %w", c.Name, err)
		}
	}
	switch err := os.Mkdir(r.dir(c), 0o755); {
	case errors.Is(err, unix.ENOSPC):
		return false, errclass.Errorf(errdefs.ErrResourceExhausted, "linux.intelRdt: the processor has no more classes for %s (info/*/num_closids): %w", c.Name, err)
	case err != nil:
		return false, r.explain(fmt.Errorf("linux.intelRdt: make class: %w", err))
	}
	return true, nil
}

// compare refuses a class that is there with other shares.
func (r Root) compare(c Class, lines []string) error {
	text, err := os.ReadFile(r.schemata(c))
	if err != nil {
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	lacks, has, err := missing(lines, string(text))
	if err == nil && lacks != "" {
		err = errclass.Errorf(errdefs.ErrFailedPrecondition, "linux.intelRdt.closID: class %s is there with %s, not with %s: name another, or leave the schemata out", c.Name, has, lacks)
	}
	return err
}

// Update changes shares of a container's class. Empty lines change nothing.
func (r Root) Update(c Class, l3Cache, memoryBandwidth string) error {
	want := &specs.LinuxIntelRdt{L3CacheSchema: l3Cache, MemBwSchema: memoryBandwidth}
	if err := Check(want); err != nil {
		return err
	}
	for _, lines := range writes(want) {
		if err := r.write(c, lines); err != nil {
			return err
		}
	}
	return nil
}

// write writes lines into the class's schemata at once.
func (r Root) write(c Class, lines []string) error {
	f, err := openFile(r.schemata(c))
	if err == nil {
		_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return r.explain(errclass.Errorf(errdefs.ErrInvalidArgument, "linux.intelRdt: write %s: %w", strings.Join(lines, ", "), err))
	}
	return nil
}

// openFile opens a file that the kernel has made. In a plain directory, which
// stands for its file system in tests, nobody has, and lines add up.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// Tasks are the files that a process writes 0 into to be in the class and in its
// group, in this order.
func (r Root) Tasks(c Class) (files []*os.File, err error) {
	dirs := []string{r.dir(c)}
	if c.Monitor != "" {
		dirs = append(dirs, r.monitor(c))
	}
	for _, dir := range dirs {
		f, err := openFile(filepath.Join(dir, "tasks"))
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("linux.intelRdt: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}

// Remove removes what was made for the container. What is not there any more is
// fine.
func (r Root) Remove(c Class) error {
	var errs error
	if c.Monitor != "" {
		errs = ignoreMissing(unix.Rmdir(r.monitor(c)))
	}
	if c.Own {
		errs = errors.Join(errs, ignoreMissing(unix.Rmdir(r.dir(c))))
	}
	if errs != nil {
		return fmt.Errorf("remove class %s of resource control: %w", c.Name, errs)
	}
	return nil
}

func (r Root) dir(c Class) string {
	if c.Name == defaultClass {
		return string(r)
	}
	return filepath.Join(string(r), c.Name)
}

func (r Root) schemata(c Class) string { return filepath.Join(r.dir(c), "schemata") }

func (r Root) monitor(c Class) string { return filepath.Join(r.dir(c), "mon_groups", c.Monitor) }

// explain adds what the kernel says about the last refusal.
func (r Root) explain(err error) error {
	text, readErr := os.ReadFile(filepath.Join(string(r), "info/last_cmd_status"))
	said := strings.TrimSpace(string(text))
	if readErr != nil || said == "" || said == "ok" {
		return err
	}
	return fmt.Errorf("%w: the kernel says: %s", err, said)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sortedNumbers are numbers as text, in the order of numbers.
func sortedNumbers(all iter.Seq[string]) []string {
	return slices.SortedFunc(all, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
}
