package execnative

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gantryd/gantry/internal/linux/probe"
	"github.com/gantryd/gantry/plugins/exec-native/cgroup"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// machineFacts reads what all starts need to know of this machine and this
// process.
func machineFacts(tree cgroup.Tree) (facts, error) {
	f := facts{Bounding: oci.OwnBounding(), CPUs: throttledCPUs(), Swap: hasSwapLimit(tree)}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return f, fmt.Errorf("read own limit of open files: %w", err)
	}
	f.NofileHard = limit.Max
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return f, fmt.Errorf("read own oom score: %w", err)
	}
	if f.OOMScoreAdj, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return f, fmt.Errorf("read own oom score: %w", err)
	}
	return f, nil
}

// hasSwapLimit reports whether memory and swap can be limited together.
func hasSwapLimit(tree cgroup.Tree) bool {
	for _, h := range tree.Hierarchies {
		if !h.Unified && slices.Contains(h.Controllers, "memory") {
			_, err := os.Stat(h.Mount + "/memory.memsw.limit_in_bytes")
			return err == nil
		}
	}
	return true // version 2: its file is optional
}

// machineWarnings says what this machine lacks, one sentence each.
func (d *native) machineWarnings() []string {
	var out []string
	for _, f := range probe.Probe() {
		if !f.Have {
			out = append(out, fmt.Sprintf("%s: %s; %s", f.Name, f.Detail, f.Consequence))
		}
	}
	if lacking, err := oci.CapBits(defaultCaps()); err == nil && lacking&^d.facts.Bounding != 0 {
		out = append(out, fmt.Sprintf("capabilities: %s of the default set are not ours to give; containers go without",
			strings.Join(oci.CapList(lacking&^d.facts.Bounding), ", ")))
	}
	if d.facts.OOMScoreAdj > 0 {
		out = append(out, fmt.Sprintf("oom score: the driver runs with %d, below which containers cannot go", d.facts.OOMScoreAdj))
	}
	return out
}

// keyOfGroup reads a run's key out of its cgroup's name.
func keyOfGroup(name string) (execdriver.Key, bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 {
		return execdriver.Key{}, false
	}
	n, err := strconv.ParseUint(name[i+1:], 10, 64)
	return execdriver.Key{Container: name[:i], Run: n}, err == nil
}

// hostDevices lists the nodes of the host's /dev, for privileged containers,
// without those that every container has anyway.
func hostDevices() ([]specs.LinuxDevice, error) {
	own := []string{"/dev/ptmx", "/dev/console"}
	for _, d := range oci.DefaultDevices() {
		own = append(own, d.Path)
	}
	var out []specs.LinuxDevice
	err := filepath.WalkDir("/dev", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it has just gone
		}
		if e.IsDir() {
			switch e.Name() {
			case "pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev":
				return fs.SkipDir
			}
			return nil
		}
		if e.Type()&fs.ModeDevice == 0 || slices.Contains(own, path) {
			return nil
		}
		if d, _, err := deviceNode(path); err == nil && d != nil {
			out = append(out, *d)
		}
		return nil
	})
	return out, err
}
