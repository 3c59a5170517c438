package rig

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Inventory is what an engine has on the machine, a line for each thing, sorted.
// What drivers keep ahead of demand (empty upper directories, spare namespaces)
// and what depends on no container (sockets, the engine's own files) is left out.
type Inventory []string

// mountEntry is a line of mountinfo.
type mountEntry struct{ target, fstype string }

func mountTable(pid string) []mountEntry {
	data, _ := os.ReadFile("/proc/" + pid + "/mountinfo") // the process may be gone
	var all []mountEntry
	for line := range strings.Lines(string(data)) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if ok && len(l) >= 5 && len(r) >= 1 {
			all = append(all, mountEntry{l[4], r[0]})
		}
	}
	return all
}

// Inventory takes stock.
func (e *Engine) Inventory() (Inventory, error) {
	var v Inventory
	for _, m := range mountTable("self") {
		if strings.HasPrefix(m.target, e.Run) || strings.HasPrefix(m.target, e.Dir+"/root") || strings.HasPrefix(m.target, e.Root+"/") {
			v = append(v, "mount "+m.fstype+" "+m.target)
		}
	}
	v = append(v, e.processes()...)
	for _, dir := range cgroups(e.Name) {
		if !strings.Contains(dir, "/drivers") && !strings.Contains(dir, spareGroup) {
			v = append(v, "cgroup "+dir)
		}
	}
	v = append(v, below("run", e.Run, 3, keepRun)...)
	v = append(v, below("data", filepath.Join(e.Root, "drivers"), 3, keepData)...)
	v = append(v, below("key", filepath.Join(e.Root, "keys"), 1, all)...)
	v = append(v, below("spool", filepath.Join(e.Root, "spool"), 1, all)...)
	net, err := e.network()
	if err != nil {
		return nil, err
	}
	v = append(v, net...)
	slices.Sort(v)
	return v, nil
}

func all(string) bool { return true }

// spareGroup is in the paths of cgroups that were made ahead of demand.
const spareGroup = "/.spare-"

// standsBy reports whether a shim is one of those that wait for a start: it has
// nothing of a run open.
func (e *Engine) standsBy(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false // it is gone
	}
	return !slices.ContainsFunc(fds, func(f os.DirEntry) bool {
		link, _ := os.Readlink(filepath.Join(dir, f.Name())) // it may be closed by now
		return strings.HasPrefix(link, e.Run+"/")
	})
}

// keepRun chooses files of the run directory: those of containers. A driver's
// locks, sockets and lists stay as long as the engine.
func keepRun(rel string) bool {
	parts := strings.Split(rel, "/")
	if len(parts) < 2 {
		return false
	}
	own := parts[1]
	return own != "networks" && !strings.HasPrefix(own, ".spare-") && !strings.HasPrefix(own, "plugin.") && !strings.HasPrefix(own, "netns.") && !strings.HasPrefix(own, "lock.")
}

// keepData chooses files of the drivers' data: not what is made ahead of demand,
// nor what is shared by root filesystems and goes with the last of them, some time.
func keepData(rel string) bool {
	parts := strings.Split(rel, "/")
	// A log that was made ahead, or that is being removed, bears the driver's pid.
	return len(parts) >= 2 && parts[1] != "work" && parts[1] != "shared" && !strings.HasPrefix(parts[1], ".spare-") && !strings.HasPrefix(parts[1], ".gone-")
}

// Ahead counts what drivers keep beside what is asked for. It does not grow.
func (e *Engine) Ahead() int {
	n := 0
	for _, dir := range []string{"work/*", "shared/*", ".spare-*"} {
		found, _ := filepath.Glob(filepath.Join(e.Root, "drivers", "*", dir)) // the pattern is a good one
		n += len(found)
	}
	spares := map[string]bool{}
	for _, dir := range cgroups(e.Name) {
		if strings.Contains(dir, spareGroup) {
			spares[filepath.Base(dir)] = true
		}
	}
	for _, pid := range e.shims() {
		if e.standsBy(pid) {
			n++
		}
	}
	return n + len(spares)
}

