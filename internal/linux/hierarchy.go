package linux

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Hierarchy is one mounted tree of control groups.
type Hierarchy struct {
	Unified     bool     // version 2
	Controllers []string // version 1: of this hierarchy, or one "name=…"; version 2: those the root offers
	Mount       string   // where it is mounted, whole
}

// Has reports whether the hierarchy is version 1 with this controller.
func (h Hierarchy) Has(controller string) bool {
	return !h.Unified && slices.Contains(h.Controllers, controller)
}

// Label names the hierarchy in messages.
func (h Hierarchy) Label() string {
	if h.Unified {
		return "unified"
	}
	return strings.Join(h.Controllers, ",")
}

// Key is the hierarchy's second field in /proc/PID/cgroup (cgroups(7)): empty
// for version 2, else the controllers.
func (h Hierarchy) Key() string {
	if h.Unified {
		return ""
	}
	return strings.Join(h.Controllers, ",")
}

// Hierarchies finds the control group hierarchies of this process's mount
// namespace, in the order of the mount table.
func Hierarchies() ([]Hierarchy, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	all := ParseHierarchies(table)
	for i, h := range all {
		if h.Unified {
			// Absent in trees older than the file: no controllers then.
			text, _ := os.ReadFile(h.Mount + "/cgroup.controllers")
			all[i].Controllers = strings.Fields(string(text))
		}
	}
	return all, nil
}

// ParseHierarchies reads a mount table in the form of /proc/PID/mountinfo
// (proc(5)). Which controllers version 2 offers is not in it.
func ParseHierarchies(table []byte) []Hierarchy {
	var all []Hierarchy
	seen := map[string]bool{} // by device: a hierarchy may be mounted at several places
	for line := range bytes.Lines(table) {
		if !bytes.Contains(line, []byte(" - cgroup")) {
			continue // the table of a busy host has thousands of lines
		}
		front, back, ok := strings.Cut(strings.TrimSpace(string(line)), " - ")
		fields, tail := strings.Fields(front), strings.Fields(back)
		if !ok || len(fields) < 6 || len(tail) < 3 {
			continue
		}
		device, root, h := fields[2], fields[3], Hierarchy{Mount: unescape(fields[4])}
		switch tail[0] {
		case "cgroup":
			h.Controllers = v1Controllers(tail[2])
		case "cgroup2":
			h.Unified = true
		default:
			continue
		}
		if root != "/" || seen[device] { // a bind mount of a part, or the same one again
			continue
		}
		seen[device] = true
		all = append(all, h)
	}
	return all
}

// v1Controllers picks the controllers out of a superblock's options.
func v1Controllers(options string) []string {
	var out []string
	for o := range strings.SplitSeq(options, ",") {
		switch {
		case strings.HasPrefix(o, "name="):
			out = append(out, o)
		case o == "rw", o == "ro", o == "xattr", o == "clone_children", o == "cpuset_v2_mode",
			o == "noprefix", o == "favordynmods", o == "none", strings.Contains(o, "="):
		default:
			out = append(out, o)
		}
	}
	return out
}

// unescape turns the octal escapes of mountinfo back (space is \040).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1:i+4]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// isOctal reports whether s is octal digits only, and at most \377.
func isOctal(s string) bool {
	return s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' && s[2] >= '0' && s[2] <= '7'
}
