package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// namePrefix begins the engines' names; the pid of the test program follows.
const namePrefix = "rig"

// groupPrefix begins the name of an engine's cgroup; the engine's name follows.
const groupPrefix = "gantry-"

// Close ends the engine and everything that it has on the machine, and says
// what could not be taken away. It may be called in any state, and twice.
func (e *Engine) Close() error {
	var errs []error
	if e.running() != nil {
		if err := e.Stop(); err != nil {
			errs = append(errs, fmt.Errorf("stop gantryd: %w", err))
			if e.running() != nil {
				errs = append(errs, e.Kill())
			}
		}
	}
	errs = append(errs, sweep(e.Name, e.Dir, e.Run))
	if e.log != nil {
		_ = e.log.Close() // its file is gone already
	}
	if e.net != nil {
		_ = e.net.close() // the second time it is closed already
	}
	return errors.Join(errs...)
}

// sweep takes away what an engine of that name may have left: processes by
// its cgroups, cgroups, mounts below its directories, and these.
func sweep(name string, dirs ...string) error {
	var errs []error
	for end := time.Now().Add(aMoment); ; {
		pids := cgroupPids(name)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone by now
		}
		thaw(name)
		if len(pids) == 0 {
			break
		}
		if time.Now().After(end) {
			errs = append(errs, fmt.Errorf("processes %v of %s do not end", pids, name))
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	errs = append(errs, removeCgroups(name), unmountBelow(dirs...))
	for _, dir := range dirs {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// thaw lets frozen processes go on: on cgroup v1 nothing else ends them.
func thaw(name string) {
	for _, dir := range cgroups(name) {
		_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0) // most hierarchies do not have it
		_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	}
}

// hierarchies are the mounted cgroup hierarchies.
func hierarchies() []string {
	var all []string
	for _, m := range mountTable("self") {
		if m.fstype == "cgroup" || m.fstype == "cgroup2" {
			all = append(all, m.target)
		}
	}
	return all
}

// cgroups are the engine's directories in all hierarchies, parents first.
func cgroups(name string) []string {
	var all []string
	for _, h := range hierarchies() {
		_ = filepath.WalkDir(filepath.Join(h, groupPrefix+name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil // what goes away while it is walked is not there
		})
	}
	return all
}

// cgroupPids are the processes in the engine's cgroups, each once.
func cgroupPids(name string) []int {
	seen := map[int]bool{}
	var pids []int
	for _, dir := range cgroups(name) {
		data, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // it may be gone by now
		for f := range strings.FieldsSeq(string(data)) {
			pid, err := strconv.Atoi(f)
			if err == nil && pid > 0 && !seen[pid] {
				seen[pid] = true
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func removeCgroups(name string) error {
	var err error
	for end := time.Now().Add(aMoment); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		err = nil
		all := cgroups(name)
		for i := len(all) - 1; i >= 0; i-- {
			if e := syscall.Rmdir(all[i]); e != nil && !errors.Is(e, syscall.ENOENT) {
				err = fmt.Errorf("remove cgroup %s: %w", all[i], e)
			}
		}
		if err == nil {
			break
		}
	}
	return err
}

func unmountBelow(dirs ...string) error {
	var errs []error
	table := mountTable("self")
	for i := len(table) - 1; i >= 0; i-- {
		for _, dir := range dirs {
			if t := table[i].target; t == dir || strings.HasPrefix(t, dir+"/") {
				if err := syscall.Unmount(t, syscall.MNT_DETACH); err != nil {
					errs = append(errs, fmt.Errorf("unmount %s: %w", t, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// SweepDead takes away what test programs left that were killed. It belongs
// into TestMain.
func SweepDead() error {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), namePrefix+"*-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range found {
		name := filepath.Base(dir)
		owner, _, _ := strings.Cut(strings.TrimPrefix(name, namePrefix), "-")
		pid, err := strconv.Atoi(owner)
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		killRecorded(dir)
		errs = append(errs, sweep(name, dir, filepath.Join(tmpfs(), name)))
	}
	return errors.Join(errs...)
}

// killRecorded ends the gantryd that the directory names, if it still is one.
func killRecorded(dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may be gone
	if strings.Contains(string(line), filepath.Base(dir)) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		time.Sleep(50 * time.Millisecond)
	}
}