// below lists what is below a directory, to a depth.
func below(kind, dir string, depth int, keep func(rel string) bool) []string {
	var list []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return nil // what goes away while it is walked is not there
		}
		if keep(rel) {
			list = append(list, kind+" "+rel)
		}
		if d.IsDir() && strings.Count(rel, "/")+1 >= depth {
			return fs.SkipDir
		}
		return nil
	})
	return list
}

// processes are those in the engine's cgroups, without the drivers, with the
// namespaces that they are in and that are not the machine's.
func (e *Engine) processes() []string {
	var list []string
	for _, pid := range cgroupPids(e.Name) {
		proc := fmt.Sprintf("/proc/%d/", pid)
		group, _ := os.ReadFile(proc + "cgroup")
		if strings.Contains(string(group), "/"+groupPrefix+e.Name+"/drivers/") {
			continue
		}
		comm, err := os.ReadFile(proc + "comm")
		if err != nil {
			continue // it is gone
		}
		name := string(bytes.TrimSpace(comm))
		if name == "gantry-netns" || name == "gantry-shim" && e.standsBy(pid) {
			continue // its namespaces are the links' other ends; it waits for a start
		}
		list = append(list, "process "+name)
		for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup", "user"} {
			own, err1 := os.Readlink(proc + "ns/" + ns)
			ours, err2 := os.Readlink("/proc/self/ns/" + ns)
			if err1 == nil && err2 == nil && own != ours && own != e.net.name() {
				list = append(list, "namespace "+ns+" of "+name)
			}
		}
	}
	return list
}

// network is what is in the engine's own network namespace: nothing there is
// anybody else's.
func (e *Engine) network() ([]string, error) {
	var list []string
	links, err := e.InNet("ip", "-o", "link")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(links) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
		if i := slices.Index(f, "altname"); i > 0 && i+1 < len(f) {
			name = f[i+1] // the endpoint's, of a pair that is one
		} else if strings.HasPrefix(name, "gp") {
			continue // a pair made ahead
		}
		if name != "lo" {
			list = append(list, "link "+name)
		}
	}
	rules, err := e.InNet("nft", "list", "ruleset")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(rules) {
		if line = strings.TrimSpace(line); line != "" && line != "}" {
			list = append(list, "rule "+line)
		}
	}
	return list, nil
}

// DriverPids are the processes of a driver ("net-bridge") by its cgroup.
func (e *Engine) DriverPids(name string) []int {
	var pids []int
	for _, h := range hierarchies() {
		for generation := range 2 {
			file := filepath.Join(h, groupPrefix+e.Name, "drivers", name+"."+strconv.Itoa(generation), "cgroup.procs")
			data, _ := os.ReadFile(file) // most hierarchies do not have it
			for f := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(f); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// DriverGroups are the cgroup v2 directories of a driver's instances.
func (e *Engine) DriverGroups(name string) []string {
	var dirs []string
	for _, h := range hierarchies() {
		found, _ := filepath.Glob(filepath.Join(h, groupPrefix+e.Name, "drivers", name+".*", "cgroup.kill"))
		for _, f := range found {
			dirs = append(dirs, filepath.Dir(f))
		}
	}
	return dirs
}

// ShimPids are the shims of the engine's containers.
func (e *Engine) ShimPids() []int { return slices.DeleteFunc(e.shims(), e.standsBy) }

// shims are all shims, also those that wait for a start.
func (e *Engine) shims() []int {
	var pids []int
	for _, pid := range cgroupPids(e.Name) {
		proc := fmt.Sprintf("/proc/%d/", pid)
		group, _ := os.ReadFile(proc + "cgroup")
		comm, _ := os.ReadFile(proc + "comm")
		if strings.Contains(string(group), "/"+groupPrefix+e.Name+"/shims") && string(bytes.TrimSpace(comm)) != "gantry-netns" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Diff says what is in only one of two inventories: "-" in the first, "+" in the
// second. It is empty when they are the same.
func Diff(a, b Inventory) string {
	count := map[string]int{}
	for _, line := range a {
		count[line]--
	}
	for _, line := range b {
		count[line]++
	}
	var out []string
	for line, n := range count {
		for ; n < 0; n++ {
			out = append(out, "- "+line)
		}
		for ; n > 0; n-- {
			out = append(out, "+ "+line)
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// Pids are all processes in the engine's cgroups: drivers, shims, containers.
func (e *Engine) Pids() []int { return cgroupPids(e.Name) }
