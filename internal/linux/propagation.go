package linux

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MountPropagation tells of the mount that a path is on whether mounts travel
// to its peers (shared) and from a master (slave). It reads the mount table,
// so ask only when it matters.
func MountPropagation(path string) (shared, slave bool, err error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return false, false, err
	}
	id := ""
	for line := range bytes.Lines(info) {
		if v, ok := strings.CutPrefix(string(line), "mnt_id:"); ok {
			id = strings.TrimSpace(v)
		}
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, false, err
	}
	for line := range bytes.Lines(table) {
		front, _, _ := strings.Cut(string(line), " - ")
		fields := strings.Fields(front)
		if len(fields) < 6 || fields[0] != id {
			continue
		}
		for _, optional := range fields[6:] {
			shared = shared || strings.HasPrefix(optional, "shared:")
			slave = slave || strings.HasPrefix(optional, "master:")
		}
		return shared, slave, nil
	}
	return false, false, fmt.Errorf("mount %s of %s is not in the mount table: %w", id, path, unix.ENOENT)
}

// SharedAt reports whether the mount that a path is on is shared, and whether one
// below the path is. The path is absolute and without links. It reads the mount
// table.
func SharedAt(path string) (top, below bool, err error) {
	if top, _, err = MountPropagation(path); err != nil {
		return false, false, err
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, false, err
	}
	prefix := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(strings.TrimSuffix(path, "/")) + "/"
	for line := range bytes.Lines(table) {
		front, _, _ := strings.Cut(string(line), " - ")
		fields := strings.Fields(front)
		if len(fields) > 6 && strings.HasPrefix(fields[4], prefix) && strings.Contains(front, " shared:") {
			return top, true, nil
		}
	}
	return top, false, nil
}
